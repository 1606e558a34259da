//! One way to a collector: requests by HTTP or gRPC over one client of hyper.
//!
//! In: encoded messages. Out: what the collector answered, or why there is no answer and whether it may
//! be tried again. Owner: the courier of a signal. Bounds: one request at a time; of an answer
//! [`ANSWER_BYTES_MAX`] are read, and there are [`TASKS_MAX`] tasks of connections. Certificates are read
//! when a client of hyper is made, and it is made anew after each request that failed: with the old one
//! its connections end, so that neither an old certificate nor a connection that hangs outlives it.

use std::error::Error;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderName, HeaderValue, RETRY_AFTER,
    USER_AGENT,
};
use hyper::{HeaderMap, Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use prost::Message;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tonic::body::Body;

use super::answer::{
    AGENT, ANSWER_BYTES_MAX, Answer, CUT_OFF, Failure, Http, NO_ANSWER, TOO_LONG, answer,
    json_answer, word,
};
use super::connections::{Connections, End};
use super::grpc;
use crate::config::telemetry::{Compression, Protocol, Target};
use crate::telemetry::fields::causes;

/// After so long balancers drop a connection that is not used, some without a word: what is sent by it then
/// may be lost.
const DROPPED: Duration = Duration::from_secs(60);
/// How long one is kept. So the reading of each minute has a new one.
const IDLE: Duration = Duration::from_secs(30);
const _: () = assert!(IDLE.as_secs() * 2 <= DROPPED.as_secs());
/// Most tasks of connections. One connection has at most two of them; more is left where a collector
/// answers before it has read, and then reads no more.
const TASKS_MAX: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Client {
    target: Target,
    /// The method of gRPC.
    method: &'static str,
    /// How long a connection that is not used is kept.
    idle: Duration,
    /// Held while it is looked at alone.
    http: Mutex<Option<Made>>,
}

/// A client of hyper with all its connections. Dropped together.
#[derive(Debug)]
struct Made {
    http: Http,
    end: End,
}

impl Client {
    /// A client for one signal; `method` is its method of gRPC.
    pub(super) fn new(target: Target, method: &'static str) -> Self {
        Self {
            target,
            method,
            idle: IDLE,
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

    /// Ends all connections, and begins anew with the next request.
    pub(super) fn renew(&self) {
        *self.http.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The client of now, or a new one.
    fn http(&self) -> Result<Http, Failure> {
        let mut made = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.as_ref().filter(|made| made.end.tasks() <= TASKS_MAX) {
            return Ok(made.http.clone());
        }
        // What is there ends.
        let new = client(&self.target, self.idle).map_err(Failure::passing)?;
        Ok(made.insert(new).http.clone())
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
            // Answers are short, and one that is packed would have no bound.
            .header(ACCEPT_ENCODING, "identity")
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
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => TOO_LONG,
            false => CUT_OFF,
        });
        read(&Response::from_parts(head, ()), body, &self.target)
    }
}

/// What an answer by HTTP says, or why there is none of its body.
fn read(
    response: &Response<()>,
    body: Result<Bytes, &'static str>,
    target: &Target,
) -> Result<Answer, Failure> {
    let (status, headers) = (response.status(), response.headers());
    let kind = Kind::of(headers);
    if status.is_success() {
        return taken(status, kind, body, headers, target);
    }
    let said = said(&body.unwrap_or_default(), kind == Kind::Protobuf);
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
        is_unknown: !is_refused(status),
        after: retry_after(headers),
    })
}

/// What an answer of success says. One without a body is that of a collector: some have nothing to say
/// beside 202 or 204. Whatever else answers, such as a proxy with a page of its own, is none.
fn taken(
    status: StatusCode,
    kind: Kind,
    body: Result<Bytes, &'static str>,
    headers: &HeaderMap,
    target: &Target,
) -> Result<Answer, Failure> {
    let answer = match (body, kind) {
        (Ok(body), _) if body.is_empty() => return Ok(Answer::default()),
        (_, Kind::Other) => {
            let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
            let kind = String::from_utf8_lossy(kind.unwrap_or_default());
            let kind = word(&kind, target);
            let why = format!("what answered {status} ({kind:?}) is no collector");
            return Err(Failure::unreadable(why));
        }
        (Err(why), _) => return Ok(Answer::unread(why)),
        (Ok(body), Kind::Json) => json_answer(&body, target),
        (Ok(body), Kind::Protobuf) => answer(body, target),
    };
    answer.ok_or_else(|| Failure::unreadable(NO_ANSWER.to_owned()))
}

/// In what form a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Protobuf,
    Json,
    Other,
}

impl Kind {
    fn of(headers: &HeaderMap) -> Self {
        let kind = headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next());
        match kind
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
            .as_str()
        {
            "application/x-protobuf" => Self::Protobuf,
            "application/json" => Self::Json,
            _ => Self::Other,
        }
    }
}

/// Whether a request was certainly not taken: it was refused for what it is or for who sent it.
fn is_refused(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::TOO_MANY_REQUESTS
    )
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

/// When the collector wants to be asked again: in so many seconds, or at a date, by its own clock where it
/// tells that.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
    let after = text(RETRY_AFTER)?;
    if !after.is_empty() && after.bytes().all(|byte| byte.is_ascii_digit()) {
        // One that is no number of ours is longer than anybody waits.
        return Some(Duration::from_secs(after.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(after).ok()?;
    let date = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    let now = date.unwrap_or_else(SystemTime::now);
    // One that is over is now.
    Some(at.duration_since(now).unwrap_or_default())
}

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Level::fast());
    // Writing to a vector does not fail.
    let _ = packed.write_all(message);
    packed.finish().unwrap_or_default()
}

fn client(target: &Target, idle: Duration) -> Result<Made, String> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // What a closed one still had to send waits no longer for somebody who does not read.
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(target.timeout));
    let tls = HttpsConnectorBuilder::new()
        .with_tls_config(tls(target)?)
        .https_or_http();
    let (connections, end) = Connections::new();
    let mut builder = legacy::Client::builder(connections);
    builder
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(idle)
        .pool_max_idle_per_host(1);
    let http = match target.protocol {
        Protocol::Http => builder.build(tls.enable_http1().wrap_connector(tcp)),
        Protocol::Grpc => builder
            .http2_only(true)
            .build(tls.enable_http2().wrap_connector(tcp)),
    };
    Ok(Made { http, end })
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
mod tests;
