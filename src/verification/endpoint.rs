//! A connection to an address that a configuration names, by which nobody can be made to ask something else.
//!
//! In: an address, and who is trusted there. Out: a connection of HTTP/1.1, or why there is none, in words for
//! the log. Bounds: the caller's, who waits. The name is resolved for each connection, each address judged
//! ([`is_public`]), and the connection made to an address that was judged, with the name in TLS. No proxy is
//! used, and nothing here follows a redirect.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
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
    let mut failure = "its name leads nowhere".to_owned();
    for address in addresses {
        if !allow_private && !is_public(address.ip()) {
            failure = format!(
                "{} is no public address, and allow_private is false",
                address.ip()
            );
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = format!("{address}: {}", causes(&error)),
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
