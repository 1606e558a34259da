//! `[[api.clients]]`: the callers of the API, as the file lists them.
//!
//! In: the list, as the file has it. Out: an [`ApiClient`] each, or every fault with its place. No hash
//! is repeated in a fault. Bounds: those of [`crate::config::api_clients`].

use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml::value::{Date, Datetime, Offset, Time};

use crate::config::api_clients::{
    ApiClient, CLIENTS_MAX, ClientApp, HASHES_MAX, KEYS_NAME, KeyHash, NAME_BYTES_MAX,
    PATTERNS_MAX, Scope, Scopes, hash_of,
};
use crate::config::faults::{Faults, did_you_mean};
use crate::config::file_text::{File, in_order};
use crate::config::values::{Origin, Values};
use fanfare_protocol::ids::{App, NodeId};
use fanfare_protocol::pattern;

/// The path of the list.
pub const PATH: &str = "api.clients";

/// The fields of an entry with what they mean.
pub const FIELDS: [(&str, &str); 6] = [
    (
        "name",
        "As the audit names it: 1 to 64 characters of A-Z a-z 0-9 . _ -.",
    ),
    (
        "key_sha256",
        "The SHA-256 of its key as 64 hexadecimal digits, or a list of two while the key is changed. fanfare api-key new makes a key.",
    ),
    (
        "app",
        "Its app, default if left out; * for all, each call names one by the header Fanfare-App.",
    ),
    (
        "scopes",
        "What it may ask for: a list of publish, read, users, queue, admin.",
    ),
    (
        "topics",
        "Patterns of the topics that it may name, as in the claim can; a user counts as the inbox @USER. Left out: all of its app.",
    ),
    (
        "expires",
        "When its keys end: a date and time such as 2027-01-01T00:00:00Z, or unix seconds. Left out: never.",
    ),
];

/// Reads the list.
pub fn read(
    file: &File<'_>,
    list: &Spanned<DeValue<'_>>,
    values: &mut Values,
    faults: &mut Faults,
) {
    let faults_before = faults.0.len();
    let tables = list.get_ref().as_array().map(|items| {
        let items = items.iter();
        let tables = items.map(|item| Some((item.span(), item.get_ref().as_table()?)));
        tables.collect::<Option<Vec<_>>>()
    });
    let Some(Some(tables)) = tables else {
        let what = format!("{PATH} is no list of tables");
        let remedy = "write [[api.clients]] once for each client";
        faults.push(file.place(list.span()), what, remedy);
        values.refuse(PATH.to_owned());
        return;
    };
    if tables.len() > CLIENTS_MAX {
        let what = format!("{PATH} has {} entries", tables.len());
        let remedy = format!("give at most {CLIENTS_MAX}");
        faults.push(file.place(list.span()), what, remedy);
    }
    let (mut names, mut hashes) = (BTreeSet::new(), BTreeSet::new());
    for (index, (span, table)) in tables.into_iter().enumerate() {
        let place = file.place(span);
        let mut entry = Entry {
            file,
            path: format!("{PATH}[{index}]"),
            place: place.clone(),
            faults,
        };
        let Some(client) = entry.client(table) else {
            continue;
        };
        if !names.insert(client.name.clone()) {
            let what = format!("{}.name is taken by an earlier client", entry.path);
            faults.push(&place, what, "give each client its own name");
        } else if client.hashes.iter().any(|hash| !hashes.insert(*hash)) {
            let what = format!("{}.key_sha256 is there twice", entry.path);
            let remedy = "give each client keys of its own, and each key once";
            faults.push(&place, what, remedy);
        } else {
            values.add_api_client(client, Origin::File(place));
        }
    }
    if faults.0.len() > faults_before {
        values.refuse(PATH.to_owned());
    }
}

/// One entry while it is read.
struct Entry<'a, 'f> {
    file: &'a File<'a>,
    /// `api.clients[0]`, for faults.
    path: String,
    place: String,
    faults: &'f mut Faults,
}

