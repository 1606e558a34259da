//! What a collector answers, by either protocol.
//!
//! In: bodies of answers, and errors on the way. Out: an [`Answer`] or a [`Failure`]. Pure. Bounds: of an
//! answer [`ANSWER_BYTES_MAX`] are read.

use std::time::Duration;

use bytes::Bytes;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use tonic::body::Body;

/// Most bytes of an answer that are read.
pub(super) const ANSWER_BYTES_MAX: usize = 64 * 1_024;
/// Of each request.
pub(super) const AGENT: &str = concat!("fanfare/", env!("CARGO_PKG_VERSION"));

/// A client for all schemes.
pub(super) type Http = legacy::Client<HttpsConnector<HttpConnector>, Body>;

/// What a collector said of a request that it took.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// How many items it did not take.
    pub(super) rejected: u64,
    /// Why.
    pub(super) why: String,
}

/// Why a request was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(super) struct Failure {
    /// For people.
    pub(super) why: String,
    /// Whether it may be tried again.
    pub(super) is_passing: bool,
    /// When, if the collector said so.
    pub(super) after: Option<Duration>,
}

impl Failure {
    /// One that will not pass.
    pub(super) fn lasting(why: String) -> Self {
        Self {
            why,
            is_passing: false,
            after: None,
        }
    }

    /// One that may pass.
    pub(super) fn passing(why: String) -> Self {
        Self {
            why,
            is_passing: true,
            after: None,
        }
    }
}

/// The answer of any signal: they differ in names, and not on the wire.
pub(super) fn answer(body: Bytes) -> Answer {
    let answer = ExportTraceServiceResponse::decode(body).unwrap_or_default();
    let partial = answer.partial_success.unwrap_or_default();
    Answer {
        rejected: u64::try_from(partial.rejected_spans).unwrap_or_default(),
        why: partial.error_message,
    }
}
