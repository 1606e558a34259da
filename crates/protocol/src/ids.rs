//! Names and positions: the words in which every other module speaks.
//!
//! In: text from clients, tokens and configuration. Out: values that are valid by construction,
//! so that a name that reaches Redis can steer no key and no slot. Cheap to clone (one reference
//! count) and to compare. Bounded by the lengths of [`TOPIC_BYTES_MAX`] and [`USER_BYTES_MAX`].

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use crate::priority::Priority;

/// Longest topic name, in bytes. Part of the wire contract.
pub const TOPIC_BYTES_MAX: usize = 200;
/// Longest user name, in bytes: one less than a topic, because the inbox is `@USER`.
pub const USER_BYTES_MAX: usize = 199;
/// Longest app name, in bytes.
pub const APP_BYTES_MAX: usize = 32;
/// Longest node name, in bytes.
pub const NODE_BYTES_MAX: usize = 64;

/// Why a name was refused. The text is meant for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no bytes.
    #[error("the name is empty")]
    Empty,
    /// The name is longer than its kind allows.
    #[error("the name is longer than {0} bytes")]
    TooLong(usize),
    /// A byte outside the allowed set.
    #[error("the name has a character that is not allowed here")]
    Character,
}

/// A tenant: `[a-z0-9_-]{1,32}`. Every other name lives inside one app.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct App(Arc<str>);

impl App {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`NameError`] when the name is empty, over [`APP_BYTES_MAX`] or has another character.
    pub fn new(name: &str) -> Result<Self, NameError> {
        check(
            name,
            APP_BYTES_MAX,
            |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'),
        )?;
        Ok(Self(name.into()))
    }

    /// The first app, `default`.
    #[must_use]
    pub fn default_app() -> Self {
        // Asked for by each call of the API: it takes no memory.
        static DEFAULT: LazyLock<Arc<str>> = LazyLock::new(|| "default".into());
        Self(Arc::clone(&DEFAULT))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for App {
    /// The name, by which a map of apps is asked.
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

/// Who a session belongs to: 1 to 199 bytes of printable ASCII without space, `{`, `}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct User(Arc<str>);

impl User {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`NameError`] when the name is empty, over [`USER_BYTES_MAX`] or has another character.
    pub fn new(name: &str) -> Result<Self, NameError> {
        check(name, USER_BYTES_MAX, is_user_byte)?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which family a topic belongs to; it decides who may join and publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicKind {
    /// What sessions join by name.
    Plain,
    /// `@USER`: one user's inbox.
    Inbox,
    /// `@`: every session of the app.
    Everyone,
    /// `%T`: the members of topic T. In no client's vocabulary.
    Presence,
}

/// A topic inside its app, kept as `app:name` in one shared string.
///
/// The app has no `:`, so the first one parts the two. Its order and hash are those of the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Checks a topic name as a client or an API caller gives it: a plain topic, an inbox
    /// (`@USER`) or everyone (`@`).
    ///
    /// # Errors
    /// [`NameError`] when the name is empty, too long, or has a character outside
    /// `A-Z a-z 0-9 _ - . : / = , ~ #` (for an inbox: outside those of [`User`]).
    pub fn new(app: &App, name: &str) -> Result<Self, NameError> {
        match name.strip_prefix('@') {
            Some("") => {}
            Some(user) => check(user, USER_BYTES_MAX, is_user_byte)?,
            None => check(name, TOPIC_BYTES_MAX, is_topic_byte)?,
        }
        Ok(Self::join(app, "", name))
    }

    /// The inbox of a user.
    #[must_use]
    pub fn inbox(app: &App, user: &User) -> Self {
        Self::join(app, "@", user.as_str())
    }

    /// The topic that every session of the app belongs to.
    #[must_use]
    pub fn everyone(app: &App) -> Self {
        Self::join(app, "", "@")
    }

    /// The topic of this topic's members, `%T`.
    #[must_use]
    pub fn presence(&self) -> Self {
        let (app, name) = self.parts();
        Self(format!("{app}:%{name}").into())
    }

    /// The topic whose members this presence topic carries; `None` for other kinds.
    #[must_use]
    pub fn presence_of(&self) -> Option<Self> {
        let (app, name) = self.parts();
        let name = name.strip_prefix('%')?;
        Some(Self(format!("{app}:{name}").into()))
    }

    /// What nodes hear when something new waits in the queue of a partition: no topic of any app, so
    /// that nobody can name it.
    #[must_use]
    pub fn bell(partition: u32) -> Self {
        Self(format!("{{{partition}}}:bell").into())
    }

    /// The partition whose bell this is; `None` for topics of apps.
    #[must_use]
    pub fn bell_of(&self) -> Option<u32> {
        self.0
            .strip_prefix('{')?
            .strip_suffix("}:bell")?
            .parse()
            .ok()
    }

    /// Reads back what [`Self::qualified`] gave, for keys and messages made by another node.
    /// Returns `None` where no node would have written that text.
    #[must_use]
    pub fn from_qualified(text: &str) -> Option<Self> {
        let (app, name) = text.split_once(':')?;
        let app = App::new(app).ok()?;
        match name.strip_prefix('%') {
            Some(of) => Some(Self::new(&app, of).ok()?.presence()),
            None => Self::new(&app, name).ok(),
        }
    }

    /// `app:name`, the form that stands in keys, between `{` and `}`.
    #[must_use]
    pub fn qualified(&self) -> &str {
        &self.0
    }

    /// The name without its app, as clients see it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.parts().1
    }

    /// The app that the topic lives in.
    #[must_use]
    pub fn app(&self) -> &str {
        self.parts().0
    }

    /// Which family the topic belongs to.
    #[must_use]
    pub fn kind(&self) -> TopicKind {
        match self.name().as_bytes() {
            [b'@'] => TopicKind::Everyone,
            [b'@', ..] => TopicKind::Inbox,
            [b'%', ..] => TopicKind::Presence,
            _ => TopicKind::Plain,
        }
    }

    /// The user whose inbox this is; `None` for other kinds.
    #[must_use]
    pub fn inbox_user(&self) -> Option<&str> {
        match self.kind() {
            TopicKind::Inbox => Some(&self.name()[1..]),
            _ => None,
        }
    }

    /// The part before the first `:`, or `default`; `@` for inboxes and everyone.
    #[must_use]
    pub fn namespace(&self) -> &str {
        match self.kind() {
            TopicKind::Inbox | TopicKind::Everyone => "@",
            TopicKind::Presence => "%",
            TopicKind::Plain => split_once(self.name()).map_or("default", |(ns, _)| ns),
        }
    }

    /// The partition among `partitions_count` that this topic belongs to: CRC-32 (IEEE) of
    /// `app:topic`. Backends compute it too; test vectors stand in the docs. A presence topic
    /// lives where its topic lives.
    #[must_use]
    pub fn partition(&self, partitions_count: u32) -> u32 {
        if let Some(partition) = self.bell_of() {
            return partition;
        }
        let (app, name) = self.parts();
        let hash = match name.strip_prefix('%') {
            None => crc32fast::hash(self.0.as_bytes()),
            Some(name) => {
                let mut hash = crc32fast::Hasher::new();
                hash.update(app.as_bytes());
                hash.update(b":");
                hash.update(name.as_bytes());
                hash.finalize()
            }
        };
        hash % partitions_count.max(1)
    }

    fn parts(&self) -> (&str, &str) {
        split_once(&self.0).unwrap_or(("", &self.0))
    }

    fn join(app: &App, prefix: &str, name: &str) -> Self {
        Self([app.as_str(), ":", prefix, name].concat().into())
    }
}

impl std::borrow::Borrow<str> for Topic {
    /// `app:topic`, by which a map of topics is asked.
    fn borrow(&self) -> &str {
        self.qualified()
    }
}

/// Where a publication stands in its topic: the id of a Redis Stream entry,
/// `MILLISECONDS-SEQUENCE`. Opaque to clients, ordered the same on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position {
    /// Unix milliseconds as Redis counted them when the entry was made, or later.
    pub ms: u64,
    /// Parts entries of one millisecond; starts at a random 32-bit number.
    pub seq: u64,
}

