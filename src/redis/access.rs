//! How a connection to Redis finds the server and proves who it is: address, TLS, user, password.
//!
//! In: `config::Redis`. Out: the part of fred's configuration that says where to and as whom, the
//! same for connections of our own ([`Target`]), and plain words for what goes wrong with either.
//! Owns nothing. Certificates are looked at for every
//! connection, and a client is made anew after an error of TLS; the password file is read for every
//! single connection. So whatever was changed or mended is taken up without a restart. Bounds: a
//! few small files, read while a connection is made.

use std::path::PathBuf;
use std::sync::Arc;

use fred::error::{Error, ErrorKind};
use fred::rustls::ClientConfig;
use fred::types::config::{
    Config, CredentialProvider, Server, ServerConfig, TlsConfig, TlsConnector,
};
use futures_util::future::BoxFuture;

use super::RedisError;
use super::certificates::client_config;
use super::refusal::Refusal;
use crate::config;

/// User and password, as fred asks for them.
type Credentials = (Option<String>, Option<String>);

/// What is in an error of TLS, and the sentence that is reported instead.
const TLS: [(&str, &str); 17] = [
    (
        "CaUsedAsEndEntity",
        "the certificate of Redis is that of a CA, which none may show as its own: let the CA sign \
         one for the server (basicConstraints CA:FALSE), and name the CA in redis.tls_ca_file",
    ),
    (
        "UnsupportedCertVersion",
        "the certificate of Redis is of version 1: make one of version 3, with the name of the \
         server as subjectAltName",
    ),
    (
        "InvalidCertificate(Expired",
        "the certificate of Redis has expired: renew it, or set the clock of this machine right",
    ),
    (
        "InvalidCertificate(NotValidYet",
        "the certificate of Redis is not valid yet: see its dates, and the clock of this machine",
    ),
    (
        "InvalidCertificate(NotValidForName",
        "the certificate of Redis is for another name: see redis.tls_server_name",
    ),
    (
        "InvalidCertificate(UnknownIssuer",
        "no CA that this node trusts has signed the certificate of Redis: see redis.tls_ca_file",
    ),
    (
        "InvalidCertificate(BadSignature",
        "the certificate of Redis is signed by another CA of the same name: see redis.tls_ca_file",
    ),
    (
        "InvalidCertificate(InvalidPurpose",
        "the certificate of Redis is not for a server: make one with extendedKeyUsage serverAuth",
    ),
    (
        "InvalidCertificate(Revoked",
        "the certificate of Redis was revoked: renew it",
    ),
    (
        "InvalidCertificate(UnsupportedSignature",
        "the certificate of Redis is signed in a way that is not trusted any more: make one with \
         SHA-256 and ECDSA, or RSA of 2048 bits",
    ),
    (
        "InvalidCertificate(",
        "the certificate of Redis cannot be read or trusted: make a new one",
    ),
    (
        "AlertReceived(CertificateRequired",
        "Redis asks this node for a certificate: set redis.tls_certificate_file and \
         redis.tls_key_file",
    ),
    (
        "AlertReceived(ProtocolVersion",
        "Redis speaks no TLS that this node does: allow TLSv1.2 or TLSv1.3 in its tls-protocols",
    ),
    (
        "AlertReceived(HandshakeFailure",
        "Redis and this node have no cipher in common: see tls-ciphers of Redis",
    ),
    (
        "AlertReceived(",
        "Redis does not take this node's certificate: see redis.tls_certificate_file",
    ),
    (
        "PeerIncompatible(",
        "Redis speaks no TLS that this node does: allow TLSv1.2 or TLSv1.3 in its tls-protocols",
    ),
    (
        "InvalidMessage(",
        "what answers does not speak TLS on this port: give the TLS port in redis.url, or write \
         redis:// without TLS",
    ),
];

/// What may be the cause of an error of the connection.
const HINTS: [(&str, &str); 2] = [
    (
        "Connection reset by peer",
        "if Redis speaks TLS on this port, write rediss:// in redis.url",
    ),
    (
        "Request timed out",
        "it does not answer; with rediss:// also where it waits for plain commands on this port",
    ),
];

/// Where to and as whom; all other options are left at fred's defaults.
///
/// # Errors
/// [`RedisError`] for a URL that cannot be used and a file that cannot be read.
pub(super) fn server(redis: &config::Redis) -> Result<Config, RedisError> {
    let (mut config, tls) = read(redis)?;
    config.tls = tls.map(|tls| TlsConfig::from(TlsConnector::from(tls)));
    config.username = config.username.as_deref().map(inline);
    config.password = config.password.as_deref().map(inline);
    if let Some(path) = &redis.access.password_file {
        config.credential_provider = Some(Arc::new(PasswordFile {
            user: config.username.clone(),
            path: path.clone(),
        }));
    }
    Ok(config)
}

