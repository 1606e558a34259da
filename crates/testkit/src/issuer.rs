//! An issuer of tokens that publishes its keys by https, well or badly.
//!
//! In: what it is to answer. Out: its address, the certificate that it is trusted by, and how often it was
//! asked. It ends with the test's runtime.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::certificates::Authority;
use crate::tokens;

/// What an issuer answers.
#[derive(Debug, Clone)]
pub enum Says {
    /// This set.
    Set(Value),
    /// This status line and these headers, without a body.
    Head(String),
    /// Nothing, and keeps the connection.
    Nothing,
    /// A body without end.
    Endless,
}

/// See the module.
pub struct Issuer {
    /// Where it publishes its keys.
    pub url: String,
    /// The file with the certificate of who signed its own.
    pub ca_file: PathBuf,
    says: Arc<Mutex<Says>>,
    /// Answers wait while this is true.
    held: watch::Sender<bool>,
    asked: Arc<AtomicUsize>,
    _directory: tempfile::TempDir,
}

impl Issuer {
    /// One that listens on a free port.
    ///
    /// # Panics
    /// When the machine has no port to give.
    pub async fn start(says: Says) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let authority = Authority::new();
        let ca_file = directory.path().join("ca.pem");
        std::fs::write(&ca_file, &authority.pem).expect("the directory can be written");
        let (certificate, key) = authority.sign("localhost");
        let certificates = CertificateDer::pem_slice_iter(certificate.as_bytes());
        let certificates = certificates.collect::<Result<_, _>>().expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .expect("a certificate with its key");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let issuer = Self {
            url: format!("https://localhost:{port}/keys?v=1"),
            ca_file,
            says: Arc::new(Mutex::new(says)),
            held: watch::channel(false).0,
            asked: Arc::default(),
            _directory: directory,
        };
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (says, asked) = (Arc::clone(&issuer.says), Arc::clone(&issuer.asked));
        let held = issuer.held.subscribe();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (says, asked) = (Arc::clone(&says), Arc::clone(&asked));
                let (acceptor, held) = (acceptor.clone(), held.clone());
                tokio::spawn(async move {
                    let _ = answer(stream, acceptor, &says, &asked, held).await;
                });
            }
        });
        issuer
    }

    /// From now on it answers this.
    pub fn say(&self, says: Says) {
        *self.says.lock().unwrap_or_else(PoisonError::into_inner) = says;
    }

    /// From now on answers wait, or wait no more.
    pub fn hold(&self, is_held: bool) {
        self.held.send_replace(is_held);
    }

    /// How many requests have come.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Its entry in a configuration, without the fields of the issuer itself.
    pub fn entry(&self) -> String {
        format!(
            "jwks_url = {:?}\nca_file = {:?}\nallow_private = true\n",
            self.url,
            self.ca_file.display().to_string()
        )
    }
}

async fn answer(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    says: &Mutex<Says>,
    asked: &AtomicUsize,
    mut held: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    asked.fetch_add(1, Ordering::Relaxed);
    let _ = held.wait_for(|is_held| !is_held).await;
    let says = says.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match says {
        Says::Set(set) => {
            let body = set.to_string();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).await?;
        }
        Says::Head(head) => {
            let text = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(text.as_bytes()).await?;
        }
        Says::Nothing => {
            let _ = stream.read_u8().await;
        }
        Says::Endless => {
            let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head).await?;
            let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
            loop {
                stream.write_all(chunk.as_bytes()).await?;
            }
        }
    }
    stream.shutdown().await
}

/// A key on P-256 by which an issuer signs.
pub struct IssuerKey {
    /// Its `kid`.
    pub kid: String,
    pair: EcdsaKeyPair,
}

impl IssuerKey {
    /// A new one.
    ///
    /// # Panics
    /// When the system has no random bytes.
    pub fn new(kid: &str) -> Self {
        let (form, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let made = EcdsaKeyPair::generate_pkcs8(form, &random).expect("random bytes");
        let pair = EcdsaKeyPair::from_pkcs8(form, made.as_ref(), &random);
        Self {
            kid: kid.to_owned(),
            pair: pair.expect("it was made so"),
        }
    }

    /// As it is published.
    pub fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid,
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]),
            "y": URL_SAFE_NO_PAD.encode(&point[33..]),
        })
    }

    /// A token with these claims.
    ///
    /// # Panics
    /// When the system has no random bytes.
    pub fn token(&self, claims: &Value) -> String {
        let header = json!({"typ": "JWT", "alg": "ES256", "kid": self.kid});
        tokens::signed_by(&header, claims, |message| {
            let signature = self.pair.sign(&SystemRandom::new(), message);
            signature.expect("random bytes").as_ref().to_vec()
        })
    }
}

/// A set of these keys.
pub fn set(keys: &[&IssuerKey]) -> Says {
    let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
    Says::Set(json!({ "keys": keys }))
}
