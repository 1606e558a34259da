//! How a client is: connected, away, or at its end.

use std::time::Duration;

use crate::subscription::Ended;

/// Whether the client is connected.
#[derive(Debug, Clone)]
pub enum Status {
    /// It is.
    Connected {
        /// The name of the node.
        node: String,
    },
    /// It is not, and tries again by itself.
    Away {
        /// Why.
        cause: String,
        /// When the next try begins.
        again_after: Duration,
    },
    /// It is not, and does not come back.
    Ended(Ended),
}
