//! Why a statement was not done: what the server says, sorted by what follows from it.

use crate::error::FetchFailure;
use crate::origin::guard::Trouble;
use std::cell::Cell;
use std::error::Error as _;
use std::fmt;
use std::io;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::error::Severity;

/// How often a fault of a kind is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Why a statement was not done.
#[derive(Debug)]
pub(super) enum Fault {
    /// There was no connection to send it on.
    Unsent,
    /// What the server says, or the connection to it.
    Server(tokio_postgres::Error),
    /// The SQL, or what it returned, is not what it has to be.
    Wrong(String),
    /// The value exceeds `cache.value_size_max`.
    TooLarge,
}

impl Fault {
    /// The SQLSTATE, where the server gave one.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Server(error) => error.code().map(tokio_postgres::error::SqlState::code),
            Self::Unsent | Self::Wrong(_) | Self::TooLarge => None,
        }
    }

    /// What it says of the server.
    pub(super) fn trouble(&self) -> Trouble {
        match self {
            Self::Unsent => Trouble::Unsent,
            Self::TooLarge => Trouble::Useless(FetchFailure::TooLarge),
            // A read may be sent again, wherever the connection broke.
            Self::Server(_) if self.is_lost() => Trouble::Unsent,
            Self::Server(_) | Self::Wrong(_) => match self.code() {
                Some(code) if is_ill(code) => Trouble::Failed,
                _ => Trouble::Useless(FetchFailure::Unavailable),
            },
        }
    }

    /// The connection broke.
    pub(super) fn is_lost(&self) -> bool {
        let Self::Server(error) = self else { return false };
        let is_io = error.source().is_some_and(|source| source.is::<io::Error>());
        error.is_closed() || error.code().is_none() && is_io
    }

    /// The prepared statement no longer fits the schema, or is gone: it has to be prepared anew.
    pub(super) fn is_outdated(&self) -> bool {
        matches!(self.code(), Some("0A000" | "26000"))
    }

    /// The prepared statement may be to blame: the next one who needs it prepares it anew.
    pub(super) fn is_of_statement(&self) -> bool {
        self.is_outdated() || self.code().is_some_and(|code| code.starts_with("42"))
    }

    /// Another write came in between: the same again finds what that one has left.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self.code(), Some("40001" | "40P01" | "23505"))
    }

    /// Where it ended a statement that changes something: whether that was surely not done. The
    /// server says so by an error that leaves the session as it is.
    pub(super) fn is_undone(&self) -> bool {
        match self {
            Self::Unsent | Self::Wrong(_) | Self::TooLarge => true,
            Self::Server(error) => error
                .as_db_error()
                .is_some_and(|error| error.parsed_severity() == Some(Severity::Error)),
        }
    }
}

/// Whether a server that says this is ill; any other code means that the statement is.
fn is_ill(code: &str) -> bool {
    // Connection, transaction rolled back, resources, operator intervention, system, internal.
    ["08", "40", "53", "57", "58", "XX"].iter().any(|class| code.starts_with(class))
        || code == "55P03"
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsent => f.write_str("no connection"),
            Self::Wrong(what) => f.write_str(what),
            Self::TooLarge => f.write_str("the value exceeds cache.value_size_max"),
            Self::Server(error) => f.write_str(&told(error)),
        }
    }
}

/// What an error says, in a line. Details are left out: they quote rows.
pub(super) fn told(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(said), _) => format!("{} (SQLSTATE {})", said.message(), said.code().code()),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

/// Lets a line into the log once in a while, so that what fails often does not flood it.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    last: Cell<Option<Instant>>,
}

impl Seldom {
    /// Whether it is time for another line.
    pub(super) fn is_due(&self) -> bool {
        let now = Instant::now();
        let is_due = self.last.get().is_none_or(|last| now - last >= LOG_EVERY);
        if is_due {
            self.last.set(Some(now));
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_that_speak_of_the_server_are_its_failures() {
        for code in
            ["08006", "40001", "40P01", "53300", "57014", "57P01", "57P03", "58030", "XX000"]
        {
            assert!(is_ill(code), "{code}");
        }
        for code in ["42601", "42P01", "42501", "22P02", "23505", "0A000", "25006", "28P01", ""] {
            assert!(!is_ill(code), "{code}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_statement_says_nothing_bad_of_the_server() {
        let unavailable = Trouble::Useless(FetchFailure::Unavailable);
        assert_eq!(Fault::Wrong(String::new()).trouble(), unavailable);
        assert_eq!(Fault::TooLarge.trouble(), Trouble::Useless(FetchFailure::TooLarge));
        assert_eq!(Fault::Unsent.trouble(), Trouble::Unsent);
        assert!(Fault::Unsent.is_undone() && Fault::Wrong(String::new()).is_undone());
    }

    #[test]
    fn a_line_is_due_once_a_minute() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().expect("a runtime").block_on(async {
            let seldom = Seldom::default();
            assert!(seldom.is_due() && !seldom.is_due());
            tokio::time::advance(LOG_EVERY).await;
            assert!(seldom.is_due() && !seldom.is_due());
        });
    }
}
