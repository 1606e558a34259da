//! What kind of failure it is that ended a load, for whoever makes an exit code of it.

/// A class of failures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// The flags are wrong, or do not fit this machine.
    Usage,
    /// The server answered with this HTTP status.
    Status(u16),
    /// The server refused with this error code of `fanfare.v1`.
    Code(String),
    /// The server closed a session with this code.
    Close(u16),
    /// The server refused in another way, or broke the rules of its protocol.
    Refused,
    /// The server cannot be reached, or went away.
    Unreachable,
}
