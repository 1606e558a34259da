//! One way to a collector: requests by HTTP or gRPC over one client of hyper.
//!
//! In: encoded messages. Out: what the collector answered, or why there is no answer and whether it may
//! be tried again. Owner: the courier of a signal. Bounds: one request at a time; of an answer
//! [`ANSWER_BYTES_MAX`] are read. Certificates are read when a client is made, and it is made anew
//! after each request that the transport failed, so that neither an old certificate nor a
//! connection that hangs outlives it.

use std::error::Error;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{HeaderMap, Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::Message;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tonic::body::Body;

use super::answer::{
    AGENT, ANSWER_BYTES_MAX, Answer, Failure, Http, NO_ANSWER, answer, json_answer, word,
};
use super::grpc;
use crate::config::telemetry::{Compression, Protocol, Target};
use crate::telemetry::fields::causes;

/// How long a connection that is not used is kept: longer than most intervals.
const IDLE: Duration = Duration::from_secs(90);

/// See the module.
#[derive(Debug)]
pub(super) struct Client {
    target: Target,
    /// The method of gRPC.
    method: &'static str,
    /// Held while it is looked at alone.
    http: Mutex<Option<Http>>,
}

impl Client {
    /// A client for one signal; `method` is its method of gRPC.
    pub(super) fn new(target: Target, method: &'static str) -> Self {
        Self {
            target,
            method,
            http: Mutex::new(None),
        }
    }

    /// Where it goes.
    pub(super) fn url(&self) -> &str {
        &self.target.url
    }

    /// How long an answer is waited for.
    pub(super) fn timeout(&self) -> Duration {
        self.target.timeout
    }

    /// A message as it is sent, so that it is packed once however often that is.
    pub(super) fn pack(&self, message: Bytes) -> Bytes {
        match (self.target.protocol, self.target.compression) {
            (Protocol::Http, Compression::Gzip) => gzip(&message).into(),
            // By gRPC each message is packed by itself, inside its frame.
            _ => message,
        }
    }

    /// Begins anew with the next request.
    pub(super) fn renew(&self) {
        *self.http.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The client of now, or a new one.
    fn http(&self) -> Result<Http, Failure> {
        let mut made = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(http) = &*made {
            return Ok(http.clone());
        }
        let http = client(&self.target).map_err(Failure::passing)?;
        Ok(made.insert(http).clone())
    }

    /// Sends a packed message. Not cancel-safe: [`Self::renew`] it afterwards.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn send(&self, body: Bytes) -> Result<Answer, Failure> {
        let http = self.http()?;
        let sent = match self.target.protocol {
            Protocol::Http => self.post(&http, body).await,
            Protocol::Grpc => grpc::call(http, &self.target, self.method, body).await,
        };
        if sent.is_err() {
            self.renew();
        }
        sent
    }

    async fn post(&self, http: &Http, body: Bytes) -> Result<Answer, Failure> {
        let mut request = Request::post(&self.target.url)
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(USER_AGENT, AGENT);
        if self.target.compression == Compression::Gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        for (name, value) in &self.target.headers {
            request = request.header(name, &value.0);
        }
        let request = request.body(Body::new(Full::new(body)));
        let request = request.map_err(|error| Failure::lasting(causes(&error)))?;
        let response = http.request(request).await;
        let response = response.map_err(|error| Failure::on_the_way(&error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map(|body| body.to_bytes());
        read(&Response::from_parts(head, ()), body.ok(), &self.target)
    }
}

/// What an answer by HTTP says. Whatever else than a collector answers for it, such as a proxy with a
/// page of its own, has taken nothing. `None`: the body could not be read to its end.
fn read(response: &Response<()>, body: Option<Bytes>, target: &Target) -> Result<Answer, Failure> {
    let (status, headers) = (response.status(), response.headers());
    let kind = headers
        .get(CONTENT_TYPE)
        .map_or(&[][..], HeaderValue::as_bytes);
    let is_protobuf = kind.starts_with(b"application/x-protobuf");
    let is_json = kind.starts_with(b"application/json");
    if status.is_success() {
        let is_empty = body.as_ref().is_some_and(Bytes::is_empty);
        if status != StatusCode::OK || !(is_protobuf || is_json || is_empty) {
            let kind = word(&String::from_utf8_lossy(kind), target);
            let why = format!("what answered {status} ({kind:?}) is no collector");
            return Err(Failure::lasting(why));
        }
        let Some(body) = body else {
            return Ok(Answer::default());
        };
        let answer = match is_json && !body.is_empty() {
            true => json_answer(&body, target),
            false => answer(body, target),
        };
        return answer.ok_or_else(|| Failure::lasting(NO_ANSWER.to_owned()));
    }
    let said = said(&body.unwrap_or_default(), is_protobuf);
    let why = match word(&said, target) {
        said if said.is_empty() => format!("the collector answered {status}"),
        said => format!("the collector answered {status}: {said}"),
    };
    Err(Failure {
        why,
        is_passing: matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        ),
        is_unknown: matches!(
            status,
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT
        ),
        after: retry_after(headers),
    })
}

/// `google.rpc.Status`, as far as a refusal by HTTP is read.
#[derive(Clone, PartialEq, Message)]
struct Refusal {
    #[prost(string, tag = "2")]
    message: String,
}

/// What the body of a refusal says.
fn said(body: &Bytes, is_protobuf: bool) -> String {
    match is_protobuf {
        true => Refusal::decode(body.clone()).unwrap_or_default().message,
        false => String::from_utf8_lossy(body).into_owned(),
    }
}

/// Seconds alone: of a date nobody knows by which clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Level::fast());
    // Writing to a vector does not fail.
    let _ = packed.write_all(message);
    packed.finish().unwrap_or_default()
}

fn client(target: &Target) -> Result<Http, String> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let tls = HttpsConnectorBuilder::new()
        .with_tls_config(tls(target)?)
        .https_or_http();
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(1);
    Ok(match target.protocol {
        Protocol::Http => builder.build(tls.enable_http1().wrap_connector(tcp)),
        Protocol::Grpc => builder
            .http2_only(true)
            .build(tls.enable_http2().wrap_connector(tcp)),
    })
}

