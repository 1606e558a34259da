//! `[alerts]`: from where on the node calls something wrong.
//!
//! In: values of the table of keys. Out: plain numbers for the judge of alerts
//! (`src/telemetry/alerts`). `None` turns one off. Pure.

use std::time::Duration;

/// `[alerts]`
#[derive(Debug, Clone)]
pub struct Alerts {
    /// Most percent of requests and commands that fail. Default 5.
    pub error: Option<u64>,
    /// Longest mean time of requests or commands. Default 1 s.
    pub response: Option<Duration>,
    /// Most percent of the memory. Default 80.
    pub memory: Option<u64>,
    /// Most percent of the cores. Default 80.
    pub cpu: Option<u64>,
    /// Most percent of connections that are turned away. Default 10.
    pub refused: Option<u64>,
    /// Greatest age of a due entry of the queue. Default a minute.
    pub queue_age: Option<Duration>,
    /// Most percent by which memory grows in an hour, or in a day. Default 10.
    pub growth: Option<u64>,
    /// Longest time that one piece of work may take. Default 30 s.
    pub processing: Option<Duration>,
}