/// Where connections of our own lead, and as whom. Kept from one to the next, because it looks at
/// the certificates for each; made anew after an error of TLS ([`is_tls`]).
pub struct Target {
    pub(super) place: Place,
    /// By which configuration it speaks TLS, and whose certificate it expects.
    pub(super) tls: Option<(Arc<ClientConfig>, String)>,
    /// The database, where the URL names one.
    pub(super) database: Option<u8>,
    user: Option<String>,
    password: Option<String>,
    password_file: Option<String>,
}

/// Where a server listens.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// A host, by name or address, and a port.
    Host(String, u16),
    /// A socket of this machine.
    Socket(PathBuf),
}

/// Without its secrets.
impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Target");
        shown.field("place", &self.place).finish_non_exhaustive()
    }
}

impl Target {
    /// The server that this configuration names.
    ///
    /// # Errors
    /// [`RedisError`] for a URL that cannot be used and a file that cannot be read.
    pub fn new(redis: &config::Redis) -> Result<Self, RedisError> {
        let (config, tls) = read(redis)?;
        let (place, tls_name) = match config.server {
            ServerConfig::Centralized { server } => {
                let host = server.host.to_string();
                let name = server.tls_server_name.map(|name| name.to_string());
                let name = name.unwrap_or_else(|| host.clone());
                (Place::Host(host, server.port), name)
            }
            ServerConfig::Unix { path } => (Place::Socket(path), String::new()),
            _ => return Err(RedisError::Scheme),
        };
        Ok(Self {
            place,
            tls: tls.map(|tls| (Arc::new(tls), tls_name)),
            database: config.database,
            user: config.username,
            password: config.password,
            password_file: redis.access.password_file.clone(),
        })
    }

    /// User and password, where there is a password; the file is read now.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(super) fn login(&self) -> Result<Option<(String, String)>, Error> {
        let password = match &self.password_file {
            Some(path) => Some(read_password(path)?),
            None => self.password.clone(),
        };
        let user = self.user.as_deref().unwrap_or("default");
        Ok(password.map(|password| (user.to_owned(), password)))
    }

    /// Where it is, for people.
    #[must_use]
    pub fn server(&self) -> String {
        match &self.place {
            Place::Host(host, port) => format!("{host}:{port}"),
            Place::Socket(path) => path.to_string_lossy().into_owned(),
        }
    }
}

/// The host that the configuration names, and its port; `None` for a socket of this machine.
pub(super) fn host(redis: &config::Redis) -> Option<(String, u16)> {
    let (scheme, address) = redis.url.as_ref()?.0.split_once("://")?;
    if scheme == "unix" {
        return None;
    }
    let url = format!("redis://{address}");
    match Config::from_url_centralized(&url).ok()?.server {
        ServerConfig::Centralized { server } => Some((server.host.to_string(), server.port)),
        _ => None,
    }
}

/// What is in the configuration: user and password in their own words, and TLS apart.
fn read(redis: &config::Redis) -> Result<(Config, Option<ClientConfig>), RedisError> {
    let url = &redis.url.as_ref().ok_or(RedisError::NoUrl)?.0;
    let (scheme, address) = url.split_once("://").ok_or(RedisError::Scheme)?;
    let access: &config::RedisAccess = &redis.access;
    let tls = match scheme {
        "redis" | "valkey" | "unix" => None,
        "rediss" | "valkeys" => Some(client_config(access)?),
        _ => return Err(RedisError::Scheme),
    };
    // A socket has no host, without which no URL is read.
    let (address, socket) = match scheme {
        "unix" => of_socket(address),
        _ => (address.to_owned(), None),
    };
    // Read as if without TLS: for a URL with it fred loads the system's certificates itself.
    let url = format!("redis://{address}");
    let mut config = Config::from_url_centralized(&url).map_err(RedisError::Url)?;
    if let Some(path) = socket {
        config.server = ServerConfig::new_unix_socket(path);
    }
    if let (ServerConfig::Centralized { server }, Some(name)) =
        (&mut config.server, &access.tls_server_name)
    {
        *server = Server::new_with_tls(server.host.clone(), server.port, Some(name.clone()));
    }
    config.username = access.user.clone().or(config.username);
    Ok((config, tls))
}

