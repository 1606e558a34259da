//! What a collector answers, by either protocol.
//!
//! In: bodies of answers, and errors on the way. Out: an [`Answer`] or a [`Failure`]. Pure. Bounds: of an
//! answer [`ANSWER_BYTES_MAX`] are read, and [`WORD_CHARS_MAX`] characters of what it says are told.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use serde::Deserialize;
use serde_json::{Map, Value};
use tonic::body::Body;

use crate::config::telemetry::Target;
use crate::telemetry::fields::causes;

/// Most bytes of an answer that are read.
pub(super) const ANSWER_BYTES_MAX: usize = 64 * 1_024;
/// Most characters of what a collector says that are told.
const WORD_CHARS_MAX: usize = 200;
/// Fewest bytes of a part of a header's value that are hidden where a collector repeats it.
const HIDDEN_BYTES_MIN: usize = 4;
/// Why what is said to be taken is not.
pub(super) const NO_ANSWER: &str = "what answered is no collector: its answer cannot be read";
/// Why it is not known what a collector said of a request that it took.
pub(super) const TOO_LONG: &str =
    "its answer is longer than 64 KiB, and whether it rejected some is not known";
/// The same.
pub(super) const CUT_OFF: &str = "its answer broke off, and whether it rejected some is not known";
/// Of each request.
pub(super) const AGENT: &str = concat!("fanfare/", env!("CARGO_PKG_VERSION"));

/// A client for all schemes.
pub(super) type Http = legacy::Client<HttpsConnector<HttpConnector>, Body>;

/// What a collector said of a request that it took.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// How many items it did not take.
    pub(super) rejected: u64,
    /// Why; or what it says beside.
    pub(super) why: String,
}

impl Answer {
    /// One of which no more is known than that the request was taken.
    pub(super) fn unread(why: &str) -> Self {
        Self {
            rejected: 0,
            why: why.to_owned(),
        }
    }
}

/// Why a request was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(super) struct Failure {
    /// For people.
    pub(super) why: String,
    /// Whether it may be tried again.
    pub(super) is_passing: bool,
    /// Whether the collector may have taken it all the same.
    pub(super) is_unknown: bool,
    /// When, if the collector said so.
    pub(super) after: Option<Duration>,
}

impl Failure {
    /// One that will not pass.
    pub(super) fn lasting(why: String) -> Self {
        Self {
            why,
            is_passing: false,
            is_unknown: false,
            after: None,
        }
    }

    /// One that may pass.
    pub(super) fn passing(why: String) -> Self {
        Self {
            is_passing: true,
            ..Self::lasting(why)
        }
    }

    /// One that will not pass, of somebody who may have taken the request all the same.
    pub(super) fn unreadable(why: String) -> Self {
        Self {
            is_unknown: true,
            ..Self::lasting(why)
        }
    }

    /// One after which nobody knows whether the request arrived.
    pub(super) fn unknown(why: String) -> Self {
        Self {
            is_unknown: true,
            ..Self::passing(why)
        }
    }

    /// One of the way to the collector.
    pub(super) fn on_the_way(error: &(dyn Error + 'static)) -> Self {
        let mut causing = std::iter::successors(Some(error), |&cause| cause.source());
        // Without a connection nothing was written.
        let is_unconnected = causing.any(|cause| {
            let of_client = cause.downcast_ref::<legacy::Error>();
            of_client.is_some_and(legacy::Error::is_connect)
        });
        match is_unconnected {
            true => Self::passing(causes(error)),
            false => Self::unknown(causes(error)),
        }
    }
}

/// The answer of any signal: they differ in names, and not on the wire. `None`: it is none.
pub(super) fn answer(body: Bytes, target: &Target) -> Option<Answer> {
    let answer = ExportTraceServiceResponse::decode(body).ok()?;
    let partial = answer.partial_success.unwrap_or_default();
    Some(Answer {
        rejected: u64::try_from(partial.rejected_spans).unwrap_or_default(),
        why: word(&partial.error_message, target),
    })
}

/// The same as JSON, as some collectors answer whatever they were sent; names in either case, as all who
/// read JSON of protobuf must take them. `None`: it is none.
pub(super) fn json_answer(body: &[u8], target: &Target) -> Option<Answer> {
    /// 64-bit numbers are text in this form.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Count {
        Number(i64),
        Text(String),
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Partial {
        #[serde(
            alias = "rejectedSpans",
            alias = "rejectedLogRecords",
            alias = "rejected_log_records",
            alias = "rejectedDataPoints",
            alias = "rejected_data_points"
        )]
        rejected_spans: Option<Count>,
        #[serde(alias = "errorMessage")]
        error_message: Option<String>,
    }
    let mut whole: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let partial = whole.remove("partialSuccess");
    let partial = match partial.or_else(|| whole.remove("partial_success")) {
        // An object of something else, such as an error.
        None if !whole.is_empty() => return None,
        None => Partial::default(),
        Some(partial) => Option::deserialize(partial).ok()?.unwrap_or_default(),
    };
    let rejected = match partial.rejected_spans {
        None => 0,
        Some(Count::Number(count)) => count,
        Some(Count::Text(text)) => text.parse().ok()?,
    };
    Some(Answer {
        rejected: u64::try_from(rejected).unwrap_or_default(),
        why: word(&partial.error_message.unwrap_or_default(), target),
    })
}

/// What a collector says, in one short line without the headers that it was given.
pub(super) fn word(text: &str, target: &Target) -> String {
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for (_, value) in &target.headers {
        let parts = value.0.split_whitespace();
        for part in parts.filter(|part| part.len() >= HIDDEN_BYTES_MIN) {
            text = text.replace(part, "***");
        }
    }
    text.chars().take(WORD_CHARS_MAX).collect()
}

/// A collector for tests of answers.
#[cfg(test)]
pub(super) fn target() -> Target {
    use crate::config::Secret;
    use crate::config::telemetry::{Compression, Protocol};

    Target {
        url: "http://127.0.0.1:4318".to_owned(),
        protocol: Protocol::Http,
        headers: vec![("key".to_owned(), Secret("Bearer abcdef".to_owned()))],
        timeout: Duration::from_secs(1),
        compression: Compression::None,
        tls_ca_file: None,
    }
}
