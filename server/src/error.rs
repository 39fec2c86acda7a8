//! The four kinds of error, never mixed.
//!
//! Our own bug is an assertion and ends the process. What a peer or the kernel does to one
//! connection is a [`CloseReason`], recorded in its slot and counted. What an origin does is a
//! [`FetchFailure`]. What keeps the process from starting is a [`StartError`], which says what to
//! do.

use std::fmt;

/// Declares [`CloseReason`]: its variants, whether each is an error, and what it means.
macro_rules! close_reasons {
    ($($variant:ident, $name:literal, $is_error:literal, $sentence:literal;)+) => {
        /// Why a connection ended. Each reason has a counter, `pelton_connections_closed_total`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum CloseReason { $(#[doc = $sentence] $variant,)+ }

        impl CloseReason {
            /// Every reason, in the order of its counters.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The value of the label `reason`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Whether an operator should wonder about it.
            #[must_use]
            pub const fn is_error(self) -> bool {
                match self { $(Self::$variant => $is_error,)+ }
            }

            /// What it means, for an operator.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)+ }
            }
        }
    };
}

close_reasons! {
    PeerClosed, "peer_closed", false, "The peer closed and was owed nothing more.";
    PeerVanished, "peer_vanished", true, "The peer reset the connection, or closed it before its replies were sent.";
    Requested, "requested", false, "The peer asked for it: Connection: close, or HTTP/1.0 without keep-alive.";
    Refused, "refused", true, "A request broke the protocol or a limit; the reply said which, then we closed.";
    IdleTimeout, "idle_timeout", false, "No request came within http.idle_timeout.";
    HeaderTimeout, "header_timeout", true, "A request head was not complete within http.header_timeout.";
    BodyTimeout, "body_timeout", true, "A request body was not complete within http.body_timeout.";
    WriteTimeout, "write_timeout", true, "The peer took no byte of a reply within http.write_timeout.";
    InputBound, "input_bound", true, "The shard's bound on unread input was reached and this connection held the most.";
    OutputBound, "output_bound", true, "The shard ran out of output blocks, or slow readers held too much of its cache, and the peer of this connection had taken no byte for a while.";
    SlotsFull, "slots_full", true, "Closed at once: it was accepted while no shard had room any more.";
    NewBound, "new_bound", true, "Refused: too many connections of the shard had not sent a whole request (server.connections_new_max).";
    AddressBound, "address_bound", true, "Refused: its address had too many connections (server.connections_per_address_max).";
    RequestsBound, "requests_bound", false, "It had sent as many requests as it may (http.requests_per_connection_max).";
    Draining, "draining", false, "The server is stopping.";
    SocketError, "socket_error", true, "The kernel reported an error on the socket that is none of the above.";
}

/// Why an origin gave neither a value nor a clear absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchFailure {
    /// No answer within `origin.timeout`. Answered with 504.
    Timeout,
    /// The origin could not be asked, or said that it failed. Answered with 502.
    Unavailable,
    /// The value exceeds `cache.value_size_max`. Answered with 502.
    TooLarge,
    /// There was no room for the value within the time allowed. Answered with 503.
    NoRoom,
}

/// Why the process cannot start, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    /// Which exit code it ends with.
    pub exit: Exit,
    /// What failed, where and why.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl StartError {
    /// A failure to start that ends with [`Exit::Failed`].
    pub fn failed(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, what: what.into(), remedy: remedy.into() }
    }

    /// A command line that asks for what cannot be; ends with [`Exit::Usage`].
    pub fn usage(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, what: what.into(), remedy: remedy.into() }
    }

    /// A host that the server cannot run on as it is; ends with [`Exit::Findings`].
    pub fn host(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { exit: Exit::Findings, what: what.into(), remedy: remedy.into() }
    }

    /// Somebody who does not answer; ends with [`Exit::Unreachable`].
    pub fn unreachable(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { exit: Exit::Unreachable, what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  {}", self.what, self.remedy)
    }
}

impl std::error::Error for StartError {}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Fine = 0,
    /// It failed.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// A check found something fatal.
    Findings = 3,
    /// What was to be asked does not answer.
    Unreachable = 6,
}