/// `LOGIN@/PATH?db=NUMBER` as address of some host, and the path.
fn of_socket(address: &str) -> (String, Option<&str>) {
    let (place, options) = address.split_once('?').unwrap_or((address, ""));
    let (login, path) = place.rsplit_once('@').unwrap_or(("", place));
    let database = options.strip_prefix("db=").unwrap_or_default();
    let at = if login.is_empty() { "" } else { "@" };
    (format!("{login}{at}localhost/{database}"), Some(path))
}

/// A user or password as Redis takes it out of a line. fred writes `HELLO 3 AUTH …` as an inline
/// command, which Redis takes apart at spaces and quotes; in double quotes `\xHH` is a byte.
fn inline(word: &str) -> String {
    let mut quoted = String::with_capacity(2 + 4 * word.len());
    quoted.push('"');
    for byte in word.bytes() {
        if byte.is_ascii_alphanumeric() {
            quoted.push(char::from(byte));
        } else {
            quoted.push_str(&format!("\\x{byte:02x}"));
        }
    }
    quoted.push('"');
    quoted
}

/// The text of an error with what it means, where that is known.
#[must_use]
pub fn explain(error: &Error) -> String {
    let details = plain(error.details());
    if let Some(refusal) = Refusal::of(details) {
        return format!("{details} ({})", refusal.advice);
    }
    let said = |rows: &[(&str, &'static str)]| {
        let row = rows.iter().find(|(text, _)| error.details().contains(text));
        row.map(|(_, told)| *told)
    };
    match (said(&TLS), said(&HINTS)) {
        (Some(sentence), _) => sentence.to_owned(),
        (None, Some(hint)) => format!("{details} ({hint})"),
        (None, None) => details.to_owned(),
    }
}

/// What an error of the system says, of which fred gives the whole inside.
fn plain(details: &str) -> &str {
    let message = match details.split_once(' ') {
        Some(("Os", _)) => details.split_once("message: \""),
        Some(("Custom", _)) => details.split_once("error: \""),
        _ => None,
    };
    let message = message.and_then(|(_, rest)| rest.rsplit_once('"'));
    message.map_or(details, |(message, _)| message)
}

/// Whether a connection failed for what was read when its client was made: a new client may
/// fare better. rustls reports by `std::io::Error`, of which fred keeps the text alone.
#[must_use]
pub fn is_tls(error: &Error) -> bool {
    *error.kind() == ErrorKind::Tls || error.details().contains("kind: InvalidData")
}

/// A password that is read anew for every connection.
#[derive(Debug)]
struct PasswordFile {
    /// As [`inline`] makes it.
    user: Option<String>,
    path: String,
}

impl PasswordFile {
    fn read(&self) -> Result<Credentials, Error> {
        let password = read_password(&self.path)?;
        Ok((self.user.clone(), Some(inline(&password))))
    }
}

fn read_password(path: &str) -> Result<String, Error> {
    let refused = |reason: String| {
        let text = format!("redis.password_file {path} cannot be used: {reason}");
        Error::new(ErrorKind::Auth, text)
    };
    // A few bytes, read as rarely as a connection is made: not worth a thread.
    let bytes = std::fs::read(path).map_err(|e| refused(e.to_string()))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| refused("it is not UTF-8: write the password in UTF-8".to_owned()))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(refused("it is empty".to_owned()));
    }
    Ok(password.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_told_without_its_wrapping() {
        let refused = "Os { code: 111, kind: ConnectionRefused, message: \"Connection refused\" }";
        assert_eq!(plain(refused), "Connection refused");
        let unknown =
            "Custom { kind: Uncategorized, error: \"Name or \\\"service\\\" not known\" }";
        assert_eq!(plain(unknown), "Name or \\\"service\\\" not known");
        for other in [
            "Request timed out.",
            "Custom { kind: InvalidData, error: NoTls }",
            "",
        ] {
            assert_eq!(plain(other), other);
        }
    }

    #[test]
    fn every_byte_of_a_login_is_one_word_of_a_line() {
        assert_eq!(inline("a b\"\\ü"), "\"a\\x20b\\x22\\x5c\\xc3\\xbc\"");
        assert_eq!(inline(""), "\"\"");
    }

    #[test]
    fn a_socket_is_read_with_its_login_and_database() {
        let read = |address| of_socket(address);
        assert_eq!(
            read("/run/r.sock"),
            ("localhost/".to_owned(), Some("/run/r.sock"))
        );
        let whole = ("u:p@localhost/2".to_owned(), Some("/run/r.sock"));
        assert_eq!(read("u:p@/run/r.sock?db=2"), whole);
    }
}
