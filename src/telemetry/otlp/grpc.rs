//! One call by gRPC.
//!
//! In: an encoded message, the target, the method. Out: the collector's answer, or its status and
//! whether that may pass (<https://opentelemetry.io/docs/specs/otlp/#failures>). Pure but for the
//! call. Bounds: those of `client` and `answer`.

use std::error::Error as _;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use hyper::Uri;
use hyper::http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{
    AsciiMetadataKey, AsciiMetadataValue, BinaryMetadataKey, BinaryMetadataValue, MetadataMap,
};
use tonic::{Code, Status};

use super::answer::{
    AGENT, ANSWER_BYTES_MAX, Answer, Failure, Http, NO_ANSWER, TOO_LONG, answer, word,
};
use crate::config::telemetry::{Compression, Target};
use crate::telemetry::fields::causes;

/// The type of the detail that says when to try again.
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// Calls a method with an encoded message.
pub(super) async fn call(
    http: Http,
    target: &Target,
    method: &'static str,
    body: Bytes,
) -> Result<Answer, Failure> {
    let origin: Uri = target
        .url
        .parse()
        .map_err(|error| Failure::lasting(causes(&error)))?;
    let mut grpc = Grpc::with_origin(http, origin).max_decoding_message_size(ANSWER_BYTES_MAX);
    if target.compression == Compression::Gzip {
        // Answers are short, and one that is packed would have no bound.
        grpc = grpc.send_compressed(CompressionEncoding::Gzip);
    }
    let mut request = tonic::Request::new(body);
    let metadata = request.metadata_mut();
    metadata.insert("user-agent", AsciiMetadataValue::from_static(AGENT));
    for (name, value) in &target.headers {
        let is_put = put(metadata, &name.to_ascii_lowercase(), &value.0);
        is_put.ok_or_else(|| Failure::lasting(format!("{name} can be no header of gRPC")))?;
    }
    let called = grpc
        .unary(request, PathAndQuery::from_static(method), Raw)
        .await;
    match called {
        Ok(response) => answer(response.into_inner(), target)
            .ok_or_else(|| Failure::unreadable(NO_ANSWER.to_owned())),
        Err(status) if is_too_long(&status) => Ok(Answer::unread(TOO_LONG)),
        Err(status) => Err(failure(&status, target)),
    }
}

/// Sets a header, whose name says by its end whether its value is bytes.
fn put(metadata: &mut MetadataMap, name: &str, value: &str) -> Option<()> {
    if name.ends_with("-bin") {
        let name = BinaryMetadataKey::from_bytes(name.as_bytes()).ok()?;
        metadata.insert_bin(name, BinaryMetadataValue::from_bytes(value.as_bytes()));
        return Some(());
    }
    let name = AsciiMetadataKey::from_bytes(name.as_bytes()).ok()?;
    metadata.insert(name, AsciiMetadataValue::try_from(value).ok()?);
    Some(())
}

/// Whether the collector's message is longer than we read. tonic says so by a status, as a collector does
/// of a request that is too long for it; they differ by whose bound it is.
fn is_too_long(status: &Status) -> bool {
    let bound = format!("the limit is: {ANSWER_BYTES_MAX} bytes");
    status.code() == Code::OutOfRange && status.message().ends_with(&bound)
}

fn failure(status: &Status, target: &Target) -> Failure {
    // A status that the collector did not send was made of an error on the way, which says it better.
    if let Some(error) = status.source() {
        return Failure::on_the_way(error);
    }
    let after = retry_after(status.details());
    let is_passing = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::ResourceExhausted => after.is_some(),
        _ => false,
    };
    // The request was refused for what it is, or for who sent it. All others may come too late for that.
    let is_refused = matches!(
        status.code(),
        Code::InvalidArgument
            | Code::Unauthenticated
            | Code::PermissionDenied
            | Code::Unimplemented
            | Code::ResourceExhausted
    );
    let code = status.code();
    Failure {
        why: match word(status.message(), target) {
            said if said.is_empty() => format!("the collector answered {code:?}"),
            said => format!("the collector answered {code:?}: {said}"),
        },
        is_passing,
        is_unknown: !is_refused,
        after,
    }
}

