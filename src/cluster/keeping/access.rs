//! Who gets in, as a part of the text by which nodes that differ notice: pure.
//!
//! In: the configuration, at the start and as it was read again. Out: values, in the order of their names
//! in the module above. Keys, names and lists are there as the first 32 bits of a SHA-256: enough to see
//! a difference, and no help to whoever guesses a long secret.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use crate::config::api_clients::hash_of;
use crate::config::issuer::{Issuer, TokenKey};
use crate::config::{Api, Auth, Secret};

/// Who gets in by a token.
pub(super) fn of_auth(auth: &Auth, read: &Auth) -> String {
    let digests = [
        // Where something stands in its list decides nothing.
        digest_of(read.keys.iter().map(key_text)),
        digest_of(read.issuers.iter().map(issuer_text)),
        digest(&format!("{:?}", read.issuer)),
        digest(&format!("{:?}", read.audience)),
        digest_of(auth.origins.iter().cloned()),
    ];
    let (life_s, leeway_s) = (read.token_life_max.as_secs(), read.leeway.as_secs());
    format!(
        "{life_s},{leeway_s},{},{}",
        auth.anonymous,
        digests.join(",")
    )
}

/// Who may call the API.
pub(super) fn of_api(api: &Api) -> String {
    let keys = api.keys.iter().chain(&api.file_keys);
    let keys = digest_of(keys.map(|Secret(key)| format!("{:?}", hash_of(key.as_bytes()))));
    let clients = digest_of(api.clients.iter().map(|client| format!("{client:?}")));
    format!("{keys},{clients}")
}

/// The beginning of the SHA-256 of a text.
fn digest(text: &str) -> String {
    let hash = Sha256::digest(text);
    let bytes = hash.iter().take(4);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

fn digest_of(texts: impl Iterator<Item = String>) -> String {
    let all: BTreeSet<_> = texts.collect();
    digest(&format!("{all:?}"))
}

fn key_text(key: &TokenKey) -> String {
    let TokenKey {
        id,
        algorithm,
        material: Secret(material),
    } = key;
    format!("{id:?} {algorithm} {material}")
}

fn issuer_text(issuer: &Issuer) -> String {
    let keys: BTreeSet<_> = issuer.keys.iter().map(key_text).collect();
    let rest = Issuer {
        keys: Vec::new(),
        ..issuer.clone()
    };
    format!("{rest:?} {keys:?}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cluster::keeping::{differences, said};
    use crate::config::Config;
    use crate::config::api_clients::ApiClient;

    fn told(mine: &str, theirs: &str) -> Vec<String> {
        let found = differences(mine, theirs).into_iter();
        found.map(|one| one.what).collect()
    }

    #[test]
    fn whoever_gets_in_elsewhere_is_seen_and_no_secret_is_said() {
        let defaults = crate::config::load::defaults();
        let key = |id: &str, secret: &str| TokenKey {
            id: Some(id.to_owned()),
            algorithm: "HS256".to_owned(),
            material: Secret(secret.to_owned()),
        };
        let with = |change: &dyn Fn(&mut Config)| {
            let mut read = defaults.clone();
            read.auth.keys = vec![key("a", "first"), key("b", "second")];
            read.api.keys = vec![Secret("operator".to_owned())];
            change(&mut read);
            said(&defaults, &read, std::iter::empty())
        };
        let mine = with(&|_| {});
        for secret in ["first", "second", "operator"] {
            assert!(!mine.contains(secret), "{mine}");
        }
        let reversed = with(&|config| config.auth.keys.reverse());
        assert_eq!(told(&mine, &reversed), [""; 0]);
        type Change = (&'static str, fn(&mut Config));
        let changes: [Change; 6] = [
            ("auth.keys (digest)", |c| {
                c.auth.keys[0].material = Secret("other".to_owned());
            }),
            ("auth.keys (digest)", |c| {
                c.auth.keys.pop();
            }),
            ("auth.audience (digest)", |c| {
                c.auth.audience = Some("x y,z".to_owned())
            }),
            ("auth.leeway_s", |c| {
                c.auth.leeway = Duration::from_secs(300)
            }),
            ("api.keys (digest)", |c| c.api.keys.clear()),
            ("api.clients (digest)", |c| {
                c.api.clients.push(ApiClient::with_key("k"));
            }),
        ];
        for (what, change) in changes {
            assert_eq!(told(&mine, &with(&change)), [what]);
        }
    }
}
