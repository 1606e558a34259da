//! Certificates towards Redis: whom a connection trusts, and what it shows.
//!
//! In: the files that `config::RedisAccess` names. Out: a configuration of TLS that looks at them at
//! every handshake, and reads them again where one has changed; so a new certificate is taken up by
//! the next connection, without a restart. A file that cannot be used then keeps what was read
//! before, and the log says so; SIGHUP, too, tells of such a file (`config/checks/files.rs`). The certificates of the system are read when a client is made. No
//! session of TLS is taken up again, because that would pass by what has changed. Owner: each client
//! has its own. Bounds: three small files, looked at while a connection is made.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use fred::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use fred::rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use fred::rustls::crypto::ring;
use fred::rustls::pki_types::pem::PemObject;
use fred::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use fred::rustls::sign::CertifiedKey;
use fred::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use fred::rustls_native_certs;

use super::RedisError;
use crate::config::RedisAccess;

/// A configuration of TLS for a client, by these files.
///
/// # Errors
/// [`RedisError`] for a file that cannot be used.
pub(super) fn client_config(access: &RedisAccess) -> Result<ClientConfig, RedisError> {
    let certificates = Arc::new(Certificates {
        access: access.clone(),
        shows: access.tls_certificate_file.is_some(),
        now: Mutex::new((stamps(access), Arc::new(read(access)?))),
    });
    let verifier: Arc<Certificates> = Arc::clone(&certificates);
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(RedisError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = if certificates.shows {
        builder.with_client_cert_resolver(certificates)
    } else {
        builder.with_no_client_auth()
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What was read.
#[derive(Debug)]
struct Material {
    trusted: Arc<WebPkiServerVerifier>,
    shown: Option<Arc<CertifiedKey>>,
}

/// When each file was changed, and how long it is; `None` where it is not there.
type Stamps = [Option<(SystemTime, u64)>; 3];

/// See the module.
#[derive(Debug)]
struct Certificates {
    access: RedisAccess,
    shows: bool,
    now: Mutex<(Stamps, Arc<Material>)>,
}

impl Certificates {
    /// What is in the files now, or was there before they became useless.
    fn now(&self) -> Arc<Material> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let found = stamps(&self.access);
        if now.0 != found {
            now.0 = found;
            match read(&self.access) {
                Ok(material) => now.1 = Arc::new(material),
                Err(error) => {
                    tracing::warn!(
                        event = "redis_certificates_refused",
                        error = &error as &(dyn std::error::Error + 'static),
                        "certificates for Redis were changed and cannot be used; the ones before stay"
                    );
                }
            }
        }
        Arc::clone(&now.1)
    }
}

impl ServerCertVerifier for Certificates {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let trusted = &self.now().trusted;
        trusted.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.now()
            .trusted
            .verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.now()
            .trusted
            .verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.now().trusted.supported_verify_schemes()
    }
}

impl ResolvesClientCert for Certificates {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let shown = self.now().shown.clone()?;
        shown.key.choose_scheme(schemes)?;
        Some(shown)
    }

    fn has_certs(&self) -> bool {
        self.shows
    }
}

fn stamps(access: &RedisAccess) -> Stamps {
    let files = [
        &access.tls_ca_file,
        &access.tls_certificate_file,
        &access.tls_key_file,
    ];
    files.map(|path| {
        let metadata = std::fs::metadata(path.as_ref()?).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn read(access: &RedisAccess) -> Result<Material, RedisError> {
    let mut roots = RootCertStore::empty();
    let trusted = match &access.tls_ca_file {
        Some(path) => certificates("redis.tls_ca_file", path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    if roots.add_parsable_certificates(trusted).0 == 0 {
        let (key, path) = match &access.tls_ca_file {
            Some(path) => ("redis.tls_ca_file", path.as_str()),
            None => ("redis.tls_ca_file is not set", "of the system"),
        };
        return Err(unreadable(key, path, "there is no certificate in it"));
    }
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let trusted = verifier
        .build()
        .map_err(|error| RedisError::Tls(Error::General(error.to_string())))?;
    let shown = match (&access.tls_certificate_file, &access.tls_key_file) {
        (Some(certificate), Some(key_path)) => {
            let chain = certificates("redis.tls_certificate_file", certificate)?;
            let key = PrivateKeyDer::from_pem_file(key_path)
                .map_err(|error| unreadable("redis.tls_key_file", key_path, error))?;
            let shown = CertifiedKey::from_der(chain, key, &provider).map_err(RedisError::Tls)?;
            Some(Arc::new(shown))
        }
        _ => None,
    };
    Ok(Material { trusted, shown })
}

fn certificates(key: &'static str, path: &str) -> Result<Vec<CertificateDer<'static>>, RedisError> {
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    certificates.map_err(|error| unreadable(key, path, error))
}

fn unreadable(key: &'static str, path: &str, reason: impl Display) -> RedisError {
    RedisError::File {
        key,
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}
