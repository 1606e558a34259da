//! `[metrics]`: where a scraper finds them.
//!
//! In: values of the table of keys. Out: an address for the node. Pure.

use std::net::SocketAddr;

/// `[metrics]`
#[derive(Debug, Clone)]
pub struct Metrics {
    /// A listener for metrics and health alone. Default: none, the API's serves them.
    pub listen: Option<SocketAddr>,
}
