//! Who may use whom: the order of the server's modules, and the purity of the cache.

use crate::code::{find_word, second_segments};
use crate::source::{Finding, Source};

/// The server's modules from the ground up, those of one layer side by side. A module uses its
/// own layer and the layers below.
const LAYERS: &[&[&str]] = &[
    &["error", "config", "limits", "metrics", "histograms", "hot", "token", "api_key"],
    &["sys"],
    &["ring"],
    &["http"],
    &["mesh"],
    &["shard", "host"],
    &["origin", "storage", "admin"],
    &["server"],
    &["commands"],
    &["main"],
];

/// Uses that the layers alone would allow: planes meet in `mesh` and in `server`, nowhere else.
const FORBIDDEN: &[(&str, &str)] = &[
    ("origin", "admin"),
    ("admin", "origin"),
    ("origin", "storage"),
    ("storage", "origin"),
    ("storage", "admin"),
    ("admin", "storage"),
    ("origin", "shard"),
    ("storage", "shard"),
    ("admin", "shard"),
];

/// Parts of the standard library that a pure crate has no use for.
const IMPURE: &[&str] = &["env", "fs", "io", "net", "os", "process", "thread"];

/// The server's module that a file belongs to: the name of its file or of its first folder.
fn module(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("server/src/")?;
    let name = inside.split('/').next().unwrap_or(inside);
    let name = name.strip_suffix(".rs").unwrap_or(name);
    (name != "lib").then_some(name)
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The modules that a file uses, each with the place where it says so.
fn uses(source: &Source) -> Vec<(usize, &str)> {
    let root = if source.path == "server/src/main.rs" { "pelton" } else { "crate" };
    let mut found = second_segments(source.code_before_tests(), root);
    // What begins with a capital is an item at the root, not a module.
    found.retain(|(_, name)| name.starts_with(|first: char| first.is_ascii_lowercase()));
    found
}

/// Lower modules never use higher ones.
pub(crate) fn layers(source: &Source) -> Vec<Finding> {
    let Some(user) = module(&source.path) else { return Vec::new() };
    let Some(user_layer) = layer(user) else {
        return vec![source.finding(0, format!("module {user} has no place in the order"))];
    };
    let wrong = |used: &str| {
        layer(used).is_none_or(|used_layer| used_layer > user_layer)
            || FORBIDDEN.contains(&(user, used))
    };
    uses(source)
        .into_iter()
        .filter(|(_, used)| wrong(used))
        .map(|(at, used)| source.finding(at, format!("{user} must not use {used}")))
        .collect()
}

/// A path that leaves one of the modules above begins with `crate::`, so that [`layers`] sees it.
pub(crate) fn paths(source: &Source) -> Vec<Finding> {
    let Some(inside) = source.path.strip_prefix("server/src/") else { return Vec::new() };
    // From `a/b.rs` and from `a/b/mod.rs`, one `super` leads to `a` and two lead out of it.
    let depth = inside.trim_end_matches("/mod.rs").split('/').count();
    source
        .code_before_tests()
        .match_indices(&"super::".repeat(depth))
        .map(|(at, _)| source.finding(at, "name it from crate::, so that its place is seen"))
        .collect()
}

/// Modules of one layer may use one another, but not in a circle.
pub(crate) fn cycles(sources: &[Source]) -> Vec<Finding> {
    let edges: Vec<(&str, &str)> = sources
        .iter()
        .filter_map(|source| Some((module(&source.path)?, source)))
        .flat_map(|(user, source)| uses(source).into_iter().map(move |(_, used)| (user, used)))
        .filter(|(user, used)| user != used)
        .collect();
    // Whoever uses nobody that is left is no part of a circle; the rest is one.
    let mut left: Vec<&str> = LAYERS.concat();
    loop {
        let in_use = |user: &str| edges.iter().any(|(from, to)| *from == user && left.contains(to));
        let kept: Vec<&str> = left.iter().copied().filter(|user| in_use(user)).collect();
        if kept.len() == left.len() {
            break;
        }
        left = kept;
    }
    if left.is_empty() {
        return Vec::new();
    }
    let what = format!("among these modules is a circle: {}", left.join(", "));
    vec![Finding { path: "server/src".to_owned(), line: 0, what }]
}

/// The cache knows no server and does no input or output.
pub(crate) fn purity(source: &Source) -> Vec<Finding> {
    if !source.path.starts_with("shard-cache/src/") {
        return Vec::new();
    }
    let code = source.code_before_tests();
    let mut findings: Vec<Finding> = second_segments(code, "std")
        .into_iter()
        .filter(|(_, name)| IMPURE.contains(name))
        .map(|(at, name)| source.finding(at, format!("the cache is pure: no std::{name}")))
        .collect();
    for name in ["pelton", "libc", "io_uring"] {
        findings.extend(
            find_word(code, name).map(|at| source.finding(at, format!("no {name} in the cache"))),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(rule: fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> usize {
        rule(&Source::new(path, text)).len()
    }

    #[test]
    fn a_lower_module_must_not_use_a_higher_one() {
        assert_eq!(findings(layers, "server/src/ring/mod.rs", "use crate::shard::Shard;"), 1);
        assert_eq!(findings(layers, "server/src/ring/mod.rs", "use crate::{sys, http::Date};"), 1);
        assert_eq!(findings(layers, "server/src/shard/mod.rs", "use crate::{ring, http};"), 0);
    }

    #[test]
    fn planes_must_not_use_each_other() {
        assert_eq!(findings(layers, "server/src/origin/mod.rs", "use crate::admin::A;"), 1);
        assert_eq!(findings(layers, "server/src/admin.rs", "fn f() { crate::origin::g() }"), 1);
        assert_eq!(findings(layers, "server/src/admin.rs", "use crate::shard::S;"), 1);
        assert_eq!(findings(layers, "server/src/admin.rs", "use crate::mesh::M;"), 0);
    }

    #[test]
    fn a_module_nobody_placed_is_found() {
        assert_eq!(findings(layers, "server/src/helpers.rs", ""), 1);
        assert_eq!(findings(layers, "server/src/mesh/x.rs", "use crate::helpers::f;"), 1);
        assert_eq!(findings(layers, "server/src/lib.rs", "pub mod helpers;"), 0);
    }

    #[test]
    fn tests_and_comments_do_not_count_as_uses() {
        let text = "// crate::shard\n#[cfg(test)]\nmod tests { use crate::shard::S; }";
        assert_eq!(findings(layers, "server/src/ring/mod.rs", text), 0);
    }

    #[test]
    fn relative_paths_out_of_a_module_are_found() {
        assert_eq!(findings(paths, "server/src/ring/kernel.rs", "use super::Ring;"), 0);
        assert_eq!(findings(paths, "server/src/ring/kernel.rs", "use super::super::shard;"), 1);
        assert_eq!(findings(paths, "server/src/ring/mod.rs", "use super::shard;"), 1);
        assert_eq!(findings(paths, "server/src/origin/import/mod.rs", "use super::Store;"), 0);
        let nested = "use super::super::Store;";
        assert_eq!(findings(paths, "server/src/origin/import/entry.rs", nested), 0);
        assert_eq!(findings(paths, "server/src/origin/import/mod.rs", nested), 1);
        assert_eq!(findings(paths, "server/src/error.rs", "use super::shard;"), 1);
    }

    #[test]
    fn a_circle_is_found_and_a_chain_is_not() {
        let limits = Source::new("server/src/limits.rs", "use crate::config::Config;");
        let config = Source::new("server/src/config/mod.rs", "use crate::limits::Limits;");
        let ring = Source::new("server/src/ring/mod.rs", "use crate::limits::Limits;");
        assert_eq!(cycles(&[limits, ring]).len(), 0);
        let limits = Source::new("server/src/limits.rs", "use crate::config::Config;");
        assert_eq!(cycles(&[limits, config]).len(), 1);
    }

    #[test]
    fn the_cache_must_not_reach_outside() {
        assert_eq!(findings(purity, "shard-cache/src/a.rs", "use std::fs;"), 1);
        assert_eq!(findings(purity, "shard-cache/src/a.rs", "use std::{fmt, io::Read};"), 1);
        assert_eq!(findings(purity, "shard-cache/src/a.rs", "use std::ops::Add;"), 0);
        assert_eq!(findings(purity, "server/src/sys/a.rs", "use std::fs;"), 0);
    }
}
