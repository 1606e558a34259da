//! Signatures of enquiries, as Standard Webhooks 1.0 says.
//!
//! In: secrets, and what is sent. Out: the three headers. Pure. While a secret is rotated the enquiries carry a
//! signature by each.

use ring::hmac;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config::Secret;
use crate::config::authorizer::secret_bytes;

/// The keys of one authorizer.
pub struct SigningKeys(Vec<hmac::Key>);

impl SigningKeys {
    /// The keys of these secrets. Those that are none were refused when they were read.
    #[must_use]
    pub fn new(secrets: &[Secret]) -> Self {
        let bytes = secrets
            .iter()
            .filter_map(|secret| secret_bytes(&secret.0).ok());
        Self(
            bytes
                .map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
                .collect(),
        )
    }

    /// `webhook-signature` of a body with this `webhook-id` and `webhook-timestamp` (unix seconds).
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let head = format!("{id}.{timestamp}.");
        let signatures = self.0.iter().map(|key| {
            let mut context = hmac::Context::with_key(key);
            context.update(head.as_bytes());
            context.update(body);
            format!("v1,{}", STANDARD.encode(context.sign()))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

impl std::fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKeys({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification, version 1.0.
    #[test]
    fn the_example_of_the_specification_is_signed_as_it_says() {
        let secret = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let keys = SigningKeys::new(std::slice::from_ref(&secret));
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let signed = keys.sign(id, 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn two_secrets_make_two_signatures() {
        let one = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let other = Secret(format!("whsec_{}", STANDARD.encode([7; 24])));
        let sign = |secrets: &[Secret]| SigningKeys::new(secrets).sign("a", 1, b"{}");
        let both = sign(&[one.clone(), other.clone()]);
        assert_eq!(both, format!("{} {}", sign(&[one]), sign(&[other])));
    }
}