impl Position {
    /// `0-0`: before everything.
    pub const ZERO: Self = Self { ms: 0, seq: 0 };

    /// `0-1`: where a topic begins on which nothing was published yet, for a session that may not
    /// ask for everything (`0-0`). It resumes as any other position does.
    pub const UNWRITTEN: Self = Self { ms: 0, seq: 1 };
}

/// The text is no canonical position: two decimal numbers within 64 bits, without leading
/// zeros, parted by `-`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a position: expected MILLISECONDS-SEQUENCE, for example 1732190000000-7")]
pub struct PositionError;

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        fn number(part: &str) -> Result<u64, PositionError> {
            let canonical = part == "0" || !part.starts_with('0');
            if !canonical || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(PositionError);
            }
            part.parse().map_err(|_| PositionError)
        }
        let (ms, seq) = text.split_once('-').ok_or(PositionError)?;
        Ok(Self {
            ms: number(ms)?,
            seq: number(seq)?,
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One socket (or event stream), named at random so that no two nodes give the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u128);

impl SessionId {
    /// A new random name of 128 bits.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for SessionId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NameError::Character);
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| NameError::Character)
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A node's name: 1 to 64 bytes of `A-Z a-z 0-9 . _ -`. The ring hashes names.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`NameError`] when the name is empty, over [`NODE_BYTES_MAX`] or has another character.
    pub fn new(name: &str) -> Result<Self, NameError> {
        check(name, NODE_BYTES_MAX, |b| {
            b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')
        })?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `node-id~incarnation`: which life of which node something in Redis belongs to. The
/// incarnation is Redis TIME in microseconds when it was taken; a higher one is newer.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// The node's name.
    pub node: NodeId,
    /// When this life began, in microseconds of Redis time.
    pub incarnation: u64,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}", self.node, self.incarnation)
    }
}

impl FromStr for Owner {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (node, incarnation) = text.rsplit_once('~').ok_or(NameError::Character)?;
        Ok(Self {
            node: NodeId::new(node)?,
            incarnation: incarnation.parse().map_err(|_| NameError::Character)?,
        })
    }
}

fn check(name: &str, bytes_max: usize, allowed: fn(u8) -> bool) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > bytes_max {
        return Err(NameError::TooLong(bytes_max));
    }
    if !name.bytes().all(allowed) {
        return Err(NameError::Character);
    }
    Ok(())
}

/// What stands before and behind the first `:`. Names are short: looking byte by byte is several
/// times quicker than the standard library's search.
fn split_once(text: &str) -> Option<(&str, &str)> {
    let at = text.bytes().position(|byte| byte == b':')?;
    Some((&text[..at], &text[at + 1..]))
}

fn is_user_byte(b: u8) -> bool {
    b.is_ascii_graphic() && !matches!(b, b'{' | b'}')
}

fn is_topic_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(
            b,
            b'_' | b'-' | b'.' | b':' | b'/' | b'=' | b',' | b'~' | b'#'
        )
}

/// Text, debug and serde forms that are the inner string's own.
macro_rules! as_text {
    ($($name:ty => $text:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.$text())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.$text())
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.$text())
            }
        }
    )*};
}
as_text!(App => as_str, User => as_str, NodeId => as_str, Topic => name);

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
