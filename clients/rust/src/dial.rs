//! One connection of a client: the name, TCP, and TLS where the address asks for it.
//!
//! In: host, port, and whom to trust ([`Tls`]). Out: a stream of bytes, or a [`DialError`] in
//! sentences. Certificates are those of the system, or of one file alone. Owner: the caller. Bounds:
//! the time for TCP that the caller gives, of which each address of a name has its share; none for
//! the name and TLS, whose bound is the caller's.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as RustlsError, RootCertStore,
    SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

/// The subprotocol that this client speaks.
pub const SUBPROTOCOL: &str = "fanfare.v1.json";

/// Whom to trust where an address asks for TLS.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Trust the certificates of this file (PEM) instead of the system's.
    pub ca: Option<PathBuf>,
    /// Trust any certificate. Whoever sits between can then read and change everything.
    pub insecure: bool,
}

/// Bytes in both directions.
pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug> Bytes for T {}

/// An open connection, plain or encrypted.
pub type Stream = Box<dyn Bytes>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name is unknown, or nobody answers there.
    #[error(transparent)]
    Tcp(io::Error),
    /// The certificate is signed by an authority that is not trusted: see [`Tls::ca`].
    #[error(
        "the certificate of {0} is signed by nobody whom this machine trusts; give the file with \
         the certificate of its CA"
    )]
    UnknownIssuer(String),
    /// The other side speaks no TLS, or its certificate is not trusted for another reason.
    #[error("{0}")]
    Tls(String),
}

/// It cannot be said whom to trust.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file of [`Tls::ca`].
    #[error("the CA file {} cannot be used: {why}", path.display())]
    File {
        /// As given.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The system names no certificates.
    #[error("this system names no certificates that it trusts")]
    NoSystem,
    /// The host of an address cannot stand in a certificate.
    #[error("{0} cannot be the name in a certificate")]
    Name(String),
}

/// Where to connect, and how.
#[derive(Clone)]
pub struct Place {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Place {
    /// A place without TLS.
    #[must_use]
    pub fn plain(host: &str, port: u16) -> Self {
        Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            tls: None,
        }
    }

    /// A place with TLS.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn tls(host: &str, port: u16, tls: &Tls) -> Result<Self, TrustError> {
        let plain = Self::plain(host, port);
        let name = ServerName::try_from(plain.host.clone());
        let name = name.map_err(|_| TrustError::Name(plain.host.clone()))?;
        Ok(Self {
            tls: Some((TlsConnector::from(Arc::new(client(tls)?)), name)),
            ..plain
        })
    }

    /// Connects. All addresses of the name together have `within` for TCP: each gets an equal share
    /// of what is left, so that one which does not answer leaves time for the next.
    ///
    /// # Errors
    /// [`DialError`] of the last address.
    ///
    /// # Cancel safety
    /// Safe: what was begun is dropped.
    pub async fn dial(&self, within: Duration) -> Result<Stream, DialError> {
        let stream = self.tcp(within).await.map_err(DialError::Tcp)?;
        stream.set_nodelay(true).map_err(DialError::Tcp)?;
        let Some((connector, name)) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let shaken = connector.connect(name.clone(), stream).await;
        let stream = shaken.map_err(|error| self.explain(&error))?;
        Ok(Box::new(stream))
    }

    async fn tcp(&self, within: Duration) -> io::Result<TcpStream> {
        let end = Instant::now() + within;
        let addresses = tokio::net::lookup_host((self.host.as_str(), self.port)).await?;
        let addresses: Vec<SocketAddr> = addresses.collect();
        first_to_answer(&addresses, end).await
    }

    /// What went wrong with TLS, and what to do.
    fn explain(&self, error: &io::Error) -> DialError {
        let host = &self.host;
        let inner = error.get_ref().and_then(|error| error.downcast_ref());
        let Some(error) = inner else {
            return DialError::Tls(format!(
                "{host} ended the TLS handshake ({error}); does it speak TLS on port {}?",
                self.port
            ));
        };
        DialError::Tls(match error {
            RustlsError::InvalidCertificate(CertificateError::UnknownIssuer) => {
                return DialError::UnknownIssuer(host.clone());
            }
            RustlsError::InvalidCertificate(why) => certificate(host, why),
            RustlsError::InvalidMessage(_) => format!(
                "{host} does not speak TLS on port {}; use ws:// or http:// there",
                self.port
            ),
            RustlsError::AlertReceived(alert) => {
                format!("{host} refused the TLS handshake ({alert:?})")
            }
            other => format!("TLS with {host} failed: {other}"),
        })
    }
}