/// Bytes as they are.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let all = from.remaining();
        Ok(Some(from.copy_to_bytes(all)))
    }
}

/// `google.rpc.Status`, as far as it is read.
#[derive(Clone, PartialEq, Message)]
struct RichStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// When the collector wants to be asked again.
fn retry_after(details: &[u8]) -> Option<Duration> {
    let status = RichStatus::decode(details).ok()?;
    let mut details = status.details.into_iter();
    let info = details.find(|detail| detail.type_url == RETRY_INFO)?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.delay?;
    let seconds = u64::try_from(delay.seconds).ok()?;
    let nanos = u64::try_from(delay.nanos).ok()?;
    Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::otlp::answer::target;

    fn told(seconds: i64) -> Vec<u8> {
        let delay = Some(Delay { seconds, nanos: 5 });
        let details = vec![
            Detail {
                type_url: "type.googleapis.com/google.rpc.DebugInfo".to_owned(),
                value: vec![1],
            },
            Detail {
                type_url: RETRY_INFO.to_owned(),
                value: RetryInfo { delay }.encode_to_vec(),
            },
        ];
        RichStatus { details }.encode_to_vec()
    }

    #[test]
    fn which_statuses_may_pass_is_what_the_protocol_says() {
        let of = |code| failure(&Status::new(code, "why"), &target()).is_passing;
        for code in [
            Code::Unavailable,
            Code::Aborted,
            Code::DataLoss,
            Code::DeadlineExceeded,
        ] {
            assert!(of(code), "{code:?}");
        }
        for code in [
            Code::ResourceExhausted,
            Code::InvalidArgument,
            Code::Unauthenticated,
            Code::Unimplemented,
            Code::Internal,
        ] {
            assert!(!of(code), "{code:?}");
        }
        let status = Status::with_details(Code::ResourceExhausted, "later", told(7).into());
        let failure = failure(&status, &target());
        assert!(failure.is_passing);
        assert_eq!(failure.after, Some(Duration::new(7, 5)));
    }

    #[test]
    fn only_a_refusal_is_certain() {
        let of = |code| failure(&Status::new(code, "why"), &target()).is_unknown;
        for code in [
            Code::InvalidArgument,
            Code::Unauthenticated,
            Code::PermissionDenied,
            Code::Unimplemented,
            Code::ResourceExhausted,
        ] {
            assert!(!of(code), "{code:?}");
        }
        for code in [
            Code::Unavailable,
            Code::Aborted,
            Code::Unknown,
            Code::Internal,
            Code::OutOfRange,
        ] {
            assert!(of(code), "{code:?}");
        }
        let silent = failure(&Status::new(Code::Internal, ""), &target());
        assert_eq!(silent.why, "the collector answered Internal");
    }

    #[test]
    fn a_request_that_is_too_long_for_a_collector_is_no_answer_that_is_too_long_for_us() {
        let of = |bytes: usize| {
            let said = format!(
                "Error, decoded message length too large: found 9 bytes, the limit is: {bytes} bytes"
            );
            is_too_long(&Status::out_of_range(said))
        };
        assert!(of(ANSWER_BYTES_MAX) && !of(4 << 20));
    }

    #[test]
    fn a_header_whose_name_ends_so_has_bytes() {
        let mut metadata = MetadataMap::new();
        put(&mut metadata, "x-tenant-bin", "abc").unwrap();
        put(&mut metadata, "x-tenant", "abc").unwrap();
        let bytes = metadata.get_bin("x-tenant-bin").unwrap();
        assert_eq!(&bytes.to_bytes().unwrap()[..], b"abc");
        assert_eq!(metadata.get("x-tenant").unwrap(), "abc");
    }

    #[test]
    fn what_is_no_delay_is_none() {
        assert_eq!(retry_after(&told(-1)), None);
        assert_eq!(retry_after(&[0xff]), None);
        assert_eq!(retry_after(&[]), None);
    }
}
