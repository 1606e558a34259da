//! HTTP as a backend speaks it: one request a connection, JSON in and out.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::kept;

/// The API key of `--dev`.
pub const DEV_KEY: &str = "dev";

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: hyper::HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// `GET`, with the development key.
pub async fn get(to: SocketAddr, path: &str) -> Answer {
    try_get(to, path).await.expect("the listener answers")
}

/// `GET`, with the development key; `None` when nobody answers.
pub async fn try_get(to: SocketAddr, path: &str) -> Option<Answer> {
    let request = Request::builder().uri(path).body(Full::default());
    send(to, request.expect("a valid request")).await
}

/// `POST` of a JSON body, with the development key.
pub async fn post(to: SocketAddr, path: &str, body: &Value) -> Answer {
    try_post(to, path, body)
        .await
        .expect("the listener answers")
}

/// `POST` of a JSON body, with the development key; `None` when nobody answers.
pub async fn try_post(to: SocketAddr, path: &str, body: &Value) -> Option<Answer> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header("content-type", "application/json")
        .body(Full::from(body.to_string()));
    send(to, request.expect("a valid request")).await
}

/// Sends a request as it is, with `Host` and the development key added; `None` when there is no
/// whole answer within [`PATIENCE`].
pub async fn send(to: SocketAddr, request: Request<Full<Bytes>>) -> Option<Answer> {
    let answer = tokio::time::timeout(PATIENCE, exchange(to, request)).await;
    answer.ok().flatten()
}

async fn exchange(to: SocketAddr, mut request: Request<Full<Bytes>>) -> Option<Answer> {
    let headers = request.headers_mut();
    let host = to.to_string().parse().expect("an address is a host");
    headers.insert("host", host);
    let key = format!("Bearer {DEV_KEY}").parse().expect("a header value");
    headers.entry("authorization").or_insert(key);
    present(headers);
    let path = request.uri().clone();
    let stream = TcpStream::connect(to).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    let driver = tokio::spawn(connection);
    let response: Response<_> = sender.send_request(request).await.ok()?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    driver.abort();
    let answer = Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    };
    // What a backend reads that was let in holds what others published, and no more.
    if !answer.status.is_success() || path.path().starts_with("/health") {
        kept::line("answers", || format!("{path} {answer:?}"));
    }
    Some(answer)
}

/// The key that a request presents is a secret, right or wrong.
fn present(headers: &hyper::HeaderMap) {
    let key = headers
        .get("authorization")
        .and_then(|key| key.to_str().ok());
    if let Some(key) = key.and_then(|key| key.strip_prefix("Bearer ")) {
        kept::secret(key);
    }
}
