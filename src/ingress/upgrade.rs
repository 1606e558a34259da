//! The opening handshake of RFC 6455, section 4.2, as far as it is the same for every WebSocket.
//!
//! In: a request. Out: the value that accepts its key, or an answer that says what is wrong with
//! it. The checks are made here and not by the codec's `upgrade`, which checks key and version only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};
use sha1::{Digest as _, Sha1};

use crate::http::error::HttpError;
use fanfare_protocol::error::ErrorCode;

/// RFC 6455, section 1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// `101`, with the accepted key.
#[must_use]
pub fn switching(accept: HeaderValue) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// Checks the form of the opening handshake and answers its key.
///
/// # Errors
/// 400 or 426, with what is wrong.
pub fn accept_key<B>(request: &Request<B>) -> Result<HeaderValue, HttpError> {
    let headers = request.headers();
    let bad = |text| HttpError::new(ErrorCode::BadRequest, text);
    if request.version() != Version::HTTP_11 {
        return Err(bad("a WebSocket is opened over HTTP/1.1"));
    }
    if request.method() != Method::GET
        || !has_token(headers, &header::UPGRADE, "websocket")
        || !has_token(headers, &header::CONNECTION, "upgrade")
    {
        return Err(upgrade_required(
            "this path opens a WebSocket: send `Upgrade: websocket`",
        ));
    }
    let version = headers.get(header::SEC_WEBSOCKET_VERSION);
    if version.is_none_or(|v| v != "13") {
        return Err(upgrade_required("WebSocket version 13 is spoken"));
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(bad("exactly one Sec-WebSocket-Key is expected"));
    };
    if BASE64.decode(key).is_ok_and(|bytes| bytes.len() == 16) {
        let digest = Sha1::new()
            .chain_update(key)
            .chain_update(ACCEPT_GUID)
            .finalize();
        let accept = HeaderValue::try_from(BASE64.encode(digest));
        return accept.map_err(|_| bad("the key cannot be answered"));
    }
    Err(bad("Sec-WebSocket-Key must be 16 bytes in base64"))
}

/// 426 with what to upgrade to (RFC 9110, section 15.5.22; RFC 6455, section 4.4).
fn upgrade_required(text: &'static str) -> HttpError {
    HttpError::new(ErrorCode::UpgradeRequired, text)
}

/// Whether a comma-separated header names a word, in any case.
fn has_token(headers: &HeaderMap, name: &header::HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}
