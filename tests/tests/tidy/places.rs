//! Which kinds of code may stand where: unsafe, async, global state, locks, lint exceptions.

use crate::code::{bracketed, find_word, first_word};
use crate::source::{Finding, Source};

/// Files, or folders, that may hold unsafe code: the kernel's ring and its buffers, system calls,
/// leaves that use SIMD or prefetch.
const UNSAFE: &[&str] = &[
    "bench/src/ring.rs",
    "server/src/http/scan.rs",
    "server/src/ring/buffers.rs",
    "server/src/ring/kernel.rs",
    "server/src/sys/",
    "shard-cache/src/prefetch.rs",
];

/// Where async code may stand: the planes that run on a runtime, and what starts them.
const ASYNC: &[&str] = &[
    "server/src/admin",
    "server/src/commands",
    "server/src/main.rs",
    "server/src/origin",
    "server/src/server",
    "server/src/storage",
    "tests/examples/own_origin.rs",
    "tests/src/sim/keeper.rs",
    "tests/src/snapshots.rs",
];

/// The data plane: what runs on a shard's thread.
const DATA_PLANE: &[&str] = &[
    "server/src/hot",
    "server/src/http",
    "server/src/mesh",
    "server/src/ring",
    "server/src/shard",
    "shard-cache/src",
];

/// State that outlives its owner. Only the allocator that watches the shards keeps some.
const GLOBALS: &[&str] =
    &["thread_local", "lazy_static", "LazyCell", "LazyLock", "OnceCell", "OnceLock"];

/// What makes a shard wait, or write.
const LOCKS: &[&str] = &["Condvar", "Mutex", "RwLock", "println", "eprintln", "tracing"];

fn lies_in(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path.starts_with(place))
}

/// `unsafe` stands in the listed files only.
pub(crate) fn unsafe_files(source: &Source) -> Vec<Finding> {
    if lies_in(&source.path, UNSAFE) {
        return Vec::new();
    }
    find_word(&source.code, "unsafe")
        .map(|at| source.finding(at, "unsafe outside the listed files"))
        .collect()
}

/// Every unsafe block and implementation has a SAFETY comment directly above its statement.
pub(crate) fn safety_comments(source: &Source) -> Vec<Finding> {
    find_word(&source.code, "unsafe")
        .filter(|&at| {
            let next = source.code[at + "unsafe".len()..].trim_start();
            next.starts_with('{') || first_word(next) == "impl"
        })
        .filter(|&at| !has_safety_comment(source, at))
        .map(|at| source.finding(at, "unsafe without a SAFETY comment directly above"))
        .collect()
}

/// Looks upwards from a block: over the lines of its statement, then through one comment.
fn has_safety_comment(source: &Source, at: usize) -> bool {
    let line_start = source.text[..at].rfind('\n').map_or(0, |end| end + 1);
    if source.text[line_start..at].contains("SAFETY:") {
        return true;
    }
    let mut in_comment = false;
    for line in source.text[..line_start].lines().rev().map(str::trim) {
        let is_comment = line.starts_with("//");
        if is_comment && line.contains("SAFETY:") {
            return true;
        }
        let statement_ends = line.is_empty() || line.ends_with([';', '{', '}']);
        if in_comment != is_comment && (in_comment || statement_ends) {
            return false;
        }
        if !is_comment && statement_ends {
            return false;
        }
        in_comment |= is_comment;
    }
    false
}

/// `async` and `.await` stand outside the data plane only.
pub(crate) fn async_code(source: &Source) -> Vec<Finding> {
    if lies_in(&source.path, ASYNC) {
        return Vec::new();
    }
    ["async", "await"]
        .into_iter()
        .flat_map(|word| find_word(&source.code, word))
        .map(|at| source.finding(at, "async code outside the planes that run on a runtime"))
        .collect()
}

