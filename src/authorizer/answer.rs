//! What an authorizer answers, checked like what a client sends.
//!
//! In: the body of an answer, and what was asked. Out: an [`Answer`], or why it cannot be used. Pure. Bounds:
//! [`BYTES_MAX`] of the body, [`REASON_BYTES_MAX`] of a reason, and the [`Limits`] of what it grants. A field
//! that is there twice, or has another type, makes the whole answer one that cannot be used: what is understood
//! in part grants nothing.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::enquiry::{Enquiry, Kind};
use crate::auth::rights::Rights;
use crate::config::Config;
use fanfare_protocol::data::Data;
use fanfare_protocol::form::Encoding;
use fanfare_protocol::ids::User;
use fanfare_protocol::info::Info;
use fanfare_protocol::raw::{Fields, Raw};

/// Longest answer, in bytes.
pub const BYTES_MAX: usize = 64 * 1024;
/// Longest reason that a client is told, in bytes.
pub const REASON_BYTES_MAX: usize = 200;

const FIELDS: [&str; 9] = [
    "allow", "reason", "expires", "user", "can", "info", "topic", "data", "key",
];

/// What a part of an answer may have.
#[derive(Debug, Clone)]
pub struct Limits {
    /// `session.message_bytes_max`.
    pub data_bytes_max: usize,
    /// `session.key_bytes_max`.
    pub key_bytes_max: usize,
    /// `session.info_bytes_max`.
    pub info_bytes_max: usize,
    /// `auth.token_bytes_max`, for `can`.
    pub can_bytes_max: usize,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Self {
            data_bytes_max: config.session.message_bytes_max,
            key_bytes_max: config.session.key_bytes_max,
            info_bytes_max: config.session.info_bytes_max,
            can_bytes_max: config.auth.token_bytes_max,
        }
    }
}

/// What it allows, and how.
#[derive(Debug, Default, PartialEq)]
pub struct Granted {
    /// When it ends, in unix seconds.
    pub expires: Option<u64>,
    /// Who the session is.
    pub user: Option<User>,
    /// What it may do.
    pub can: Option<Rights>,
    /// What is shown of it.
    pub info: Option<Info>,
    /// What is published instead.
    pub data: Option<Data>,
    /// The key that it gets instead.
    pub key: Option<String>,
}

/// An answer that can be used.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// Yes.
    Allowed(Box<Granted>),
    /// No, and why, where that can be told.
    Denied(Option<String>),
}

/// Why an answer cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// It has not the form of one.
    Garbage(&'static str),
    /// It grants what it must not.
    Lying(&'static str),
}

impl Unusable {
    /// For people.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Garbage(why) | Self::Lying(why) => why,
        }
    }
}

