//! Connections to one authorizer, and one exchange over one of them.
//!
//! In: a body with its headers. Out: the body of the answer, or why there is none, in words for the log. Owner:
//! one [`super::Authorizer`]; each connection is driven by a task that ends with it. Bounds: an idle connection
//! is used again for [`IDLE`]; as many are idle as enquiries may be asked at once; an answer has
//! [`BYTES_MAX`]. An enquiry is sent once: only where nothing of it was written is another connection tried.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode};

use super::answer::BYTES_MAX;
use crate::config::Authorizer as Settings;
use crate::tasks;
use crate::telemetry::fields::causes;
use crate::verification::endpoint::{Endpoint, Plain};
use crate::verification::trusted::Trusted;

/// How long an idle connection is used again. Servers close theirs after five seconds and more, and an enquiry
/// on one that is being closed would be lost.
const IDLE: Duration = Duration::from_secs(4);

/// What is said of one enquiry, by the backend or by what stands before it.
const OF_ONE: [StatusCode; 3] = [
    StatusCode::BAD_REQUEST,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNPROCESSABLE_ENTITY,
];

/// Why there is no answer, in words for the log.
#[derive(Debug)]
pub(super) enum Fault {
    /// The authorizer is not there, or not well.
    Away(String),
    /// It answered in time, and not as it should to this enquiry, which may be its sender's doing.
    Declined(String),
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Self::Away(why)
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// See the module.
pub(super) struct Connections {
    settings: Settings,
    idle: Mutex<Vec<(Instant, Sender)>>,
    trusted: Trusted,
}

impl Connections {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            trusted: Trusted::new(settings.ca_file.clone()),
            settings,
            idle: Mutex::default(),
        }
    }

    /// Sends an enquiry and reads its answer. Not bounded in time. Cancel-safe: the connection ends with the
    /// call.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) async fn exchange(&self, own: HeaderMap, body: Bytes) -> Result<Bytes, Fault> {
        let plain = match self.settings.allow_private {
            true => Plain::Allowed,
            false => Plain::Never,
        };
        let endpoint = Endpoint::new(&self.settings.url, self.settings.allow_private, plain)?;
        let mut request = request(&endpoint, own, body)?;
        loop {
            let kept = self.take_idle();
            let is_new = kept.is_none();
            let mut sender = match kept {
                Some(sender) => sender,
                None => self.connect(&endpoint).await?,
            };
            let response = match sender.try_send_request(request).await {
                Ok(response) => response,
                Err(mut error) => match error.take_message() {
                    // The other side closed it while it was idle.
                    Some(back) if !is_new => {
                        request = back;
                        continue;
                    }
                    _ => return Err(causes(error.error()).into()),
                },
            };
            let bytes = read(response).await?;
            self.keep(sender);
            return Ok(bytes);
        }
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Sender, String> {
        let tls = match endpoint.is_tls() {
            true => Some(self.trusted.config().await?),
            false => None,
        };
        let (mut sender, connection) = endpoint.connect(tls).await?;
        tasks::spawn_alone("authorizer_connection", async move {
            // How it ends is told by the exchange that it ends.
            let _ = connection.await;
        });
        sender.ready().await.map_err(|error| causes(&error))?;
        Ok(sender)
    }

    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(since, sender)| since.elapsed() < IDLE && !sender.is_closed());
        let (_, sender) = idle.pop()?;
        Some(sender)
    }

    fn keep(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.settings.concurrency && !sender.is_closed() {
            idle.push((Instant::now(), sender));
        }
    }
}

fn request(
    endpoint: &Endpoint,
    own: HeaderMap,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, String> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(endpoint.path())
        .body(Full::new(body))
        .map_err(|error| causes(&error))?;
    let host = HeaderValue::from_str(endpoint.authority()).map_err(|error| causes(&error))?;
    let headers = request.headers_mut();
    *headers = own;
    headers.insert(HOST, host);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let agent = concat!("fanfare/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    Ok(request)
}

async fn read(response: Response<Incoming>) -> Result<Bytes, Fault> {
    let status = response.status();
    if status.is_redirection() {
        let why = format!("it answered {status}, and redirects are not followed");
        return Err(why.into());
    }
    if OF_ONE.contains(&status) {
        return Err(Fault::Declined(format!("it answered {status}")));
    }
    if status != StatusCode::OK {
        return Err(format!("it answered {status}").into());
    }
    let kind = response.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err("its answer is not application/json".to_owned().into());
    }
    let body = Limited::new(response.into_body(), BYTES_MAX);
    let body = body
        .collect()
        .await
        .map_err(|error| match error.is::<LengthLimitError>() {
            true => Fault::Declined(format!("its answer is longer than {BYTES_MAX} bytes")),
            false => Fault::Away(format!("its answer was cut off: {}", causes(&*error))),
        })?;
    Ok(body.to_bytes())
}