impl Entry<'_, '_> {
    fn client(&mut self, table: &DeTable<'_>) -> Option<ApiClient> {
        let faults_before = self.faults.0.len();
        let (mut name, mut hashes, mut scopes) = (None, None, None);
        let (mut app, mut topics, mut expires) = (ClientApp::One(App::default_app()), None, None);
        for (field, value) in in_order(table) {
            let at = self.file.place(value.span());
            match field.get_ref().as_ref() {
                "name" => name = self.name(value.get_ref(), &at),
                "key_sha256" => hashes = self.hashes(value.get_ref(), &at),
                "app" => app = self.app(value.get_ref(), &at).unwrap_or(app),
                "scopes" => scopes = self.scopes(value.get_ref(), &at),
                "topics" => topics = self.topics(value.get_ref(), &at),
                "expires" => expires = self.expires(value.get_ref(), &at),
                other => {
                    let fields = FIELDS.iter();
                    let fields = fields.map(|(known, _)| format!("{}.{known}", self.path));
                    let what = format!("{}.{other}", self.path);
                    let remedy = did_you_mean(&what, fields);
                    let place = self.file.place(field.span());
                    self.faults.push(place, format!("{what} is no key"), remedy);
                }
            }
        }
        for (field, remedy) in [
            ("name", "give it a name"),
            ("key_sha256", "make a key by fanfare api-key new"),
            ("scopes", SCOPES_REMEDY),
        ] {
            if !table.iter().any(|(there, _)| there.get_ref() == field) {
                let what = format!("{} has no {field}", self.path);
                self.faults.push(&self.place, what, remedy);
            }
        }
        if self.faults.0.len() > faults_before {
            return None;
        }
        Some(ApiClient {
            name: name?,
            hashes: hashes?,
            app,
            scopes: scopes?,
            topics,
            expires,
        })
    }

    fn refuse<T>(&mut self, at: &str, what: &str, remedy: &str) -> Option<T> {
        let what = format!("{}.{what}", self.path);
        self.faults.push(at, what, remedy);
        None
    }

    fn name(&mut self, value: &DeValue<'_>, at: &str) -> Option<String> {
        match value.as_str() {
            Some(KEYS_NAME) => {
                let what = "name cannot be api.keys, which the keys of that list have";
                self.refuse(at, what, "give it another one")
            }
            Some(name) if NodeId::new(name).is_ok() && name.len() <= NAME_BYTES_MAX => {
                Some(name.to_owned())
            }
            _ => {
                let remedy = "give 1 to 64 characters of A-Z a-z 0-9 . _ -, for example billing";
                self.refuse(at, "name cannot be this", remedy)
            }
        }
    }

    fn hashes(&mut self, value: &DeValue<'_>, at: &str) -> Option<Vec<KeyHash>> {
        let texts = match value {
            DeValue::String(text) => Some(vec![text.to_string()]),
            other => texts(other),
        };
        let hashes: Option<Vec<_>> =
            texts.and_then(|texts| texts.iter().map(|text| hash(text)).collect());
        let hashes = hashes.filter(|hashes| (1..=HASHES_MAX).contains(&hashes.len()));
        let is_known = |hash: &KeyHash| KNOWN.iter().any(|key| hash_of(key) == *hash);
        if hashes.iter().flatten().any(is_known) {
            let what = "key_sha256 is the hash of a key that everybody knows: an empty text, a line break, \
                        or dev";
            let remedy =
                "the key was not there when it was hashed; make one by fanfare api-key new";
            return self.refuse(at, what, remedy);
        }
        if hashes.is_none() {
            let remedy = "give the SHA-256 of the key as 64 hexadecimal digits, or a list of one or \
                          two: fanfare api-key new prints it";
            return self.refuse(
                at,
                "key_sha256 cannot be this value, which is hidden",
                remedy,
            );
        }
        hashes
    }

    fn app(&mut self, value: &DeValue<'_>, at: &str) -> Option<ClientApp> {
        match value.as_str() {
            Some("*") => return Some(ClientApp::Any),
            // It may be in no file: whether there is such an app is known when it calls.
            Some(name) => {
                if let Ok(app) = App::new(name) {
                    return Some(ClientApp::One(app));
                }
            }
            None => {}
        }
        let what = "app cannot be this";
        let remedy = "give the name of an app, 1 to 32 of a-z 0-9 _ -, or * for all apps";
        self.refuse(at, what, remedy)
    }

