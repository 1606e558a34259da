//! The HTTP API: JSON in, JSON out, one key.
//!
//! In: a path and a body. Out: the node's answer, or an [`ApiError`] that says what to do.
//! Owner: the caller of an [`Api`], with one connection that is kept open between calls. Bounds:
//! 5 s to connect, 30 s for an answer; then the call fails.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::dial::{DialError, Place, Tls, TrustError};

/// Says which app a call is about.
const APP: &str = "fanfare-app";
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a whole answer. A node answers within its command timeout of 2 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the API is and how to be let in.
#[derive(Debug, Clone)]
pub struct ApiOptions {
    /// Address of a node's HTTP API: `http://HOST:PORT` or `https://HOST`.
    pub url: String,
    /// API key; a node started with `--dev` takes `dev`.
    pub key: String,
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
    /// The name of the app has bytes that no header can carry.
    #[error("the name of the app has characters that are not allowed in a header")]
    App,
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
    /// The answer is longer than any that is read.
    #[error("the answer of {url} is longer than {bytes_max} bytes")]
    TooLong {
        /// What was called.
        url: String,
        /// The bound.
        bytes_max: usize,
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
    /// No connection, or no answer, in time.
    #[error("no {what} {url} within {} s", patience.as_secs())]
    TimedOut {
        /// What was waited for: `connection to` or `answer from`.
        what: &'static str,
        /// What was called.
        url: String,
        /// How long it was waited for.
        patience: Duration,
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

/// A node's HTTP API.
#[derive(Debug)]
pub struct Api {
    base: String,
    /// What stands in front of each path.
    prefix: String,
    host: HeaderValue,
    authorization: HeaderValue,
    /// The app that calls are about; `None`: that of the key.
    app: Option<HeaderValue>,
    place: Place,
    connection: Option<SendRequest<Full<Bytes>>>,
    answer_bytes_max: usize,
}

/// Longest answer that is read, in bytes, unless [`Api::within`] says otherwise: more than any page.
const ANSWER_BYTES_MAX: usize = 256 << 20;

impl Api {
    /// Prepares calls; nothing is connected yet.
    ///
    /// # Errors
    /// [`ApiError::Address`], [`ApiError::Trust`] and [`ApiError::Key`].
    pub fn new(options: &ApiOptions, tls: &Tls) -> Result<Self, ApiError> {
        let base = options.url.trim_end_matches('/').to_owned();
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
            HeaderValue::try_from(format!("Bearer {}", options.key)).map_err(|_| ApiError::Key)?;
        authorization.set_sensitive(true);
        Ok(Self {
            prefix: uri.path().trim_end_matches('/').to_owned(),
            host: HeaderValue::try_from(authority.as_str()).map_err(|_| wrong())?,
            base,
            authorization,
            app: None,
            place,
            connection: None,
            answer_bytes_max: ANSWER_BYTES_MAX,
        })
    }

    /// Makes every call about this app, for a key of several apps.
    ///
    /// # Errors
    /// [`ApiError::App`]: the name can be none.
    pub fn of_app(self, app: &str) -> Result<Self, ApiError> {
        let app = HeaderValue::try_from(app).map_err(|_| ApiError::App)?;
        Ok(Self {
            app: Some(app),
            ..self
        })
    }

    /// Reads no answer that is longer than so many bytes. Default: 256 MiB.
    #[must_use]
    pub fn within(self, answer_bytes_max: usize) -> Self {
        Self {
            answer_bytes_max,
            ..self
        }
    }

    /// Asks for something.
    ///
    /// # Errors
    /// [`ApiError`], `Refused` for every status but 2xx.
    pub async fn get(&mut self, path: &str) -> Result<Value, ApiError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// Asks for something that is told by the status, too, as health is.
    ///
    /// # Errors
    /// [`ApiError`], never `Refused`.
    pub async fn read(&mut self, path: &str) -> Result<(StatusCode, Value), ApiError> {
        self.request(Method::GET, path, Bytes::new()).await
    }

    /// Sends JSON. A call whose answer was lost is not repeated: it may have been done.
    ///
    /// # Errors
    /// [`ApiError`], `Refused` for every status but 2xx, unless there are `results` to read.
    pub async fn post(&mut self, path: &str, body: String) -> Result<Value, ApiError> {
        self.call(Method::POST, path, body.into()).await
    }

    /// Puts JSON in the place of what is there. Safe to repeat.
    ///
    /// # Errors
    /// [`ApiError`], `Refused` for every status but 2xx.
    pub async fn put(&mut self, path: &str, body: String) -> Result<Value, ApiError> {
        self.call(Method::PUT, path, body.into()).await
    }

    /// Takes something away. A call whose answer was lost is not repeated: it may have been done.
    ///
    /// # Errors
    /// [`ApiError`], `Refused` for every status but 2xx.
    pub async fn delete(&mut self, path: &str) -> Result<Value, ApiError> {
        self.call(Method::DELETE, path, Bytes::new()).await
    }

    async fn call(&mut self, method: Method, path: &str, body: Bytes) -> Result<Value, ApiError> {
        let (status, answer) = self.request(method, path, body).await?;
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

    async fn request(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Value), ApiError> {
        let url = format!("{}{path}", self.base);
        let uri = format!("{}{path}", self.prefix);
        let mut request = Request::builder();
        if let Some(app) = &self.app {
            request = request.header(APP, app);
        }
        let request = request
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
                Err(ApiError::TimedOut {
                    what: "answer from",
                    url,
                    patience: ANSWER_TIMEOUT,
                })
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
        let dialled = tokio::time::timeout(CONNECT_TIMEOUT, self.place.dial(CONNECT_TIMEOUT)).await;
        let stream = match dialled {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => {
                let url = url.to_owned();
                return Err(ApiError::Unreachable { url, source });
            }
            Err(_elapsed) => {
                let url = url.to_owned();
                return Err(ApiError::TimedOut {
                    what: "connection to",
                    url,
                    patience: CONNECT_TIMEOUT,
                });
            }
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Ends with its sender; whoever waits for an answer sees it.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        self.connection = Some(sender);
        Ok(response)
    }

    async fn exchange(
        &mut self,
        url: &str,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Value), ApiError> {
        let response = self.send(url, request).await?;
        let url = url.to_owned();
        let status = response.status();
        let body = Limited::new(response.into_body(), self.answer_bytes_max);
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                return Err(match error.downcast() {
                    Ok(source) => ApiError::BrokenOff {
                        url,
                        source: *source,
                    },
                    Err(_) => ApiError::TooLong {
                        url,
                        bytes_max: self.answer_bytes_max,
                    },
                });
            }
        };
        match serde_json::from_slice(&body) {
            Ok(answer) => Ok((status, answer)),
            Err(source) => Err(ApiError::Unreadable {
                url,
                status,
                source,
            }),
        }
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

    #[tokio::test]
    async fn an_address_that_does_not_begin_tls_is_told_with_the_time_that_it_had() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = ApiOptions {
            url: format!("https://{}", silent.local_addr().unwrap()),
            key: "dev".to_owned(),
        };
        let tls = Tls {
            insecure: true,
            ..Tls::default()
        };
        let mut api = Api::new(&options, &tls).unwrap();
        let began = std::time::Instant::now();
        let error = api.get("/v1/nodes").await.unwrap_err().to_string();
        let seconds = began.elapsed().as_secs();
        assert_eq!(seconds, CONNECT_TIMEOUT.as_secs(), "{error}");
        let text = format!("no connection to {}/v1/nodes within 5 s", options.url);
        assert_eq!(error, text);
    }

    #[test]
    fn addresses_are_plain_or_encrypted_and_have_neither_login_nor_query() {
        let new = |url: &str| {
            let options = ApiOptions {
                url: url.to_owned(),
                key: "dev".to_owned(),
            };
            let tls = Tls {
                insecure: true,
                ..Tls::default()
            };
            Api::new(&options, &tls)
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
