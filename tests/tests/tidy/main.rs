//! The house rules as tests: what the compiler and clippy cannot say, read off the sources.
//!
//! Each rule is a function from sources to findings, with tests on a few lines of its own; here
//! all of them run over the tree. A rule that is wrong is changed here, never worked around.

mod code;
mod docs;
mod order;
mod places;
mod source;
mod text;

#[cfg(test)]
mod tests {
    use crate::source::{Finding, Source, Tree};
    use crate::{docs, order, places, text};

    /// Fails with all findings, one a line, so that one run is enough to mend them.
    fn expect_none(findings: &[Finding]) {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
    }

    /// Applies a rule to every source of the tree.
    fn expect_everywhere(rule: fn(&Source) -> Vec<Finding>) {
        let tree = Tree::read();
        assert!(tree.sources.len() > 10, "the walk found the sources");
        expect_none(&tree.sources.iter().flat_map(rule).collect::<Vec<_>>());
    }

    #[test]
    fn modules_use_only_what_lies_below_them() {
        expect_everywhere(order::layers);
    }

    #[test]
    fn modules_outside_their_own_folder_are_named_from_the_crate_root() {
        expect_everywhere(order::paths);
    }

    #[test]
    fn modules_do_not_depend_on_each_other_in_a_circle() {
        expect_none(&order::cycles(&Tree::read().sources));
    }

    #[test]
    fn the_cache_is_pure() {
        expect_everywhere(order::purity);
    }

    #[test]
    fn unsafe_code_lies_in_the_listed_files_only() {
        expect_everywhere(places::unsafe_files);
    }

    #[test]
    fn every_unsafe_block_says_why_it_is_sound() {
        expect_everywhere(places::safety_comments);
    }

    #[test]
    fn async_code_lies_outside_the_data_plane() {
        expect_everywhere(places::async_code);
    }

    #[test]
    fn the_data_plane_has_no_global_state_and_no_locks() {
        expect_everywhere(places::globals_and_locks);
    }

    #[test]
    fn lint_exceptions_give_a_reason() {
        expect_everywhere(places::lint_exceptions);
    }

    #[test]
    fn every_file_says_what_it_is_for() {
        expect_everywhere(text::head);
    }

    #[test]
    fn lines_and_files_are_short_and_ascii() {
        expect_everywhere(text::columns);
        expect_everywhere(text::ascii);
        expect_everywhere(text::length);
    }

    #[test]
    fn nothing_is_left_unfinished() {
        expect_everywhere(text::unfinished);
    }

    #[test]
    fn the_top_of_the_repository_holds_what_it_should() {
        expect_none(&text::top_level(&Tree::read().top_level));
    }

    #[test]
    fn docs_name_every_metric_and_every_reason_to_close() {
        let page = Tree::page("docs/metrics.md");
        expect_none(&docs::metrics(&page));
        expect_none(&docs::close_reasons(&page));
    }
}
