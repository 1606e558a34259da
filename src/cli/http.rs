//! The HTTP API as the command line calls it: JSON in, JSON out, one key.
//!
//! In: `publish` and `nodes`. Out: the node's answer, or an [`ApiError`] that says what to do.
//! Owner: one [`Api`] per command, with one connection that is kept open between calls. Bounds:
//! 5 s to connect, 30 s for an answer; then the call fails.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::dial::{DialError, Place, TlsArgs, TrustError};
use super::exit::{Exit, Failure};

/// Longest wait for a connection.
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
    /// The address is none.
    #[error(
        "{url} is not an address of the HTTP API, which looks like http://HOST:PORT or https://HOST"
    )]
    Address {
        /// As given.
        url: String,
    },
    /// Whom to trust is not to be found out.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The key has bytes that no header can carry.
    #[error("the API key has characters that are not allowed in a header")]
    Key,
    /// No connection.
    #[error("cannot reach {url}")]
    Unreachable {
        /// What was called.
        url: String,
        /// Why.
        #[source]
        source: DialError,
    },
    /// The connection broke before the answer.
    #[error("the connection to {url} broke before the answer")]
    Broken {
        /// What was called.
        url: String,
        /// Why.
        #[source]
        source: hyper::Error,
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
            ApiError::Address { .. } | ApiError::Trust(_) | ApiError::Key => Exit::Usage,
            ApiError::Refused { status, .. } => Exit::by_status(status.as_u16()),
            ApiError::Unreachable { .. }
            | ApiError::Broken { .. }
            | ApiError::BrokenOff { .. }
            | ApiError::TimedOut { .. }
            | ApiError::Unreadable { .. } => Exit::Unreachable,
        };
        let failure = Self::new(exit, &error);
        match (&error, exit) {
            // Says itself what to do.
            (
                ApiError::Unreachable {
                    source: DialError::Tls(_),
                    ..
                },
                _,
            ) => failure,
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
    /// What stands in front of each path.
    prefix: String,
    host: HeaderValue,
    authorization: HeaderValue,
    place: Place,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Api {
    /// Prepares calls; nothing is connected yet.
    ///
    /// # Errors
    /// [`ApiError::Address`], [`ApiError::Trust`] and [`ApiError::Key`].
    pub fn new(args: &ApiArgs, tls: &TlsArgs) -> Result<Self, ApiError> {
        let base = args.api_url.trim_end_matches('/').to_owned();
        let wrong = || ApiError::Address {
            url: without_secrets(&base),
        };
        let uri: Uri = base.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        let is_bare = uri.query().is_none() && !authority.as_str().contains('@');
        if authority.host().is_empty() || !is_bare {
            return Err(wrong());
        }
        let (host, port) = (authority.host(), authority.port_u16());
        let place = match uri.scheme_str() {
            Some("http") => Place::plain(host, port.unwrap_or(80)),
            Some("https") => Place::tls(host, port.unwrap_or(443), tls)?,
            _ => return Err(wrong()),
        };
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {}", args.api_key)).map_err(|_| ApiError::Key)?;
        authorization.set_sensitive(true);
        Ok(Self {
            prefix: uri.path().trim_end_matches('/').to_owned(),
            host: HeaderValue::try_from(authority.as_str()).map_err(|_| wrong())?,
            base,
            authorization,
            place,
            connection: None,
        })
    }

    /// Asks for something.
    ///
    /// # Errors
    /// [`ApiError`], `Refused` for every status but 2xx.
    pub async fn get(&mut self, path: &str) -> Result<Value, ApiError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// Sends JSON. A call whose answer was lost is not repeated: it may have been done.
    ///
    /// # Errors
    /// [`ApiError`], `Refused` for every status but 2xx, unless there are `results` to read.
    pub async fn post(&mut self, path: &str, body: String) -> Result<Value, ApiError> {
        self.call(Method::POST, path, body.into()).await
    }

    async fn call(&mut self, method: Method, path: &str, body: Bytes) -> Result<Value, ApiError> {
        let url = format!("{}{path}", self.base);
        let uri = format!("{}{path}", self.prefix);
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(HOST, &self.host)
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|_| ApiError::Address { url: url.clone() })?;
        match tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(&url, request)).await {
            Ok(result) => result,
            Err(_elapsed) => {
                self.connection = None;
                Err(ApiError::TimedOut { url })
            }
        }
    }

    /// Sends a request. A kept connection that the node has closed meanwhile takes none; what was
    /// surely not sent goes to a new one.
    async fn send(
        &mut self,
        url: &str,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<hyper::body::Incoming>, ApiError> {
        let broken = |source| ApiError::Broken {
            url: url.to_owned(),
            source,
        };
        if let Some(mut kept) = self.connection.take() {
            match kept.try_send_request(request).await {
                Ok(response) => {
                    self.connection = Some(kept);
                    return Ok(response);
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(broken(error.into_error())),
                },
            }
        }
        let dialled = tokio::time::timeout(CONNECT_TIMEOUT, self.place.dial()).await;
        let stream = match dialled {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => {
                let url = url.to_owned();
                return Err(ApiError::Unreachable { url, source });
            }
            Err(_elapsed) => {
                let url = url.to_owned();
                return Err(ApiError::TimedOut { url });
            }
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Ends with the runtime of the command, or with the connection.
        crate::tasks::spawn("api_connection", async move {
            // Its end is seen by whoever waits for an answer.
            let _ended = connection.await;
        });
        let response = sender.send_request(request).await.map_err(broken)?;
        self.connection = Some(sender);
        Ok(response)
    }

    async fn exchange(
        &mut self,
        url: &str,
        request: Request<Full<Bytes>>,
    ) -> Result<Value, ApiError> {
        let response = self.send(url, request).await?;
        let url = url.to_owned();
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

/// An address as it may be shown: without a login and without a query, which may hold a token.
#[must_use]
pub fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, place))) => format!("{scheme}://{place}"),
        _ => url.to_owned(),
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
    fn addresses_are_plain_or_encrypted_and_have_neither_login_nor_query() {
        let new = |url: &str| {
            let args = ApiArgs {
                api_url: url.to_owned(),
                api_key: "dev".to_owned(),
            };
            let tls = TlsArgs {
                insecure: true,
                ..TlsArgs::default()
            };
            Api::new(&args, &tls)
        };
        let api = new("http://127.0.0.1:8081/").expect("an address");
        assert_eq!(api.prefix, "");
        assert_eq!(api.host, "127.0.0.1:8081");
        let api = new("https://x/y/").expect("an address");
        assert_eq!(api.prefix, "/y");
        assert_eq!(api.host, "x");
        for wrong in [
            "127.0.0.1:8081",
            "ws://x:1",
            "",
            "http://",
            "http://u:p@x",
            "http://x?token=t",
        ] {
            assert!(
                matches!(new(wrong), Err(ApiError::Address { .. })),
                "{wrong}"
            );
        }
        assert_eq!(without_secrets("ws://u:p@h:1/x?token=t"), "ws://h:1/x");
    }
}
