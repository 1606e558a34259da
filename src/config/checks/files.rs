//! Files that the configuration names: whether they are there and hold what they are named for.
//!
//! In: the paths among the values. Out: a fault at the place of each path whose file cannot be
//! used. They are read again whenever they are used; this is so that `config check` and a start
//! tell what would otherwise show at the first connection. No content is part of a fault.

use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::faults::Faults;
use crate::config::value::Value;
use crate::config::values::Values;

/// What a file is for.
#[derive(Clone, Copy)]
enum Holds {
    Password,
    Certificates,
    Key,
}

const FILES: [(&str, Holds); 8] = [
    ("redis.password_file", Holds::Password),
    ("redis.tls_ca_file", Holds::Certificates),
    ("redis.tls_certificate_file", Holds::Certificates),
    ("redis.tls_key_file", Holds::Key),
    ("telemetry.tls_ca_file", Holds::Certificates),
    ("telemetry.traces_tls_ca_file", Holds::Certificates),
    ("telemetry.logs_tls_ca_file", Holds::Certificates),
    ("telemetry.metrics_tls_ca_file", Holds::Certificates),
];

/// Tries each file that is named.
pub(super) fn check(values: &Values, faults: &mut Faults) {
    for (path, holds) in FILES {
        let Some(Value::Text(file)) = values.get(path).map(|setting| &setting.value) else {
            continue;
        };
        if let Err(why) = holds.read(Path::new(file))
            && !values.is_refused(path)
        {
            let what = format!("{path} names {file}, which cannot be used: {why}");
            faults.push(values.place(path), what, holds.remedy());
        }
    }
}

impl Holds {
    fn read(self, file: &Path) -> Result<(), String> {
        match self {
            Self::Password => password(file),
            Self::Certificates => certificates(file),
            Self::Key => {
                std::fs::read(file).map_err(|e| e.to_string())?;
                match PrivateKeyDer::from_pem_file(file) {
                    Ok(_) => Ok(()),
                    Err(_) => Err("there is no private key in it".to_owned()),
                }
            }
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Password => "name a file that holds the password and nothing else",
            Self::Certificates => "name a file with certificates as PEM",
            Self::Key => "name a file with a private key as PEM, without a passphrase",
        }
    }
}

/// Whether a file holds certificates, or why not.
pub(in crate::config) fn certificates(file: &Path) -> Result<(), String> {
    std::fs::read(file).map_err(|e| e.to_string())?;
    let all = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    match all.map(|all: Vec<_>| all.len()) {
        Ok(0) => Err("there is no certificate in it".to_owned()),
        Ok(_) => Ok(()),
        Err(_) => Err("it is not PEM".to_owned()),
    }
}

fn password(file: &Path) -> Result<(), String> {
    let bytes = std::fs::read(file).map_err(|e| e.to_string())?;
    let Ok(text) = String::from_utf8(bytes) else {
        return Err("it is not UTF-8 text".to_owned());
    };
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err("it is empty".to_owned()),
        text if text.starts_with('\u{feff}') => Err("it begins with a byte order mark".to_owned()),
        _ => Ok(()),
    }
}