fn tls(target: &Target) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let is_asked = target
        .url
        .parse::<Uri>()
        .is_ok_and(|uri| uri.scheme_str() == Some("https"));
    if is_asked {
        let trusted = match &target.tls_ca_file {
            Some(path) => certificates(path)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        if roots.add_parsable_certificates(trusted).0 == 0 {
            return Err("there is no certificate that could be trusted".to_owned());
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| causes(&error))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(|error| format!("{path}: {}", causes(&error as &(dyn Error + 'static))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::otlp::answer::target;

    fn of(status: u16, kind: &str, body: &[u8]) -> Result<Answer, Failure> {
        let response = Response::builder().status(status);
        let response = match kind {
            "" => response,
            kind => response.header(CONTENT_TYPE, kind),
        };
        let body = Some(Bytes::copy_from_slice(body));
        read(&response.body(()).unwrap(), body, &target())
    }

    #[test]
    fn what_a_proxy_answers_is_no_answer() {
        let protobuf = "application/x-protobuf";
        assert_eq!(of(200, protobuf, b""), Ok(Answer::default()));
        assert_eq!(of(200, "", b""), Ok(Answer::default()));
        let json = "application/json";
        assert_eq!(of(200, json, b""), Ok(Answer::default()));
        assert_eq!(of(200, json, b"{}"), Ok(Answer::default()));
        for name in ["Spans", "LogRecords", "DataPoints"] {
            for count in ["7", "\"7\""] {
                let partial = format!("\"rejected{name}\":{count},\"errorMessage\":\"no\"");
                let body = format!("{{\"partialSuccess\":{{{partial}}}}}");
                let answer = of(200, "application/json; charset=utf-8", body.as_bytes());
                let answer = answer.unwrap();
                assert_eq!((answer.rejected, &*answer.why), (7, "no"));
            }
        }
        for (status, kind, body) in [
            (200, "text/html", &b"<html>"[..]),
            (200, json, b"[]"),
            (200, json, b"ok"),
            (200, "", b"ok"),
            (204, "", b""),
            (202, protobuf, b""),
            (200, protobuf, b"\xff\xff"),
        ] {
            let failure = of(status, kind, body).unwrap_err();
            assert!(!failure.is_passing, "{status} {kind}");
        }
    }

    #[test]
    fn the_reason_has_what_the_collector_says_cut_and_without_our_headers() {
        let message = "no such tenant".to_owned();
        let body = Refusal { message }.encode_to_vec();
        let why = |status, kind, body: &[u8]| of(status, kind, body).unwrap_err().why;
        let protobuf = "application/x-protobuf";
        let said = "the collector answered 400 Bad Request: no such tenant";
        assert_eq!(why(400, protobuf, &body), said);
        let said = why(401, "text/plain", b"bad\nkey: Bearer abcdef ");
        assert!(said.ends_with(": bad key: *** ***"), "{said}");
        let said = why(401, "text/plain", &[b'a'; 4_096]);
        let said = said.rsplit(": ").next().unwrap();
        assert_eq!(said, "a".repeat(200));
    }
}