/// What a shard's thread runs has no state but its own, takes no lock and writes no line.
pub(crate) fn globals_and_locks(source: &Source) -> Vec<Finding> {
    let code = source.code_before_tests();
    let mut findings = Vec::new();
    let found = |words: &[&str], what: &str| -> Vec<Finding> {
        let places = words.iter().flat_map(|word| find_word(code, word));
        places.map(|at| source.finding(at, what)).collect()
    };
    let in_data_plane = lies_in(&source.path, DATA_PLANE);
    let in_sys = lies_in(&source.path, &["server/src/sys"]);
    if (in_data_plane || in_sys) && source.path != "server/src/sys/alloc.rs" {
        findings.extend(found(GLOBALS, "global state in the data plane"));
        // A reference that lives for ever is no global.
        let statics = find_word(code, "static mut").filter(|&at| !code[..at].ends_with('\''));
        findings.extend(statics.map(|at| source.finding(at, "global state in the data plane")));
    }
    if in_data_plane {
        findings.extend(found(LOCKS, "a shard takes no lock and writes no line"));
    }
    findings
}

/// `allow` lifts nothing but `unsafe_code`, at the declaration of a listed file; `expect` lifts
/// what it must; both say why.
pub(crate) fn lint_exceptions(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, _) in source.code.match_indices("#[").chain(source.code.match_indices("#![")) {
        let open = at + source.code[at..].find('[').expect("it was just matched");
        let attribute = bracketed(&source.code[open..], '[', ']');
        let has_reason = find_word(attribute, "reason").next().is_some();
        let lifts = |lint: &str| {
            find_word(attribute, lint).any(|word| attribute[word + lint.len()..].starts_with('('))
        };
        if (lifts("expect") || lifts("allow")) && !has_reason {
            findings.push(source.finding(at, "a lint exception gives a reason"));
        }
        if lifts("allow") && !declares_unsafe_file(source, attribute, open) {
            findings.push(source.finding(
                at,
                "allow is for unsafe_code where a listed file is declared; else use expect",
            ));
        }
    }
    findings
}

/// Whether an `allow` of `unsafe_code` alone is followed by the declaration of a listed file.
fn declares_unsafe_file(source: &Source, attribute: &str, at: usize) -> bool {
    let lints = attribute.trim_start_matches('[').trim_start_matches("allow(").trim_start();
    let after = lints.strip_prefix("unsafe_code").unwrap_or("").trim_start();
    let next = after.strip_prefix(',').unwrap_or("").trim_start();
    let alone = first_word(next) == "reason";
    let declaration = source.code[at + attribute.len()..].trim_start();
    let head = &declaration[..declaration.find([';', '{', '}']).unwrap_or(0)];
    let name = head.split_once("mod ").map_or("", |(_, name)| name.trim());
    alone && !name.is_empty() && lies_in(&format!("{}{name}", folder(&source.path)), &stems())
}

/// The folder in which the modules that a file declares lie, with a slash at its end.
fn folder(path: &str) -> String {
    let stem = ["mod.rs", "lib.rs", "main.rs"].iter().find_map(|root| path.strip_suffix(root));
    stem.map_or_else(|| format!("{}/", path.trim_end_matches(".rs")), ToOwned::to_owned)
}

