//! How a connection to Redis finds the server and proves who it is: address, TLS, user, password.
//!
//! In: `config::Redis`. Out: the part of fred's configuration that says where to and as whom, and
//! plain words for what goes wrong there. Owns nothing. Certificates are read whenever a client is
//! made, which after an error of TLS happens again and again; the password file is read for every
//! single connection. So whatever was changed or mended is taken up without a restart. Bounds: a
//! few small files, read while a connection is made.

use std::fmt::Display;
use std::sync::Arc;

use fred::error::{Error, ErrorKind};
use fred::rustls::crypto::ring;
use fred::rustls::pki_types::pem::PemObject;
use fred::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use fred::rustls::{ClientConfig, RootCertStore};
use fred::rustls_native_certs;
use fred::types::config::{
    Config, CredentialProvider, Server, ServerConfig, TlsConfig, TlsConnector,
};
use futures_util::future::BoxFuture;

use super::RedisError;
use crate::config;

/// User and password, as fred asks for them.
type Credentials = (Option<String>, Option<String>);

/// What [`explain`] looks for in the text of an error, and what it means.
const MEANINGS: [(&str, &str); 8] = [
    (
        "WRONGPASS",
        "look into redis.user and redis.password_file, or the user in redis.url",
    ),
    (
        "NOAUTH",
        "Redis wants a password: set redis.password_file, or a user in redis.url",
    ),
    (
        "DB index is out of range",
        "the server has no database of that number: see the end of redis.url, and `databases` in the configuration of Redis",
    ),
    (
        "InvalidCertificate(UnknownIssuer)",
        "no CA that this node trusts has signed the certificate of Redis: see redis.tls_ca_file",
    ),
    (
        "InvalidCertificate(NotValidForName",
        "the certificate of Redis is for another name: see redis.tls_server_name",
    ),
    (
        "InvalidCertificate(",
        "the certificate of Redis cannot be trusted",
    ),
    (
        "AlertReceived(",
        "Redis does not take this node's certificate: see redis.tls_certificate_file",
    ),
    (
        "InvalidMessage(",
        "Redis does not speak TLS on this port: see redis.url",
    ),
];

/// Where to and as whom; all other options are left at fred's defaults.
///
/// # Errors
/// [`RedisError`] for a URL that cannot be used and a file that cannot be read.
pub(super) fn server(redis: &config::Redis) -> Result<Config, RedisError> {
    let url = &redis.url.as_ref().ok_or(RedisError::NoUrl)?.0;
    let (scheme, address) = url.split_once("://").ok_or(RedisError::Scheme)?;
    let access = &redis.access;
    let tls = match scheme {
        "redis" | "valkey" => None,
        "rediss" | "valkeys" => Some(TlsConfig::from(connector(access)?)),
        _ => return Err(RedisError::Scheme),
    };
    // Read as if without TLS: for a URL with it fred loads the system's certificates itself.
    let url = format!("redis://{address}");
    let mut config = Config::from_url_centralized(&url).map_err(RedisError::Url)?;
    if let (ServerConfig::Centralized { server }, Some(name)) =
        (&mut config.server, &access.tls_server_name)
    {
        *server = Server::new_with_tls(server.host.clone(), server.port, Some(name.clone()));
    }
    config.tls = tls;
    config.username = access.user.clone().or(config.username);
    if let Some(path) = &access.password_file {
        config.credential_provider = Some(Arc::new(PasswordFile {
            user: config.username.clone(),
            path: path.clone(),
        }));
    }
    Ok(config)
}

/// The text of an error with what it means, where it is about getting in.
#[must_use]
pub fn explain(error: &Error) -> String {
    let details = error.details();
    match MEANINGS.iter().find(|(text, _)| details.contains(text)) {
        Some((_, meaning)) => format!("{details} ({meaning})"),
        None => details.to_owned(),
    }
}

/// Whether a connection failed for what was read when its client was made: a new client may
/// fare better. rustls reports by `std::io::Error`, of which fred keeps the text alone.
#[must_use]
pub fn is_tls(error: &Error) -> bool {
    *error.kind() == ErrorKind::Tls || error.details().contains("kind: InvalidData")
}

fn connector(access: &config::RedisAccess) -> Result<TlsConnector, RedisError> {
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
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(RedisError::Tls)?
        .with_root_certificates(roots);
    let config = match (&access.tls_certificate_file, &access.tls_key_file) {
        (Some(certificate), Some(key_path)) => {
            let chain = certificates("redis.tls_certificate_file", certificate)?;
            let key = PrivateKeyDer::from_pem_file(key_path)
                .map_err(|error| unreadable("redis.tls_key_file", key_path, error))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(RedisError::Tls)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(config.into())
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

/// A password that is read anew for every connection.
#[derive(Debug)]
struct PasswordFile {
    user: Option<String>,
    path: String,
}

impl PasswordFile {
    fn read(&self) -> Result<Credentials, Error> {
        let refused = |reason: String| {
            let path = &self.path;
            let text = format!("redis.password_file {path} cannot be used: {reason}");
            Error::new(ErrorKind::Auth, text)
        };
        // A few bytes, read as rarely as a connection is made: not worth a thread.
        let text = std::fs::read_to_string(&self.path).map_err(|e| refused(e.to_string()))?;
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            return Err(refused("it is empty".to_owned()));
        }
        Ok((self.user.clone(), Some(password.to_owned())))
    }
}

impl CredentialProvider for PasswordFile {
    fn fetch<'a, 'b, 'c>(
        &'a self,
        _: Option<&'b Server>,
    ) -> BoxFuture<'c, Result<Credentials, Error>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(std::future::ready(self.read()))
    }
}
