//! The forms of bodies: which media types are spoken, and in which one a caller wants its answer.
//!
//! In: the headers `Content-Type` and `Accept`. Out: a [`Form`], and bodies written in it. Nothing is
//! kept here.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use fanfare_protocol::codec;
use fanfare_protocol::error::ErrorCode;
use fanfare_protocol::event::ErrorBody;
use fanfare_protocol::form::Encoding;

/// Content type of JSON.
pub const JSON: &str = "application/json";
/// Content type of MessagePack.
pub const MSGPACK: &str = "application/msgpack";

/// Every media type that is read and written. MessagePack has a registered name and an old one.
const SPOKEN: &[(&str, Encoding)] = &[
    (JSON, Encoding::Json),
    (MSGPACK, Encoding::MsgPack),
    ("application/vnd.msgpack", Encoding::MsgPack),
    ("application/x-msgpack", Encoding::MsgPack),
];

/// A form of bodies, by the name that the caller has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// How values are written.
    pub encoding: Encoding,
    /// The media type.
    pub name: &'static str,
}

impl Form {
    /// JSON.
    pub const JSON: Self = Self {
        encoding: Encoding::Json,
        name: JSON,
    };

    /// The form that a media type names, its parameters ignored.
    fn of(media_type: &[u8]) -> Option<Self> {
        let essence = media_type.split(|byte| *byte == b';').next()?;
        let essence = essence.trim_ascii();
        let spoken = SPOKEN
            .iter()
            .find(|(name, _)| essence.eq_ignore_ascii_case(name.as_bytes()));
        spoken.map(|&(name, encoding)| Self { encoding, name })
    }

    /// The form of the request's body; `None` where it has none that is spoken.
    #[must_use]
    pub fn sent(headers: &HeaderMap) -> Option<Self> {
        Self::of(headers.get(header::CONTENT_TYPE)?.as_bytes())
    }

    /// The form of the answer: what `Accept` likes best of what is spoken (the first of equals),
    /// else that of the request's body, else JSON. A caller that accepts none of them is answered
    /// all the same (RFC 9110, section 12.5.1).
    #[must_use]
    pub fn wanted(headers: &HeaderMap) -> Self {
        let accepted = headers
            .get_all(header::ACCEPT)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|range| Some((Self::of(range)?, quality(range))))
            .filter(|(_, quality)| *quality > 0.0)
            .reduce(|best, next| if next.1 > best.1 { next } else { best });
        accepted
            .map(|(form, _)| form)
            .or_else(|| Self::sent(headers))
            .unwrap_or(Self::JSON)
    }

    /// A response with a body in this form. One that the form cannot express (a bug, or a body that
    /// was damaged where it was stored) becomes a 500.
    #[must_use]
    pub fn response(self, status: StatusCode, body: &impl Serialize) -> Response<Bytes> {
        let (status, bytes) = match codec::payload(self.encoding, body) {
            Ok(bytes) => (status, bytes),
            Err(fault) => {
                tracing::error!(event = "event_dropped", %fault, source = ?std::error::Error::source(&fault), "answer not encoded");
                (StatusCode::INTERNAL_SERVER_ERROR, self.unexpressed())
            }
        };
        let mut response = Response::new(Bytes::from(bytes));
        *response.status_mut() = status;
        let name = HeaderValue::from_static(self.name);
        response.headers_mut().insert(header::CONTENT_TYPE, name);
        response
    }

    /// What is told instead of a body that cannot be expressed.
    fn unexpressed(self) -> Vec<u8> {
        let error = ErrorBody {
            code: ErrorCode::Internal,
            message: "the answer could not be encoded".to_owned(),
        };
        let told = BTreeMap::from([("error", error)]);
        codec::payload(self.encoding, &told).expect("it holds nothing but a code and text")
    }
}

/// The weight of a media range: `q`, 1 where there is none. One that is no weight (RFC 9110, section
/// 12.4.2: 0 to 1) likes nothing.
fn quality(range: &[u8]) -> f32 {
    let weight = |value: &str| value.parse().ok().filter(|q| (0.0..=1.0).contains(q));
    let last = parameters(range, "q").last();
    last.map_or(1.0, |value| weight(value).unwrap_or(0.0))
}