/// [`UNSAFE`] without endings: a module's path, whether it is a file or a folder.
fn stems() -> Vec<&'static str> {
    UNSAFE.iter().map(|place| place.trim_end_matches('/').trim_end_matches(".rs")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(rule: fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> usize {
        rule(&Source::new(path, text)).len()
    }

    #[test]
    fn unsafe_is_found_outside_its_files_only() {
        let text = "//! unsafe\nfn f() { unsafe { g() } }";
        assert_eq!(findings(unsafe_files, "server/src/shard/mod.rs", text), 1);
        assert_eq!(findings(unsafe_files, "server/src/ring/kernel.rs", text), 0);
        assert_eq!(findings(unsafe_files, "server/src/sys/memory.rs", text), 0);
        assert_eq!(findings(unsafe_files, "a.rs", "#![deny(unsafe_code)] // unsafe"), 0);
    }

    #[test]
    fn an_unsafe_block_needs_its_comment_directly_above() {
        let count = |text| findings(safety_comments, "a.rs", text);
        assert_eq!(count("fn f() {\n    unsafe { g() }\n}"), 1);
        assert_eq!(count("fn f() {\n    // SAFETY: g is fine.\n    unsafe { g() }\n}"), 0);
        assert_eq!(count("// SAFETY:\n// - one.\n// - two.\nlet x =\n    unsafe { g() };"), 0);
        assert_eq!(count("// SAFETY: for h.\nunsafe { h() };\nunsafe { g() };"), 1);
        assert_eq!(count("// SAFETY: far.\n\n// Other.\nunsafe { g() };"), 1);
        assert_eq!(count("unsafe impl Send for A {}"), 1);
        assert_eq!(count("/// # Safety\nunsafe fn f() {}"), 0);
    }

    #[test]
    fn async_code_is_found_outside_its_planes() {
        let text = "async fn f() { g().await }";
        assert_eq!(findings(async_code, "server/src/shard/pump.rs", text), 2);
        assert_eq!(findings(async_code, "server/src/origin/mod.rs", text), 0);
        assert_eq!(findings(async_code, "server/src/ring/mod.rs", "// await\nfn f() {}"), 0);
    }

    #[test]
    fn global_state_and_locks_are_found_in_the_data_plane() {
        let rule = globals_and_locks;
        assert_eq!(findings(rule, "server/src/mesh/a.rs", "static mut A: u8 = 0;"), 1);
        assert_eq!(findings(rule, "server/src/mesh/a.rs", "struct A(&'static mut u8);"), 0);
        assert_eq!(findings(rule, "server/src/sys/a.rs", "static A: OnceLock<u8> = x();"), 1);
        assert_eq!(findings(rule, "server/src/sys/alloc.rs", "thread_local! {}"), 0);
        assert_eq!(findings(rule, "shard-cache/src/a.rs", "use std::sync::Mutex;"), 1);
        assert_eq!(findings(rule, "server/src/admin/a.rs", "use std::sync::Mutex;"), 0);
        let test = "#[cfg(test)]\nmod tests { fn f() { println!() } }";
        assert_eq!(findings(rule, "server/src/shard/a.rs", test), 0);
    }

    #[test]
    fn an_expected_lint_gives_a_reason() {
        let count = |text| findings(lint_exceptions, "server/src/http/a.rs", text);
        assert_eq!(count("#[expect(clippy::exit)]\nfn f() {}"), 1);
        assert_eq!(count("#[expect(clippy::exit, reason = \"it ends\")]\nfn f() {}"), 0);
        assert_eq!(count("#![expect(\n    clippy::exit,\n    reason = \"x\"\n)]\nfn f() {}"), 0);
        assert_eq!(count("fn f() { allow(1); expect(2); }"), 0);
    }

    #[test]
    fn an_allowed_lint_is_unsafe_code_of_a_listed_file() {
        let count = |path, text| findings(lint_exceptions, path, text);
        let good = "#[allow(unsafe_code, reason = \"system calls\")]\npub(crate) mod kernel;";
        assert_eq!(count("server/src/ring/mod.rs", good), 0);
        assert_eq!(count("server/src/http/mod.rs", good), 1);
        let other = "#[allow(dead_code, reason = \"later\")]\nmod kernel;";
        assert_eq!(count("server/src/ring/mod.rs", other), 1);
        let both = "#[allow(unsafe_code, dead_code, reason = \"later\")]\nmod kernel;";
        assert_eq!(count("server/src/ring/mod.rs", both), 1);
        let whole = "#[allow(unsafe_code, reason = \"system calls\")]\nmod sys;";
        assert_eq!(count("server/src/lib.rs", whole), 0);
        let item = "#[allow(unsafe_code, reason = \"system calls\")]\nfn f() {}";
        assert_eq!(count("server/src/ring/mod.rs", item), 1);
    }
}
