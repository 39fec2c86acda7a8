//! What a player needs of the place in which a script is played.

/// What reading gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// At least one byte.
    Bytes(Vec<u8>),
    /// The server ended the connection.
    End,
    /// The connection was reset.
    Reset,
    /// Nothing within the stage's patience.
    Nothing,
}

/// What the origin has for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// This value.
    Has(Vec<u8>),
    /// This value, of which it says that it is unchanged where the server has it.
    Keeps(Vec<u8>),
    /// No value.
    Absent,
    /// Fetches fail at once.
    Failing,
    /// Fetches fail because they take too long.
    Late,
}

/// A server with an origin, and clients of it.
pub trait Stage {
    /// Opens a connection and answers its number.
    fn connect(&mut self) -> usize;

    /// Sends bytes in pieces as small as the stage was told to make them.
    fn write(&mut self, client: usize, bytes: &[u8]);

    /// Waits for bytes, or an end.
    fn read(&mut self, client: usize) -> Received;

    /// Sends no more on a connection.
    fn finish(&mut self, client: usize);

    /// Says what the origin has. A stage that cannot change its origin is told before it starts.
    fn source(&mut self, key: &str, source: &Source);

    /// Holds all fetches, or lets them go on.
    fn hold(&mut self, hold: bool);

    /// Lets time go by.
    fn advance(&mut self, ms: u64);

    /// Asks the server to end.
    fn drain(&mut self);

    /// Whether the server has ended well after it was asked to.
    fn has_exited(&mut self) -> bool;

    /// The value of a metric; waits until it is `expected` if the stage publishes late.
    fn counter(&mut self, name: &str, label: &str, expected: u64) -> u64;
}
