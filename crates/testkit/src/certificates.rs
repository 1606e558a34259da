//! Who signs certificates in a test, the files in which they stand, and servers that speak TLS.
//!
//! In: names. Out: certificates and keys in files of their own, and the options by which a Redis
//! uses them. Owner of a temporary directory, which is gone with the test.

#![allow(
    clippy::new_without_default,
    reason = "what is made here is new each time"
)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// The name in every server's certificate. No machine is called so.
pub const NAME: &str = "redis.test";

/// Files that are gone with the test.
#[derive(Debug)]
pub struct Files(tempfile::TempDir);

impl Files {
    /// None yet.
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    /// Where a file of this name is or would be.
    pub fn path(&self, name: &str) -> String {
        self.at(name).to_string_lossy().into_owned()
    }

    /// Writes a file and returns where it is.
    pub fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.at(name), text).expect("a file in a directory of the test");
        self.path(name)
    }

    fn at(&self, name: &str) -> PathBuf {
        Path::new(self.0.path()).join(name)
    }
}

/// Who signs certificates, and what it signed.
pub struct Authority {
    /// Its own certificate.
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// One that nobody trusts yet, with a name of its own: of two with one name, the wrong one
    /// would be told for a bad signature instead of as unknown.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(
            DnType::CommonName,
            format!("authority {number} of this test"),
        );
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let issuer = Issuer::new(params, key);
        Self { pem, issuer }
    }

    /// Its own key.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Certificate and key for a name.
    pub fn sign(&self, name: &str) -> (String, String) {
        self.sign_as(name, |_| ())
    }

    /// The same with something else in the certificate.
    pub fn sign_as(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }
}

/// Certificate and key that signed itself and calls itself a CA, as `openssl req -x509` makes it.
pub fn self_made(name: &str) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

/// One certificate for all servers of a test, and who signed it.
#[derive(Debug)]
pub struct Encryption {
    /// Where the certificates are; a test may add files of its own.
    pub files: Files,
}

impl Encryption {
    /// A certificate for [`NAME`], by an authority of its own.
    pub fn new() -> Self {
        let (files, authority) = (Files::new(), Authority::new());
        let (certificate, key) = authority.sign(NAME);
        files.write("ca.pem", &authority.pem);
        files.write("server.pem", &certificate);
        files.write("server.key", &key);
        Self { files }
    }

    /// Who signed.
    pub fn ca_file(&self) -> String {
        self.files.path("ca.pem")
    }

    /// What a server is told so that it speaks TLS on this port, and with other servers always.
    /// Its usual port stays what it was, for the test itself.
    pub fn options(&self, port: u16) -> [(&'static str, String); 7] {
        [
            ("tls-port", port.to_string()),
            ("tls-cert-file", self.files.path("server.pem")),
            ("tls-key-file", self.files.path("server.key")),
            ("tls-ca-cert-file", self.ca_file()),
            ("tls-auth-clients", "no".to_owned()),
            ("tls-replication", "yes".to_owned()),
            ("tls-cluster", "yes".to_owned()),
        ]
    }
}
