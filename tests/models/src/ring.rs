//! A stand-in for the server's ring, of which the queues know a name.

/// A descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fd(pub i32);