/// The values of a parameter of a media range.
fn parameters<'a>(range: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a str> {
    let range = std::str::from_utf8(range).unwrap_or_default();
    range.split(';').skip(1).filter_map(move |parameter| {
        let (given, value) = parameter.split_once('=')?;
        let is_it = given.trim().eq_ignore_ascii_case(name);
        is_it.then(|| value.trim().trim_matches('"'))
    })
}

/// How much `Accept` likes a media type that it need not name: by the type itself (in this version where
/// it names one), else by `type/*`, else by `*/*` (RFC 9110, section 12.5.1).
#[must_use]
pub fn weight_of_any(headers: &HeaderMap, media_type: &str, version: &str) -> f32 {
    let kind = media_type.split('/').next().unwrap_or_default();
    let ranges = [media_type, &format!("{kind}/*"), "*/*"];
    let found = ranges.map(|range| weight(headers, range, version));
    found.into_iter().find(|q| *q > 0.0).unwrap_or(0.0)
}

/// How much `Accept` likes a media type, in this version where it names one; 0 where it does not
/// name the type itself.
#[must_use]
pub fn weight(headers: &HeaderMap, media_type: &str, version: &str) -> f32 {
    let ranges = headers.get_all(header::ACCEPT).iter();
    let ranges = ranges.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let is_it = |range: &&[u8]| {
        let essence = range.split(|byte| *byte == b';').next().unwrap_or_default();
        let is_named = essence
            .trim_ascii()
            .eq_ignore_ascii_case(media_type.as_bytes());
        is_named && parameters(range, "version").all(|given| given == version)
    };
    ranges.filter(is_it).map(quality).fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn a_body_is_read_under_each_name_of_its_form() {
        let rows = [
            ("application/json", Some(Encoding::Json)),
            ("Application/JSON; charset=utf-8", Some(Encoding::Json)),
            ("application/msgpack", Some(Encoding::MsgPack)),
            ("application/x-msgpack", Some(Encoding::MsgPack)),
            ("application/vnd.msgpack", Some(Encoding::MsgPack)),
            ("application/jsonx", None),
            ("text/plain", None),
            ("", None),
        ];
        for (name, encoding) in rows {
            let form = Form::sent(&headers(&[(header::CONTENT_TYPE, name)]));
            assert_eq!(form.map(|form| form.encoding), encoding, "{name}");
        }
        assert_eq!(Form::sent(&HeaderMap::new()), None);
    }

    #[test]
    fn the_answer_has_the_form_that_accept_likes_best() {
        let rows = [
            ("application/vnd.msgpack", "application/vnd.msgpack"),
            ("text/html, application/msgpack;q=0.5", MSGPACK),
            ("application/json;q=0.1, application/msgpack", MSGPACK),
            ("application/json, application/msgpack", JSON),
            ("application/msgpack;q=0, application/json;q=0.2", JSON),
            ("application/msgpack;q=99, application/json;q=0.2", JSON),
            ("application/msgpack;q=inf, application/json;q=0.2", JSON),
            ("application/msgpack;q=abc, application/json;q=0.2", JSON),
            ("*/*", JSON),
            ("text/html", JSON),
        ];
        for (accept, name) in rows {
            let form = Form::wanted(&headers(&[(header::ACCEPT, accept)]));
            assert_eq!(form.name, name, "{accept}");
        }
        let sent = (header::CONTENT_TYPE, "application/x-msgpack");
        let form = Form::wanted(&headers(&[sent.clone(), (header::ACCEPT, "*/*")]));
        assert_eq!(form.name, "application/x-msgpack");
        let form = Form::wanted(&headers(&[sent, (header::ACCEPT, JSON)]));
        assert_eq!(form.name, JSON);
    }

    #[test]
    fn an_answer_that_its_form_cannot_express_is_a_500_and_no_panic() {
        let damaged = fanfare_protocol::data::Data::Json(Bytes::from_static(b"\"\\ud800\""));
        let form = Form {
            encoding: Encoding::MsgPack,
            name: MSGPACK,
        };
        let response = form.response(StatusCode::OK, &[damaged]);
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[header::CONTENT_TYPE], MSGPACK);
        let told: serde_json::Value = rmp_serde::from_slice(response.body()).unwrap();
        assert_eq!(told["error"]["code"], "internal");
    }

    #[test]
    fn a_neighbour_in_accept_that_is_no_utf8_hides_nothing() {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_bytes(b"x/\xfc, application/msgpack").unwrap();
        headers.insert(header::ACCEPT, value);
        assert_eq!(Form::wanted(&headers).name, MSGPACK);
    }
}