/// Reads the answer to an enquiry.
///
/// # Errors
/// [`Unusable`], with what is wrong.
pub fn read(
    body: &[u8],
    enquiry: &Enquiry,
    limits: &Limits,
    now: SystemTime,
) -> Result<Answer, Unusable> {
    let garbage = Unusable::Garbage;
    let fields = Fields::read(Encoding::Json, body, &FIELDS)
        .map_err(|_| garbage("the answer is no JSON map"))?;
    if !fields.repeated().is_empty() {
        return Err(garbage("a field is there twice"));
    }
    let get = |name| fields.get(name).filter(|raw: &Raw<'_>| !raw.is_null());
    let allow = get("allow").and_then(Raw::boolean);
    if !allow.ok_or(garbage("`allow` is not true or false"))? {
        let reason = get("reason").and_then(Raw::text).and_then(told);
        return Ok(Answer::Denied(reason));
    }
    check_kind(enquiry, &fields)?;
    let mut granted = Granted {
        expires: expires(get("expires"), enquiry.life_max, now)?,
        ..Granted::default()
    };
    match enquiry.kind {
        Kind::Connect => identity(enquiry, &get, limits, &mut granted)?,
        Kind::Subscribe => {}
        // `data` may be null, which is a value like others.
        Kind::Publish => replaced(fields.get("data"), get("key"), limits, &mut granted)?,
    }
    Ok(Answer::Allowed(Box::new(granted)))
}

/// A reason that is short and one line.
fn told(reason: Cow<'_, str>) -> Option<String> {
    let is_fit =
        (1..=REASON_BYTES_MAX).contains(&reason.len()) && !reason.contains(char::is_control);
    is_fit.then(|| reason.into_owned())
}

/// Nothing is granted that was not asked for.
fn check_kind(enquiry: &Enquiry, fields: &Fields<'_>) -> Result<(), Unusable> {
    let has = |name| fields.get(name).is_some();
    let text = |name| fields.get(name).and_then(Raw::text);
    if has("topic") && text("topic").as_deref() != enquiry.topic.as_deref() {
        return Err(Unusable::Lying("it names another topic"));
    }
    if has("user") && enquiry.kind != Kind::Connect {
        return Err(Unusable::Lying("`user` is granted by `connect` only"));
    }
    if (has("can") || has("info")) && enquiry.kind != Kind::Connect {
        return Err(Unusable::Lying(
            "`can` and `info` are granted by `connect` only",
        ));
    }
    if (has("data") || has("key")) && enquiry.kind != Kind::Publish {
        return Err(Unusable::Lying(
            "`data` and `key` are replaced by `publish` only",
        ));
    }
    Ok(())
}

fn expires(
    raw: Option<Raw<'_>>,
    life_max: Duration,
    now: SystemTime,
) -> Result<Option<u64>, Unusable> {
    let Some(raw) = raw else {
        return Ok(None);
    };
    let seconds = raw.unsigned();
    let seconds = seconds.ok_or(Unusable::Garbage("`expires` is no whole number of seconds"))?;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    if Duration::from_secs(seconds) <= now {
        return Err(Unusable::Garbage("`expires` is past"));
    }
    if Duration::from_secs(seconds) > now.saturating_add(life_max) {
        return Err(Unusable::Garbage(
            "`expires` is later than auth.token_life_max_s allows",
        ));
    }
    Ok(Some(seconds))
}

fn identity<'a>(
    enquiry: &Enquiry,
    get: &impl Fn(&'static str) -> Option<Raw<'a>>,
    limits: &Limits,
    granted: &mut Granted,
) -> Result<(), Unusable> {
    let garbage = Unusable::Garbage;
    if let Some(raw) = get("user") {
        let name = raw.text().ok_or(garbage("`user` is no text"))?;
        let user = User::new(&name).map_err(|_| garbage("`user` cannot be the name of one"))?;
        if enquiry.user.as_ref().is_some_and(|known| *known != *name) {
            return Err(Unusable::Lying("it changes the user"));
        }
        granted.user = Some(user);
    }
    if let Some(json) = get("can").and_then(Raw::json) {
        if json.len() > limits.can_bytes_max {
            return Err(garbage("`can` is longer than auth.token_bytes_max"));
        }
        let rights = Rights::from_json(json);
        let why = "`can` is no map from operations to lists of patterns";
        granted.can = Some(rights.map_err(|_| garbage(why))?);
    }
    if let Some(raw) = get("info") {
        let info =
            Info::from_raw(raw).map_err(|_| garbage("`info` is no JSON that `data` may be"))?;
        if info.bytes_count() > limits.info_bytes_max {
            return Err(garbage("`info` is longer than session.info_bytes_max"));
        }
        granted.info = Some(info);
    }
    let has_user = enquiry.user.is_some() || granted.user.is_some();
    let Granted {
        expires, can, info, ..
    } = &*granted;
    if !has_user && (expires.is_some() || can.is_some() || info.is_some()) {
        return Err(garbage("`expires`, `can` and `info` need a `user`"));
    }
    Ok(())
}

fn replaced(
    data: Option<Raw<'_>>,
    key: Option<Raw<'_>>,
    limits: &Limits,
    granted: &mut Granted,
) -> Result<(), Unusable> {
    let garbage = Unusable::Garbage;
    if let Some(raw) = data {
        let data = raw.data();
        let data = data.map_err(|_| garbage("`data` is no JSON that a client may send"))?;
        if data.bytes().len() > limits.data_bytes_max {
            return Err(garbage("`data` is longer than session.message_bytes_max"));
        }
        granted.data = Some(data);
    }
    if let Some(raw) = key {
        let key = raw.text().ok_or(garbage("`key` is no text"))?;
        if key.is_empty() || key.len() > limits.key_bytes_max {
            return Err(garbage(
                "`key` is empty, or longer than session.key_bytes_max",
            ));
        }
        granted.key = Some(key.into_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
