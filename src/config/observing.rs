//! `[log]`, `[metrics]` and `[health]`: how the node is seen.
//!
//! In: values of the table of keys. Out: what the parts that tell of the node are given. Pure.

use std::net::SocketAddr;
use std::time::Duration;

/// `[log]`
#[derive(Debug, Clone)]
pub struct Log {
    /// `text`, `json`, or by terminal.
    pub format: LogFormat,
    /// A filter as `tracing` reads it, for example `info,fanfare=debug`.
    pub level: String,
    /// Whether the opening and the end of each session are told at level info.
    pub sessions: bool,
    /// What takes longer than this is told; 0: nothing is. Default 1 s.
    pub slow: Duration,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON in a pipe.
    Auto,
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// `[metrics]`
#[derive(Debug, Clone)]
pub struct Metrics {
    /// A listener for metrics and health alone. Default: none, the API's serves them.
    pub listen: Option<SocketAddr>,
}

/// `[health]`
#[derive(Debug, Clone)]
pub struct Health {
    /// How long a part may stand still before the node is not live. `None`: for ever. Default 30 s.
    pub stuck: Option<Duration>,
    /// How often alerts are judged. Default 5 s.
    pub interval: Duration,
}
