//! One request for a set of keys, by which nobody can be made to ask something else.
//!
//! In: where the set is published. Out: its bytes and how long they are good, or why not, in words for the
//! log. Bounds: [`TIMEOUT`] from the name to the last byte; [`BYTES_MAX`] of the answer.
//!
//! `https` only, and no redirects: the configuration says who is trusted, and an answer must not. The name
//! is resolved once, each address judged ([`is_public`]), and the connection made to the first that answers
//! of those that were judged, with the name in TLS. No proxy is used. Certificates are read for each request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, HOST, HeaderMap, USER_AGENT};
use hyper::{Request, Response, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::address::is_public;
use crate::auth::keyset::BYTES_MAX;
use crate::config::Jwks;
use crate::telemetry::fields::causes;

/// Longest time for a whole request.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// How long an address has for itself before the next one is tried beside it. Source: RFC 8305, section 5,
/// which recommends it.
const APART: Duration = Duration::from_millis(250);
/// Most addresses of a name that are tried: the last one begins well within [`TIMEOUT`].
const ADDRESSES_MAX: usize = 8;

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
pub async fn fetch(source: &Jwks) -> Result<Fetched, String> {
    let fetched = tokio::time::timeout(TIMEOUT, request(source)).await;
    fetched.unwrap_or_else(|_| {
        Err(format!(
            "there was no whole answer in {} s",
            TIMEOUT.as_secs()
        ))
    })
}

async fn request(source: &Jwks) -> Result<Fetched, String> {
    let url = Url::parse(&source.url).map_err(|error| causes(&error))?;
    if url.scheme() != "https" {
        return Err("it is not https".to_owned());
    }
    let host = url.host().ok_or("it has no host")?;
    let port = url.port_or_known_default().unwrap_or(443);
    let tcp = connect(&host, port, source.allow_private).await?;
    let connector = TlsConnector::from(Arc::new(tls(source)?));
    // The brackets of an address of IPv6 are no part of its name.
    let name = match &host {
        Host::Domain(name) => ServerName::try_from((*name).to_owned()).map_err(|e| causes(&e))?,
        Host::Ipv4(address) => ServerName::IpAddress(IpAddr::from(*address).into()),
        Host::Ipv6(address) => ServerName::IpAddress(IpAddr::from(*address).into()),
    };
    let stream = connector.connect(name, tcp).await;
    let stream = stream.map_err(|error| format!("no TLS: {}", causes(&error)))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| causes(&error))?;
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let request = Request::get(path)
        .header(HOST, authority)
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(ACCEPT_ENCODING, "identity")
        .header(USER_AGENT, concat!("fanfare/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
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

/// A connection to an address that may be asked.
async fn connect(host: &Host<&str>, port: u16, allow_private: bool) -> Result<TcpStream, String> {
    let addresses: Vec<SocketAddr> = match host {
        Host::Domain(name) => tokio::net::lookup_host((*name, port))
            .await
            .map_err(|error| format!("its name leads nowhere: {}", causes(&error)))?
            .collect(),
        Host::Ipv4(address) => vec![((*address), port).into()],
        Host::Ipv6(address) => vec![((*address), port).into()],
    };
    let allowed = |address: &&SocketAddr| allow_private || is_public(address.ip());
    let addresses: Vec<_> = match addresses.iter().find(|address| !allowed(address)) {
        Some(address) if !addresses.iter().any(|one| allowed(&one)) => {
            return Err(format!(
                "{} is no public address, and allow_private is false",
                address.ip()
            ));
        }
        _ => addresses.iter().filter(allowed).copied().collect(),
    };
    connect_any(&addresses).await
}

/// A connection to the first of these that answers. An address that is silent, such as of a family that is
/// broken on the way, keeps nobody from the next one.
async fn connect_any(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut delay = Duration::ZERO;
    let tried = addresses.iter().take(ADDRESSES_MAX).map(|address| {
        let begins = delay;
        delay += APART;
        async move {
            tokio::time::sleep(begins).await;
            let connected = TcpStream::connect(address).await;
            connected.map_err(|error| format!("{address}: {}", causes(&error)))
        }
    });
    let mut tried: FuturesUnordered<_> = tried.collect();
    let mut failure = "its name leads nowhere".to_owned();
    while let Some(connected) = tried.next().await {
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
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

fn tls(source: &Jwks) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let trusted: Vec<CertificateDer<'static>> = match &source.ca_file {
        Some(path) => CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect)
            .map_err(|error| format!("{path}: {}", causes(&error)))?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    if roots.add_parsable_certificates(trusted).0 == 0 {
        return Err("there is no certificate that could be trusted".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| causes(&error))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
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
            let error = fetch(&source).await.unwrap_err();
            assert!(error.contains("is no public address"), "{url}: {error}");
        }
        let plain = source("http://127.0.0.1:1/keys", true);
        assert_eq!(fetch(&plain).await.unwrap_err(), "it is not https");
    }

    /// The addresses were tried one after the other under one deadline: one that was silent took all of it,
    /// and the good one behind it was never asked.
    #[tokio::test]
    async fn an_address_that_is_silent_keeps_nobody_from_the_next() {
        let silent = tokio::net::TcpSocket::new_v4().unwrap();
        silent.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let silent = silent.listen(1).unwrap();
        let dead = silent.local_addr().unwrap();
        // Its queue is full: the system answers nobody any more.
        let mut filling = Vec::new();
        loop {
            let one = TcpStream::connect(dead);
            match tokio::time::timeout(Duration::from_millis(200), one).await {
                Ok(stream) => filling.push(stream.unwrap()),
                Err(_) => break,
            }
        }
        let good = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = good.local_addr().unwrap();
        let connected = tokio::time::timeout(TIMEOUT, connect_any(&[dead, good])).await;
        let stream = connected.expect("in time").expect("the second one answers");
        assert_eq!(stream.peer_addr().unwrap(), good);
        // What refuses is told where nothing else answers.
        // Nothing listens there without the rights of root.
        let closed: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let error = connect_any(&[closed]).await.unwrap_err();
        assert!(error.starts_with(&closed.to_string()), "{error}");
    }

    fn source(url: &str, allow_private: bool) -> Jwks {
        Jwks {
            url: url.to_owned(),
            ca_file: None,
            allow_private,
        }
    }
}