async fn first_to_answer(addresses: &[SocketAddr], end: Instant) -> io::Result<TcpStream> {
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (at, address) in addresses.iter().enumerate() {
        let left = end.saturating_duration_since(Instant::now());
        let others = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        error = match timeout(left / others, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_elapsed) => io::ErrorKind::TimedOut.into(),
        };
    }
    Err(error)
}

fn certificate(host: &str, why: &CertificateError) -> String {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("the certificate of {host} has expired; renew it there")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the certificate of {host} is not valid yet; are the clocks right?")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the certificate of {host} is for another name; use the name that it is for")
        }
        CertificateError::Revoked => format!("the certificate of {host} was revoked"),
        // The library keeps what it found only in its debug form.
        other => match format!("{other:?}") {
            text if text.contains("CaUsedAsEndEntity") => format!(
                "the certificate of {host} is that of a CA; it needs one for a server, signed by \
                 that CA"
            ),
            text if text.contains("UnsupportedCertVersion") => {
                format!("the certificate of {host} is of version 1; it must be of version 3")
            }
            text => format!("the certificate of {host} cannot be trusted ({text})"),
        },
    }
}

fn client(tls: &Tls) -> Result<ClientConfig, TrustError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has what the default versions need");
    if tls.insecure {
        let verifier = Arc::new(Anybody(provider));
        let builder = builder.dangerous();
        let builder = builder.with_custom_certificate_verifier(verifier);
        return Ok(builder.with_no_client_auth());
    }
    let builder = builder.with_root_certificates(roots(tls)?);
    Ok(builder.with_no_client_auth())
}

fn roots(tls: &Tls) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = &tls.ca else {
        let found = rustls_native_certs::load_native_certs().certs;
        return match roots.add_parsable_certificates(found).0 {
            0 => Err(TrustError::NoSystem),
            _ => Ok(roots),
        };
    };
    let unusable = |why: String| TrustError::File {
        path: path.clone(),
        why,
    };
    std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let found =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|_| unusable("it is not PEM".to_owned()))?;
    match roots.add_parsable_certificates(found).0 {
        0 => Err(unusable("there is no certificate in it".to_owned())),
        _ => Ok(roots),
    }
}

/// Trusts anybody, as [`Tls::insecure`] asks.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_does_not_answer_leaves_time_for_the_next() {
        // A listener whose queue is full answers no further connection.
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        let any = "127.0.0.1:0".parse().expect("an address");
        socket.bind(any).expect("a free port");
        let full = socket.local_addr().expect("an address");
        let _listener = socket.listen(1).expect("it listens");
        let fill = (0..4).map(|_| tokio::spawn(TcpStream::connect(full)));
        let _filling: Vec<_> = fill.collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let good = tokio::net::TcpListener::bind(any).await;
        let good = good.expect("a free port");
        let address = good.local_addr().expect("an address");
        let end = Instant::now() + Duration::from_secs(4);
        let stream = first_to_answer(&[full, address], end).await;
        let stream = stream.expect("the second answers");
        assert_eq!(stream.peer_addr().expect("an address"), address);
        assert!(first_to_answer(&[], end).await.is_err());
        assert!(first_to_answer(&[full], Instant::now()).await.is_err());
    }
}
