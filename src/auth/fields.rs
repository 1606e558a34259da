//! The claims of a token as fields: each of its type, and none twice.
//!
//! In: the bytes of the middle part. Out: values, or the [`TokenError`] that names the claim. Pure.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::error::TokenError;
use fanfare_protocol::form::Encoding;
use fanfare_protocol::raw::{Fields, Raw, each_field};

/// The claims that are read.
const CLAIMS: [&str; 11] = [
    "sub", "exp", "nbf", "iat", "jti", "iss", "aud", "app", "info", "can", "topic",
];

/// The last second of the year 9999. A larger number is no time in seconds (milliseconds are
/// the usual mistake) and would overflow in arithmetic.
const SECONDS_MAX: f64 = 253_402_300_799.0;

/// What claims that nobody has verified say of who may have signed them.
#[derive(Debug, Default)]
pub(super) struct Origin<'a> {
    /// `iss`.
    pub(super) issuer: Option<Cow<'a, str>>,
    /// `app`.
    pub(super) app: Option<Cow<'a, str>>,
}

impl<'a> Origin<'a> {
    /// Reads them. Claims that are no map name nothing: what is wrong with them is told when the
    /// signature is known to be right.
    ///
    /// # Errors
    /// An `app` that is there twice or is no text chooses no keys.
    pub(super) fn read(payload: &'a [u8]) -> Result<Self, TokenError> {
        let Ok(fields) = Fields::read(Encoding::Json, payload, &["iss", "app"]) else {
            return Ok(Self::default());
        };
        if fields.repeated().contains(&"app") {
            return Err(TokenError::Twice("app"));
        }
        let app = fields.get("app").map(|app| {
            app.text().ok_or(TokenError::Claim {
                claim: "app",
                must: "text",
            })
        });
        let issuer = fields.get("iss").and_then(|issuer| issuer.text());
        Ok(Self {
            issuer,
            app: app.transpose()?,
        })
    }
}

/// A text claim of a configured name.
pub(super) fn other_text(payload: &[u8], wanted: &str) -> Result<String, TokenError> {
    let mut found = Vec::new();
    let read = each_field(Encoding::Json, payload, |name, value| {
        if name == wanted {
            found.push(value.text().map(Cow::into_owned));
        }
    });
    match (read, found.as_slice()) {
        (Ok(()), [Some(text)]) => Ok(text.clone()),
        _ => Err(TokenError::NoUser),
    }
}

pub(super) fn decode_part(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::NotJwt)
}

/// The claims of a token whose signature is valid.
pub(super) struct ClaimFields<'a>(Fields<'a>);

impl<'a> ClaimFields<'a> {
    pub(super) fn read(payload: &'a [u8]) -> Result<Self, TokenError> {
        let fields =
            Fields::read(Encoding::Json, payload, &CLAIMS).map_err(|_| TokenError::ClaimsNotMap)?;
        match fields.repeated().first() {
            Some(name) => Err(TokenError::Twice(name)),
            None => Ok(Self(fields)),
        }
    }

    pub(super) fn get(&self, claim: &'static str) -> Option<Raw<'a>> {
        self.0.get(claim)
    }

    pub(super) fn text(&self, claim: &'static str) -> Result<Option<Cow<'a, str>>, TokenError> {
        let must = "text";
        self.get(claim)
            .map(|value| value.text().ok_or(TokenError::Claim { claim, must }))
            .transpose()
    }

    /// A time. A fraction of a second is cut off, because RFC 7519 allows one.
    pub(super) fn seconds(&self, claim: &'static str) -> Result<Option<u64>, TokenError> {
        let must = "a number of seconds since 1970";
        let Some(number) = self.json::<f64>(claim) else {
            return Ok(None);
        };
        match number {
            Ok(seconds) if (0.0..=SECONDS_MAX).contains(&seconds) => Ok(Some(seconds as u64)),
            _ => Err(TokenError::Claim { claim, must }),
        }
    }

    pub(super) fn json<T: serde::Deserialize<'a>>(
        &self,
        claim: &'static str,
    ) -> Option<Result<T, serde_json::Error>> {
        let json = self.get(claim)?.json()?;
        Some(serde_json::from_str(json))
    }
}
