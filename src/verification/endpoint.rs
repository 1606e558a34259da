//! A connection to an address that a configuration names, by which nobody can be made to ask something else.
//!
//! In: an address, and who is trusted there. Out: a connection of HTTP/1.1, or why there is none, in words for
//! the log. Bounds: the caller's, who waits. The name is resolved for each connection, each address judged
//! ([`is_public`]), and the connection made to the first that answers of those that were judged, with the name in
//! TLS. No proxy is used, and nothing here follows a redirect.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http_body_util::Full;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Position, Url};

use super::address::is_public;
use crate::telemetry::fields::causes;

/// How long an address has for itself before the next one is tried beside it. Source: RFC 8305, section 5,
/// which recommends it.
const APART: Duration = Duration::from_millis(250);
/// Most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Which addresses may be asked without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plain {
    /// None.
    Never,
    /// Those that begin with `http:`.
    Allowed,
}

/// See the module.
#[derive(Debug)]
pub struct Endpoint {
    url: Url,
    allow_private: bool,
}

/// What a connection speaks over.
pub trait Wire: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Wire for T {}

/// The body of a request.
pub type Sent = Full<Bytes>;

/// A wire of either kind.
pub type AnyWire = TokioIo<Pin<Box<dyn Wire>>>;

impl Endpoint {
    /// The endpoint at this address.
    ///
    /// # Errors
    /// It is no URL, has no host, or is of another kind.
    pub fn new(url: &str, allow_private: bool, plain: Plain) -> Result<Self, String> {
        let url = Url::parse(url).map_err(|error| causes(&error))?;
        match (url.scheme(), plain) {
            ("https", _) | ("http", Plain::Allowed) => {}
            _ => return Err("it is not https".to_owned()),
        }
        url.host().ok_or("it has no host")?;
        Ok(Self { url, allow_private })
    }

    /// What a request line names.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.url[Position::BeforePath..Position::AfterQuery]
    }

    /// What the header `host` names.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.url[Position::BeforeHost..Position::AfterPort]
    }

    /// Whether it is spoken to by TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// A new connection, and what has to be polled for it to work. `tls` is used where it is one of TLS.
    /// Cancel-safe: the connection ends with the call.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(
        &self,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<(SendRequest<Sent>, Connection<AnyWire, Sent>), String> {
        let host = self.url.host().ok_or("it has no host")?;
        let port = self.url.port_or_known_default().unwrap_or(443);
        let tcp = connect(&host, port, self.allow_private).await?;
        // A request is one write, and its answer is waited for.
        let _ = tcp.set_nodelay(true);
        let wire: Pin<Box<dyn Wire>> = match (self.is_tls(), tls) {
            (false, _) => Box::pin(tcp),
            (true, None) => return Err("no TLS: nobody is trusted".to_owned()),
            (true, Some(tls)) => {
                let stream = TlsConnector::from(tls).connect(name_of(&host)?, tcp).await;
                Box::pin(stream.map_err(|error| format!("no TLS: {}", causes(&error)))?)
            }
        };
        let opened = http1::handshake(TokioIo::new(wire)).await;
        opened.map_err(|error| causes(&error))
    }
}

/// The name in TLS. The brackets of an address of IPv6 are no part of it.
fn name_of(host: &Host<&str>) -> Result<ServerName<'static>, String> {
    match host {
        Host::Domain(name) => ServerName::try_from((*name).to_owned()).map_err(|e| causes(&e)),
        Host::Ipv4(address) => Ok(ServerName::IpAddress(IpAddr::from(*address).into())),
        Host::Ipv6(address) => Ok(ServerName::IpAddress(IpAddr::from(*address).into())),
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

/// Who is trusted: the certificates of this file, or the system's. They are read now.
///
/// # Errors
/// Why nobody is.
pub fn trusting(ca_file: Option<&str>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let trusted: Vec<CertificateDer<'static>> = match ca_file {
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
    use crate::verification::fetch::TIMEOUT;

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
}
