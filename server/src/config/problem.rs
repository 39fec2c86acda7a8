//! What is wrong with a configuration: file, line, place, what is expected, the nearest name.

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};
use std::fmt;
use std::ops::Range;

/// One thing that is wrong.
#[derive(Debug)]
pub(crate) struct Problem {
    /// Stable code, such as `config::unknown_key`.
    pub(crate) code: &'static str,
    /// What is wrong, as a sentence without its full stop.
    pub(crate) what: String,
    /// The bytes of the source it is about, and what is said beneath them.
    pub(crate) place: Option<(Range<usize>, String)>,
    /// What to write instead.
    pub(crate) help: String,
    /// The file, or the `--set`, that was read.
    pub(crate) source: NamedSource<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.place.is_some().then_some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (span, label) = self.place.as_ref()?;
        let label = LabeledSpan::new_with_span(Some(label.clone()), span.clone());
        Some(Box::new(std::iter::once(label)))
    }
}

/// Everything that is wrong with a configuration; never nothing.
#[derive(Debug)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// # Panics
    /// If there is no problem.
    pub(crate) fn new(problems: Vec<Problem>) -> Self {
        assert!(!problems.is_empty(), "an error says what is wrong");
        Self { problems }
    }

    pub(crate) fn unreadable(name: &str, error: &std::io::Error) -> Self {
        Self::new(vec![Problem {
            code: "config::unreadable",
            what: format!("cannot read {name}: {error}"),
            place: None,
            help: "name an existing file after -c, or leave -c out to run with the defaults".into(),
            source: NamedSource::new(name, String::new()),
        }])
    }

    /// All problems with their lines and places, for a terminal that takes `color` or not.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::none() };
        // Wide enough that no path or name is broken over two lines.
        let handler = GraphicalReportHandler::new_themed(theme).with_width(200).with_links(false);
        let mut out = String::new();
        for problem in &self.problems {
            handler.render_report(&mut out, problem).expect("a string takes every character");
        }
        out
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for ConfigError {}
