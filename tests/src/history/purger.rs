//! Somebody who purges all the time: keys, prefixes, groups, everything; for good or softly. A
//! purge changes no value, so nobody may see that it was there.

use super::values;
use crate::prng::Prng;
use crate::process::Process;

/// What came of the purges.
#[derive(Clone, Copy, Debug, Default)]
pub struct Purges {
    /// In force.
    pub done: u64,
    /// Refused for want of room: there are many.
    pub refused: u64,
}

/// Purges one after the other, of so many keys, while `is_wanted`.
///
/// # Panics
/// If a purge is answered by anything but 200 and 503.
pub fn purge_while(
    server: &Process,
    token: &str,
    keys: usize,
    mut prng: Prng,
    is_wanted: impl Fn() -> bool,
) -> Purges {
    let mut purges = Purges::default();
    while is_wanted() {
        let body = body(&mut prng, keys);
        match server.purge(token, &body) {
            (200, _) => purges.done += 1,
            (503, _) => purges.refused += 1,
            (status, answer) => panic!("{body}: {status} {answer}"),
        }
    }
    purges
}

/// What to purge next: mostly one key, so that the others stay in memory.
fn body(prng: &mut Prng, keys: usize) -> String {
    let number = prng.index(keys);
    let soft = prng.coin();
    let what = match prng.below(100) {
        0..80 => format!(r#""key":"{}""#, values::key(number)),
        80..90 => format!(r#""prefix":"{}:{}""#, values::group(number), number % 10),
        90..97 => format!(r#""group":"{}""#, values::group(number)),
        _ => r#""all":true"#.to_owned(),
    };
    format!(r#"{{{what},"soft":{soft}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_can_be_purged_is_purged_in_both_ways() {
        let mut prng = Prng::new(1);
        let bodies: Vec<String> = (0..1_000).map(|_| body(&mut prng, 64)).collect();
        for what in ["key", "prefix", "group", "all"] {
            for soft in [true, false] {
                let is = |body: &&String| {
                    body.starts_with(&format!(r#"{{"{what}":"#))
                        && body.ends_with(&format!(r#""soft":{soft}}}"#))
                };
                assert!(bodies.iter().any(|body| is(&body)), "{what} {soft}");
            }
        }
    }
}
