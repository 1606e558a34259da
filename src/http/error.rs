//! The one table of what a refused request is answered with, on both listeners.
//!
//! In: a [`WireError`] and what the place knows beside it. Out: a response whose status follows from
//! the code, with the headers that RFC 9110 and 6750 ask for and the body
//! `{"error":{"code","message"}}`.
//!
//! | code | headers |
//! |---|---|
//! | `unauthorized`, `token_expired` | `WWW-Authenticate: Bearer`, with `error` and `error_description` where a credential came |
//! | `method_not_allowed` | `Allow` |
//! | `request_timeout` | `Connection: close` |
//! | `unsupported_media_type` | `Accept`, `Accept-Encoding` |
//! | `upgrade_required` | `Upgrade`, `Connection`, `Sec-WebSocket-Version` |
//! | `rate_limited`, `unavailable` | `Retry-After` |

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::media::Form;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::event::ErrorBody;

/// When a caller should repeat what the node could not take, where nothing better is known.
pub const SOON: Duration = Duration::from_secs(1);

/// The body of every error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorAnswer {
    /// What went wrong.
    pub error: ErrorBody,
}

/// An error as HTTP tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpError {
    /// Code and sentence.
    pub error: WireError,
    /// Whether a credential was presented, which then was no good (RFC 6750, section 3.1).
    presented: bool,
    /// The methods that the path has.
    allow: Option<&'static str>,
    /// Whether the connection ends behind the answer.
    closes: bool,
}

impl From<WireError> for HttpError {
    fn from(error: WireError) -> Self {
        Self {
            error,
            presented: false,
            allow: None,
            closes: false,
        }
    }
}

impl HttpError {
    /// An error with a code and a sentence.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        WireError::new(code, message).into()
    }

    /// 503: come again after so long.
    #[must_use]
    pub fn busy(message: impl Into<std::borrow::Cow<'static, str>>, wait: Duration) -> Self {
        let mut error = WireError::unavailable(message);
        error.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        error.into()
    }

    /// The same error, about a credential that came with the request.
    #[must_use]
    pub fn presented(mut self) -> Self {
        self.presented = true;
        self
    }

    /// The same error, with the methods that the path has.
    #[must_use]
    pub fn allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// The same error, and the connection ends behind it: what follows on it cannot be told from
    /// the rest of this request.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        status(self.error.code)
    }

    /// The whole answer.
    #[must_use]
    pub fn response(&self, form: Form) -> Response<Bytes> {
        let body = ErrorAnswer {
            error: as_body(&self.error),
        };
        let mut response = form.response(self.status(), &body);
        self.add_headers(response.headers_mut());
        response
    }

    /// Adds the headers of the table.
    pub fn add_headers(&self, headers: &mut HeaderMap) {
        let fixed = HeaderValue::from_static;
        match self.error.code {
            ErrorCode::Unauthorized | ErrorCode::TokenExpired => {
                headers.insert(header::WWW_AUTHENTICATE, self.challenge());
            }
            ErrorCode::MethodNotAllowed => {
                if let Some(methods) = self.allow {
                    headers.insert(header::ALLOW, fixed(methods));
                }
            }
            ErrorCode::UnsupportedMediaType => {
                headers.insert(
                    header::ACCEPT,
                    fixed("application/json, application/msgpack"),
                );
                headers.insert(header::ACCEPT_ENCODING, fixed("identity"));
            }
            ErrorCode::UpgradeRequired => {
                headers.insert(header::UPGRADE, fixed("websocket"));
                headers.insert(header::CONNECTION, fixed("Upgrade"));
                headers.insert(header::SEC_WEBSOCKET_VERSION, fixed("13"));
            }
            ErrorCode::RateLimited | ErrorCode::Unavailable => {
                let wait_ms = self.error.retry_after_ms;
                let seconds = wait_ms.map_or(SOON.as_secs(), |ms| ms.div_ceil(1_000).max(1));
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            _ => {}
        }
        if self.closes || self.error.code == ErrorCode::RequestTimeout {
            headers.insert(header::CONNECTION, fixed("close"));
        }
    }

    /// RFC 6750, section 3: `error` only where a credential came.
    fn challenge(&self) -> HeaderValue {
        let told = self.presented || self.error.code == ErrorCode::TokenExpired;
        // Section 3: neither quotes nor backslashes, and ASCII.
        let described: String = self.error.message.chars().filter(is_describing).collect();
        let text = format!("Bearer error=\"invalid_token\", error_description=\"{described}\"");
        let whole = HeaderValue::try_from(text).ok().filter(|_| told);
        whole.unwrap_or(HeaderValue::from_static("Bearer"))
    }
}

fn is_describing(character: &char) -> bool {
    matches!(character, ' '..='~') && !matches!(character, '"' | '\\')
}

/// The error as it is written in results and bodies.
#[must_use]
pub fn as_body(error: &WireError) -> ErrorBody {
    ErrorBody {
        code: error.code,
        message: error.message.clone().into_owned(),
    }
}

/// The status of a code.
///
/// # Panics
/// Never: every code has a status between 400 and 599.
#[must_use]
pub fn status(code: ErrorCode) -> StatusCode {
    StatusCode::from_u16(code.status()).expect("every code has a status between 400 and 599")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header_of(error: &HttpError, name: header::HeaderName) -> Option<String> {
        let response = error.response(Form::JSON);
        let value = response.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds_and_never_as_none() {
        let rows = [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2")];
        for (ms, seconds) in rows {
            let error = HttpError::busy("later", Duration::from_millis(ms));
            let told = header_of(&error, header::RETRY_AFTER);
            assert_eq!(told.as_deref(), Some(seconds), "{ms}");
        }
        let error = HttpError::new(ErrorCode::RateLimited, "later");
        assert_eq!(header_of(&error, header::RETRY_AFTER).unwrap(), "1");
    }

    #[test]
    fn the_challenge_names_an_error_only_where_a_credential_came() {
        let of = |error: &HttpError| header_of(error, header::WWW_AUTHENTICATE).unwrap();
        let none = HttpError::new(ErrorCode::Unauthorized, "no token");
        assert_eq!(of(&none), "Bearer");
        let bad = HttpError::new(ErrorCode::Unauthorized, "the \"x\\ is b\u{e4}d").presented();
        let told = "Bearer error=\"invalid_token\", error_description=\"the x is bd\"";
        assert_eq!(of(&bad), told);
        let expired = HttpError::new(ErrorCode::TokenExpired, "it has ended");
        assert!(of(&expired).contains("invalid_token"));
    }
}