    fn scopes(&mut self, value: &DeValue<'_>, at: &str) -> Option<Scopes> {
        let texts = texts(value).filter(|texts| !texts.is_empty());
        let Some(texts) = texts else {
            return self.refuse(at, "scopes is no list, or empty", SCOPES_REMEDY);
        };
        let mut scopes = Vec::new();
        for text in texts {
            match Scope::of(&text) {
                Some(scope) => scopes.push(scope),
                None => {
                    let what = format!("scopes cannot have {text:?}");
                    return self.refuse(at, &what, SCOPES_REMEDY);
                }
            }
        }
        Some(scopes.into_iter().collect())
    }

    fn topics(&mut self, value: &DeValue<'_>, at: &str) -> Option<Vec<String>> {
        let Some(patterns) = texts(value) else {
            let remedy = "give a list of patterns in quotes, or leave it out for all topics";
            return self.refuse(at, "topics is no list of texts", remedy);
        };
        if patterns.is_empty() || patterns.len() > PATTERNS_MAX {
            let what = format!("topics has {} patterns", patterns.len());
            let remedy = format!("give 1 to {PATTERNS_MAX}, or leave it out for all topics");
            return self.refuse(at, &what, &remedy);
        }
        if let Some(bad) = patterns.iter().find(|one| !pattern::is_sound(one)) {
            let what = format!("topics cannot have {bad:?}: {}", pattern::SOUND);
            return self.refuse(at, &what, "give patterns such as orders:**, @* and news");
        }
        Some(patterns)
    }

    fn expires(&mut self, value: &DeValue<'_>, at: &str) -> Option<u64> {
        let seconds = match value {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            DeValue::Datetime(time) => unix_seconds(time),
            _ => None,
        };
        if seconds.is_none() {
            let remedy = "give a date and time with its offset, without quotes, such as \
                          2027-01-01T00:00:00Z, or unix seconds";
            return self.refuse(at, "expires is no such time", remedy);
        }
        seconds
    }
}

/// What to give as scopes.
const SCOPES_REMEDY: &str = "give a list of publish, read, users, queue and admin";

fn texts(value: &DeValue<'_>) -> Option<Vec<String>> {
    let items = value.as_array()?.iter();
    let texts = items.map(|item| Some(item.get_ref().as_str()?.to_owned()));
    texts.collect()
}

/// What is hashed where a variable was not set, or that of `--dev`.
const KNOWN: [&[u8]; 5] = [b"", b"\n", b"\r\n", b"dev", b"dev\n"];

fn hash(text: &str) -> Option<KeyHash> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = KeyHash::default();
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(hash)
}

/// The unix second of a moment; `None` where it is before 1970, or no moment because its date, its
/// time or its offset is missing.
fn unix_seconds(moment: &Datetime) -> Option<u64> {
    let (Date { year, month, day }, time) = (moment.date?, moment.time?);
    let Time {
        hour,
        minute,
        second,
        ..
    } = time;
    let minutes = match moment.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let month = time::Month::try_from(month).ok()?;
    let date = time::Date::from_calendar_date(i32::from(year), month, day).ok()?;
    let at = date
        .with_hms(hour, minute, second.unwrap_or(0).min(59))
        .ok()?;
    u64::try_from(at.assume_utc().unix_timestamp() - 60 * minutes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_with_its_offset() {
        let rows = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2027-01-01T00:00:00Z", Some(1_798_761_600)),
            ("2027-01-01T02:00:00+02:00", Some(1_798_761_600)),
            ("2026-12-31T19:30:00-04:30", Some(1_798_761_600)),
            ("2027-01-01T00:00:00", None),
            ("2027-01-01", None),
            ("1969-12-31T23:59:59Z", None),
        ];
        for (text, wanted) in rows {
            let moment = text.parse().expect("TOML has such moments");
            assert_eq!(unix_seconds(&moment), wanted, "{text}");
        }
    }

    #[test]
    fn a_hash_has_64_hexadecimal_digits() {
        let good = "00ff".repeat(16);
        assert_eq!(hash(&good).map(|hash| (hash[0], hash[1])), Some((0, 255)));
        for bad in ["", "00", &good[1..], &format!("{good}0"), &"+f".repeat(32)] {
            assert_eq!(hash(bad), None, "{bad}");
        }
    }
}
