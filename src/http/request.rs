//! What a server must look at in every request, and the credential that it carries.
//!
//! In: a parsed request head. Out: the fault that RFC 9112 asks to answer with 400, and the token or
//! key of `Authorization: Bearer`. Values are compared as bytes: what else stands in a header may be
//! of any encoding and never hides what is ours.

use hyper::header::{self, HeaderMap};
use hyper::http::uri::Authority;
use hyper::{Request, Version};

use super::error::HttpError;
use fanfare_protocol::error::ErrorCode;

/// Checks what the parser does not.
///
/// # Errors
/// `bad_request`, and the connection closes: no or more than one `Host` (HTTP/1.0 needs none) or one
/// that is no host (RFC 9112, section 3.2).
pub fn check<B>(request: &Request<B>) -> Result<(), HttpError> {
    let headers = request.headers();
    let fault = |text| Err(HttpError::new(ErrorCode::BadRequest, text).closing());
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return fault("exactly one Host is expected"),
        (Some(host), None) if !is_host(host.as_bytes()) => {
            return fault("the Host is not HOST or HOST:PORT");
        }
        (None, _) if request.version() >= Version::HTTP_11 => {
            return fault("exactly one Host is expected");
        }
        _ => {}
    }
    Ok(())
}

/// An empty one is allowed: the target may have no authority.
fn is_host(value: &[u8]) -> bool {
    value.is_empty() || (!value.contains(&b'@') && Authority::try_from(value).is_ok())
}

/// Whether a body follows.
#[must_use]
pub fn has_body(headers: &HeaderMap) -> bool {
    let is_some = |length: &header::HeaderValue| length.as_bytes().iter().any(|byte| *byte != b'0');
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(is_some)
}

/// The credential of `Authorization: Bearer CREDENTIAL`; empty where the scheme stands alone. The
/// scheme's case is free (RFC 9110, section 11.1). Other schemes are of no concern here: browsers
/// and proxies add theirs unasked.
///
/// # Errors
/// `unauthorized` for two different ones: another reader could take the other.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, HttpError> {
    let mut found = None;
    for value in headers.get_all(header::AUTHORIZATION) {
        let value = value.as_bytes().trim_ascii();
        let end = value.iter().position(u8::is_ascii_whitespace);
        let (scheme, credential) = value.split_at(end.unwrap_or(value.len()));
        if !scheme.eq_ignore_ascii_case(b"Bearer") {
            continue;
        }
        let credential = credential.trim_ascii();
        if found.is_some_and(|before| before != credential) {
            let text = "there is more than one `Authorization: Bearer`";
            return Err(HttpError::new(ErrorCode::Unauthorized, text).presented());
        }
        found = Some(credential);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn authorization(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                header::AUTHORIZATION,
                HeaderValue::from_bytes(value).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn the_credential_follows_the_scheme_in_any_case() {
        type Row<'a> = (&'a [&'a [u8]], Option<&'a [u8]>);
        let rows: [Row<'_>; 12] = [
            (&[b"Bearer k"], Some(b"k")),
            (&[b"bearer k"], Some(b"k")),
            (&[b"BEARER   k "], Some(b"k")),
            (&[b"Bearer"], Some(b"")),
            (&[b"Bearerk"], None),
            (&[b"Basic k"], None),
            (&[b"Negotiate"], None),
            (&[b""], None),
            (&[], None),
            (&[b"Basic J\xfcrgen", b"Bearer k"], Some(b"k")),
            (&[b"Bearer k", b"Basic x"], Some(b"k")),
            (&[b"Bearer k", b"bearer k"], Some(b"k")),
        ];
        for (values, credential) in rows {
            let headers = authorization(values);
            assert_eq!(bearer(&headers).unwrap(), credential, "{values:?}");
        }
        assert!(bearer(&authorization(&[b"Bearer a", b"Bearer b"])).is_err());
    }

    #[test]
    fn one_host_is_asked_for_and_none_by_old_clients() {
        let rows: [(Version, &[&str], bool); 10] = [
            (Version::HTTP_11, &["a.example"], true),
            (Version::HTTP_11, &["a.example:8080"], true),
            (Version::HTTP_11, &["[::1]:8080"], true),
            (Version::HTTP_11, &[""], true),
            (Version::HTTP_11, &[], false),
            (Version::HTTP_11, &["a", "a"], false),
            (Version::HTTP_11, &["a b"], false),
            (Version::HTTP_11, &["user@a"], false),
            (Version::HTTP_10, &[], true),
            (Version::HTTP_10, &["a", "b"], false),
        ];
        for (version, hosts, good) in rows {
            let mut request = Request::builder().version(version);
            for host in hosts {
                request = request.header(header::HOST, *host);
            }
            let request = request.body(()).unwrap();
            assert_eq!(check(&request).is_ok(), good, "{version:?} {hosts:?}");
        }
    }

    #[test]
    fn a_length_of_nothing_is_no_body() {
        let rows = [("0", false), ("00", false), ("5", true), ("10", true)];
        for (length, has) in rows {
            let request = Request::builder().header(header::CONTENT_LENGTH, length);
            let request = request.body(()).unwrap();
            assert_eq!(has_body(request.headers()), has, "{length}");
        }
    }
}
