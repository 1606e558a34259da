//! One request for a set of keys, by which nobody can be made to ask something else.
//!
//! In: where the set is published. Out: its bytes and how long they are good, or why not, in words for the
//! log. Bounds: [`TIMEOUT`] from the name to the last byte; [`BYTES_MAX`] of the answer.
//!
//! `https` only, and no redirects: the configuration says who is trusted, and an answer must not. Addresses are
//! judged and connected to as [`endpoint`](super::endpoint) says. Whom it trusts
//! is said by [`Trusted`].

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, HOST, HeaderMap, USER_AGENT};
use hyper::{Request, Response, StatusCode, body::Incoming};

use super::endpoint::{Endpoint, Plain};
use super::trusted::Trusted;
use crate::auth::keyset::BYTES_MAX;
use crate::config::Jwks;
use crate::telemetry::fields::causes;

/// Longest time for a whole request.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// What was fetched.
#[derive(Debug)]
pub struct Fetched {
    /// The body.
    pub bytes: Bytes,
    /// `max-age` of `Cache-Control`.
    pub max_age: Option<Duration>,
}

/// Fetches a set. Cancel-safe: the connection ends with the call.
///
/// # Errors
/// What a person who looks after the node needs to know.
pub async fn fetch(source: &Jwks, trusted: &Trusted) -> Result<Fetched, String> {
    let fetched = tokio::time::timeout(TIMEOUT, request(source, trusted)).await;
    fetched.unwrap_or_else(|_| {
        Err(format!(
            "there was no whole answer in {} s",
            TIMEOUT.as_secs()
        ))
    })
}

async fn request(source: &Jwks, trusted: &Trusted) -> Result<Fetched, String> {
    let endpoint = Endpoint::new(&source.url, source.allow_private, Plain::Never)?;
    let tls = trusted.config().await?;
    let (mut sender, connection) = endpoint.connect(Some(tls)).await?;
    let request = Request::get(endpoint.path())
        .header(HOST, endpoint.authority())
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(ACCEPT_ENCODING, "identity")
        .header(USER_AGENT, concat!("fanfare/", env!("CARGO_PKG_VERSION")))
        .body(Full::<Bytes>::default())
        .map_err(|error| causes(&error))?;
    let answered = async {
        let response = sender.send_request(request).await;
        read(response.map_err(|error| causes(&error))?).await
    };
    tokio::pin!(answered);
    tokio::select! {
        fetched = &mut answered => fetched,
        // It ends where the other side closes; what came by then may still be read.
        ended = connection => match ended {
            Ok(()) => (&mut answered).await,
            Err(error) => Err(causes(&error)),
        },
    }
}

async fn read(response: Response<Incoming>) -> Result<Fetched, String> {
    let status = response.status();
    if status.is_redirection() {
        return Err(format!(
            "it answered {status}, and redirects are not followed"
        ));
    }
    if status != StatusCode::OK {
        return Err(format!("it answered {status}"));
    }
    let max_age = max_age(response.headers());
    let body = Limited::new(response.into_body(), BYTES_MAX)
        .collect()
        .await;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => format!("it is longer than {BYTES_MAX} bytes"),
        false => format!("the answer was cut off: {}", causes(&*error)),
    })?;
    Ok(Fetched {
        bytes: body.to_bytes(),
        max_age,
    })
}

/// `max-age` (RFC 9111, section 5.2.2.1). `no-store` and `no-cache` are 0: ask as often as may be.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    let mut all = values.flat_map(|value| value.split(',')).map(str::trim);
    all.find_map(|directive| {
        let directive = directive.to_ascii_lowercase();
        if directive == "no-store" || directive == "no-cache" {
            return Some(Duration::ZERO);
        }
        let seconds = directive.strip_prefix("max-age=")?;
        Some(Duration::from_secs(seconds.trim_matches('"').parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn max_age_is_read_as_caches_read_it() {
        let rows: &[(&[&'static str], Option<u64>)] = &[
            (&[], None),
            (&["public"], None),
            (&["public, max-age=300"], Some(300)),
            (&["public", "Max-Age=\"60\""], Some(60)),
            (&["no-store"], Some(0)),
            (&["max-age=nothing"], None),
        ];
        for (values, wanted) in rows {
            let mut headers = HeaderMap::new();
            for value in *values {
                headers.append(CACHE_CONTROL, HeaderValue::from_static(value));
            }
            let wanted = wanted.map(Duration::from_secs);
            assert_eq!(max_age(&headers), wanted, "{values:?}");
        }
    }

    #[tokio::test]
    async fn what_is_not_public_is_not_asked() {
        for url in [
            "https://127.0.0.1:1/keys",
            "https://[::1]:1/keys",
            "https://169.254.169.254/latest",
            "https://localhost:1/keys",
            "https://[::ffff:10.0.0.1]/keys",
        ] {
            let source = source(url, false);
            let error = fetch(&source, &Trusted::new(None)).await.unwrap_err();
            assert!(error.contains("is no public address"), "{url}: {error}");
        }
        let plain = source("http://127.0.0.1:1/keys", true);
        assert_eq!(
            fetch(&plain, &Trusted::new(None)).await.unwrap_err(),
            "it is not https"
        );
    }

    fn source(url: &str, allow_private: bool) -> Jwks {
        Jwks {
            url: url.to_owned(),
            ca_file: None,
            allow_private,
        }
    }
}
