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
use hyper::header::{ACCEPT, ACCEPT_ENCODING, AGE, CACHE_CONTROL, HOST, HeaderMap, USER_AGENT};
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
    /// How long they are good, where the answer says it.
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

/// How long the answer is good (RFC 9111, section 5.2.2): the least `max-age`, without what `Age` says is past
/// already. `no-store`, `no-cache` and a `max-age` that is no number are 0, whatever else is said: ask as often
/// as may be. `None`: nothing is said.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).iter();
    // What is no text is nothing that could be understood.
    let values = values.map(|value| value.to_str().unwrap_or("no-cache"));
    let all = values.flat_map(|value| value.split(','));
    let age = headers.get(AGE).and_then(|age| age.to_str().ok());
    let age = age.and_then(|age| age.trim().parse().ok()).unwrap_or(0);
    let least = all.filter_map(|directive| {
        let (name, value) = match directive.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (directive, None),
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => Some(0),
            "max-age" => {
                let value = value.unwrap_or_default().trim().trim_matches('"');
                Some(value.parse::<u64>().unwrap_or(0))
            }
            _ => None,
        }
    });
    let seconds = least.min()?;
    Some(Duration::from_secs(seconds.saturating_sub(age)))
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
            (&["max-age=nothing"], Some(0)),
            (&["max-age=-1"], Some(0)),
            (&["max-age"], Some(0)),
            (&["max-age = 60"], Some(60)),
            (&["max-age=60, max-age=30"], Some(30)),
            (&["s-maxage=5"], None),
            (&["no-cache=\"Set-Cookie\", max-age=60"], Some(0)),
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

    /// The first directive won: `max-age=3600, no-store` kept for an hour a key that was taken out.
    #[test]
    fn what_forbids_to_keep_wins_wherever_it_stands() {
        for order in [
            ["max-age=3600", "no-cache", "public"],
            ["no-cache", "max-age=3600", "public"],
            ["public", "max-age=3600", "No-Store"],
        ] {
            let mut apart = HeaderMap::new();
            for directive in order {
                apart.append(CACHE_CONTROL, HeaderValue::from_static(directive));
            }
            let mut together = HeaderMap::new();
            let text = order.join(" , ");
            together.insert(CACHE_CONTROL, HeaderValue::from_str(&text).unwrap());
            assert_eq!(max_age(&apart), Some(Duration::ZERO), "{order:?}");
            assert_eq!(max_age(&together), Some(Duration::ZERO), "{order:?}");
        }
    }

    #[test]
    fn what_a_cache_has_kept_already_is_taken_off() {
        let rows = [("0", 300), ("100", 200), ("400", 0), ("old", 300)];
        for (age, wanted) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
            headers.insert(AGE, HeaderValue::from_static(age));
            assert_eq!(
                max_age(&headers),
                Some(Duration::from_secs(wanted)),
                "{age}"
            );
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
