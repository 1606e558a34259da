//! The HTTP API as the command line calls it: JSON in, JSON out, one key.
//!
//! In: `publish` and `nodes`. Out: the node's answer, or an [`ApiError`] that says what to do.
//! Owner: one [`Api`] per command, with one connection that is kept open between calls. Bounds:
//! 5 s to connect, 30 s for an answer; then the call fails. No TLS: the API listens on a private
//! address.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as TransportError};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::exit::{Exit, Failure};

/// Longest wait for a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a whole answer. A node answers within its command timeout of 2 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the API is and how to be let in.
#[derive(Debug, Clone, clap::Args)]
pub struct ApiArgs {
    /// Address of a node's HTTP API
    #[arg(
        long,
        alias = "api",
        env = "FANFARE_API_URL",
        default_value = "http://127.0.0.1:8081",
        value_name = "URL"
    )]
    pub api_url: String,
    /// API key; a node started with --dev takes "dev"
    #[arg(
        long,
        env = "FANFARE_API_KEY",
        hide_env_values = true,
        default_value = "dev",
        value_name = "KEY"
    )]
    pub api_key: String,
}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address is none, or needs TLS.
    #[error("{url} is not an address of the HTTP API, which looks like http://HOST:PORT")]
    Address {
        /// As given.
        url: String,
    },
    /// The key has bytes that no header can carry.
    #[error("the API key has characters that are not allowed in a header")]
    Key,
    /// No connection, or it broke before the answer.
    #[error("cannot reach {url}")]
    Unreachable {
        /// What was called.
        url: String,
        /// Why.
        #[source]
        source: TransportError,
    },
    /// The connection broke within the answer.
    #[error("the answer of {url} broke off")]
    BrokenOff {
        /// What was called.
        url: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// No answer within [`ANSWER_TIMEOUT`].
    #[error("no answer from {url} within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut {
        /// What was called.
        url: String,
    },
    /// The answer is not JSON, so it is none of a Fanfare node.
    #[error("{url} answered {status} with something that is not JSON")]
    Unreadable {
        /// What was called.
        url: String,
        /// The status of the answer.
        status: StatusCode,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The node refused the call.
    #[error("{code}: {message}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The error code of the contract.
        code: String,
        /// The node's sentence.
        message: String,
    },
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let exit = match &error {
            ApiError::Address { .. } | ApiError::Key => Exit::Usage,
            ApiError::Refused { status, .. } => Exit::by_status(status.as_u16()),
            ApiError::Unreachable { .. }
            | ApiError::BrokenOff { .. }
            | ApiError::TimedOut { .. }
            | ApiError::Unreadable { .. } => Exit::Unreachable,
        };
        let failure = Self::new(exit, &error);
        match (&error, exit) {
            (ApiError::Unreadable { .. }, _) => failure
                .hint("is --api-url (FANFARE_API_URL) the address of the API, not of the sockets?"),
            (ApiError::Refused { .. }, Exit::Unreachable) => {
                failure.hint("the node is starting, leaving or without Redis: try again soon")
            }
            (_, Exit::Unreachable) => {
                failure.hint("is the node running? Start one with: fanfare serve --dev")
            }
            (_, Exit::Denied) => failure.hint("give the key with --api-key or FANFARE_API_KEY"),
            _ => failure,
        }
    }
}

/// A node's HTTP API.
#[derive(Debug)]
pub struct Api {
    base: String,
    authorization: HeaderValue,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Api {
    /// Prepares calls; nothing is connected yet.
    ///
    /// # Errors
    /// [`ApiError::Address`] and [`ApiError::Key`].
    pub fn new(args: &ApiArgs) -> Result<Self, ApiError> {
        let base = args.api_url.trim_end_matches('/').to_owned();
        let is_http = base
            .parse::<Uri>()
            .is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some());
        if !is_http {
            return Err(ApiError::Address { url: base });
        }
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {}", args.api_key)).map_err(|_| ApiError::Key)?;
        authorization.set_sensitive(true);
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self {
            base,
            authorization,
            client,
        })
    }

    /// Asks for something.
    ///
    /// # Errors
    /// [`ApiError`], `Refused` for every status but 2xx.
    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// Sends something. A call whose answer was lost is not repeated: it may have been done.
    ///
    /// # Errors
    /// [`ApiError`], `Refused` for every status but 2xx, unless there are `results` to read.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.call(Method::POST, path, body.to_string().into()).await
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Value, ApiError> {
        let url = format!("{}{path}", self.base);
        match tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(method, &url, body)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(ApiError::TimedOut { url }),
        }
    }

    async fn exchange(&self, method: Method, url: &str, body: Bytes) -> Result<Value, ApiError> {
        let url = url.to_owned();
        let request = Request::builder()
            .method(method)
            .uri(&url)
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|_| ApiError::Address { url: url.clone() })?;
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(source) => return Err(ApiError::Unreachable { url, source }),
        };
        let status = response.status();
        let body = match response.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(source) => return Err(ApiError::BrokenOff { url, source }),
        };
        let answer: Value = match serde_json::from_slice(&body) {
            Ok(answer) => answer,
            Err(source) => {
                return Err(ApiError::Unreadable {
                    url,
                    status,
                    source,
                });
            }
        };
        // A publication none of whose targets succeeded has results too, each with its error.
        if status.is_success() || answer["results"].is_array() {
            return Ok(answer);
        }
        let text = |key: &str| answer["error"][key].as_str().unwrap_or_default().to_owned();
        Err(ApiError::Refused {
            status,
            code: text("code"),
            message: text("message"),
        })
    }
}

/// Writes text as one part of a path or query: everything but letters, digits and `-._~` is
/// percent-encoded.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_survives_as_one_query_value() {
        assert_eq!(percent_encode("auth0|x&y=1"), "auth0%7Cx%26y%3D1");
        assert_eq!(percent_encode("a+b@c.org"), "a%2Bb%40c.org");
    }

    #[test]
    fn only_plain_http_addresses_are_taken() {
        let new = |url: &str| {
            Api::new(&ApiArgs {
                api_url: url.to_owned(),
                api_key: "dev".to_owned(),
            })
        };
        assert!(new("http://127.0.0.1:8081/").is_ok());
        for wrong in ["127.0.0.1:8081", "https://x", "ws://x:1", "", "http://"] {
            assert!(
                matches!(new(wrong), Err(ApiError::Address { .. })),
                "{wrong}"
            );
        }
    }
}
