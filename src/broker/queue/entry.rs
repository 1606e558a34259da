//! What an entry of the queue carries, as bytes and as the fields of an `XADD`.
//!
//! In: a [`QueuedMessage`]. Out: its bytes and back; and the same of fields that a backend wrote itself.
//! The first byte says kind and version, as in a topic: what a release adds stands at the end of the
//! list, where older ones skip it. Pure. Bounds: [`FIELDS_MAX`] fields of an `XADD`; of what cannot be
//! read [`KEPT_BYTES_MAX`] bytes are kept, the longest names and values cut so that the others fit.

use bytes::Bytes;
use serde::Serialize;

use crate::broker::publication::{self, Growing, Publication, Raw, Unreadable};
use crate::broker::{Body, publication::decode as decode_body};
use crate::telemetry::fields::cut;
use fanfare_protocol::data::Data;
use fanfare_protocol::ids::{App, Position, Priority, Topic, User};

/// Kind and version of a message's bytes.
const MESSAGE_V1: u8 = 0x01;
/// Kind and version of fields that could not be read.
const FIELDS_V1: u8 = 0x02;
/// Most fields of an entry that a backend wrote.
pub const FIELDS_MAX: usize = 32;
/// Most fields of an entry that a dead letter keeps.
const FIELDS_KEPT_MAX: usize = 2 * FIELDS_MAX;
/// So many bytes of an entry that cannot be read are kept as a dead letter.
pub const KEPT_BYTES_MAX: usize = 64 * 1024;
/// So much of a `traceparent` is kept, in bytes; the W3C form has 55.
const TRACEPARENT_BYTES_MAX: usize = 128;

/// A message for one target.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedMessage {
    /// Where to.
    pub topic: Topic,
    /// What. Its priority is that of the stream.
    pub publication: Publication,
    /// It is published before this time, unix milliseconds, or not at all.
    pub expires_ms: Option<u64>,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
}

/// The bytes of a message in three parts, of which the second is the body as it stands in the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// Before it.
    pub head: Bytes,
    /// The body.
    pub body: Bytes,
    /// Behind it.
    pub tail: Bytes,
}

/// A message as its bytes: its version, then a MessagePack list of target, body, end and trace.
#[must_use]
pub fn encode(message: &QueuedMessage) -> Vec<u8> {
    let Parts { head, body, tail } = encode_parts(message);
    [head, body, tail].concat()
}

/// The same in parts.
#[must_use]
pub fn encode_parts(message: &QueuedMessage) -> Parts {
    let body = publication::encode_publication(&message.publication);
    // 0x94: a list of four.
    let mut head = vec![MESSAGE_V1, 0x94];
    pack(&mut head, &message.topic.qualified());
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    rmp::encode::write_bin_len(&mut head, length).expect("writing to memory never fails");
    let mut tail = Vec::new();
    pack(&mut tail, &message.expires_ms);
    pack(&mut tail, &message.traceparent);
    Parts {
        head: head.into(),
        body: body.into(),
        tail: tail.into(),
    }
}

/// Reads what [`encode`] made, in this release or an older one.
///
/// # Errors
/// [`Unreadable`], also where its data breaks the rules of [`Data`].
pub fn decode(bytes: &Bytes) -> Result<QueuedMessage, Unreadable> {
    let (message, _) = decode_parts(bytes)?;
    let checked = message.publication.data.check();
    checked.map_err(|_| Unreadable::Field("data"))?;
    Ok(message)
}

/// The same, with its bytes in parts: what is published of it is what was written, also where a newer
/// release knows more of it. Its data is not looked through again: nodes checked it before they wrote
/// it, this is done for each entry that is moved (some 6 ns a byte), and what breaks the rules all the
/// same is told as a gap to sessions whose form cannot say it, and left out of pages.
///
/// # Errors
/// [`Unreadable`].
pub fn decode_parts(bytes: &Bytes) -> Result<(QueuedMessage, Parts), Unreadable> {
    type Known<'a> = (&'a str, Raw<'a>, Option<u64>, Option<&'a str>);
    let (version, rest) = bytes.split_first().ok_or(Unreadable::Empty)?;
    if *version != MESSAGE_V1 {
        return Err(Unreadable::Version(*version));
    }
    let Growing((topic, body, expires_ms, traceparent)): Growing<Known<'_>> =
        rmp_serde::from_slice(rest)?;
    let topic = Topic::from_qualified(topic).ok_or(Unreadable::Field("target"))?;
    let Body::Publication(publication) = decode_body(body.0)? else {
        return Err(Unreadable::Field("body"));
    };
    let body = bytes.slice_ref(body.0);
    let at = body.as_ptr() as usize - bytes.as_ptr() as usize;
    let parts = Parts {
        head: bytes.slice(..at),
        tail: bytes.slice(at + body.len()..),
        body,
    };
    let message = QueuedMessage {
        topic,
        publication: std::sync::Arc::unwrap_or_clone(publication),
        expires_ms,
        traceparent: traceparent.map(str::to_owned),
    };
    Ok((message, parts))
}

/// The fields of an entry that cannot be read, as a dead letter keeps them: within
/// [`KEPT_BYTES_MAX`].
#[must_use]
pub fn encode_fields(fields: &[(Bytes, Bytes)]) -> Vec<u8> {
    let fields = &fields[..fields.len().min(FIELDS_KEPT_MAX)];
    let most = longest_kept(fields);
    let cut = |part: &'_ Bytes| part.slice(..part.len().min(most));
    let kept: Vec<_> = fields.iter().map(|(n, v)| (cut(n), cut(v))).collect();
    let kept: Vec<_> = kept.iter().map(|(n, v)| (Raw(n), Raw(v))).collect();
    let mut out = vec![FIELDS_V1];
    pack(&mut out, &kept);
    out
}

/// Whether [`encode_fields`] keeps all of these.
#[must_use]
pub fn are_kept_whole(fields: &[(Bytes, Bytes)]) -> bool {
    let most = longest_kept(fields);
    let fits = |(name, value): &(Bytes, Bytes)| name.len() <= most && value.len() <= most;
    fields.len() <= FIELDS_KEPT_MAX && fields.iter().all(fits)
}

/// To how many bytes names and values are cut, so that all of them fit.
fn longest_kept(fields: &[(Bytes, Bytes)]) -> usize {
    // Its length stands before each, and that of the list before all.
    const AROUND: usize = 6;
    let mut lengths: Vec<usize> = fields
        .iter()
        .take(FIELDS_KEPT_MAX)
        .flat_map(|(name, value)| [name.len(), value.len()])
        .collect();
    lengths.sort_unstable();
    let (mut left, mut count) = (KEPT_BYTES_MAX - AROUND, lengths.len());
    for length in lengths {
        let share = (left / count).saturating_sub(AROUND);
        if length > share {
            return share;
        }
        left -= length + AROUND;
        count -= 1;
    }
    KEPT_BYTES_MAX
}

/// Reads what [`encode_fields`] made; `None` for anything else.
#[must_use]
pub fn decode_fields(bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let rest = bytes.strip_prefix(&[FIELDS_V1])?;
    let fields: Vec<(Raw<'_>, Raw<'_>)> = rmp_serde::from_slice(rest).ok()?;
    let text = |bytes: Raw<'_>| String::from_utf8_lossy(bytes.0).into_owned();
    let fields = fields.into_iter().map(|(n, v)| (text(n), text(v)));
    Some(fields.collect())
}

/// Reads the fields that a backend wrote with `XADD`, as docs/queue.md lists them. `conflates`: what
/// holds for the target where the entry does not say.
///
/// # Errors
/// What is wrong, for people.
pub fn of_fields(
    fields: &[(Bytes, Bytes)],
    id: Position,
    priority: Priority,
    conflates: impl Fn(&Topic) -> bool,
) -> Result<QueuedMessage, String> {
    let fields = Fields::new(fields)?;
    let app = match fields.text("app")? {
        Some(app) => App::new(app).map_err(|error| format!("`app`: {error}"))?,
        None => App::default_app(),
    };
    let topic = match (fields.text("topic")?, fields.text("user")?) {
        (Some(name), None) => Topic::new(&app, name).map_err(|e| format!("`topic`: {e}"))?,
        (None, Some(name)) => {
            let user = User::new(name).map_err(|error| format!("`user`: {error}"))?;
            Topic::inbox(&app, &user)
        }
        _ => return Err("exactly one of `topic` and `user` is needed".to_owned()),
    };
    let data = fields.text("data")?.ok_or("the field `data` is missing")?;
    let data = Data::from_json(data.as_bytes()).map_err(|error| error.message.into_owned())?;
    let conflate = match fields.text("conflate")? {
        None => conflates(&topic),
        Some("true" | "1") => true,
        Some("false" | "0") => false,
        Some(_) => return Err("`conflate` must be true or false".to_owned()),
    };
    let traceparent = fields.find("traceparent").map(cut_traceparent);
    let mut publication = Publication::new(data, id.ms);
    publication.priority = priority;
    publication.key = fields.text("key")?.map(str::to_owned);
    publication.conflate = conflate;
    publication.ttl_ms = fields.number("ttl_ms")?;
    Ok(QueuedMessage {
        topic,
        publication,
        expires_ms: fields.number("expires_at")?,
        traceparent: traceparent.map(str::to_owned),
    })
}

/// As much of a `traceparent` as is kept. One that is none is kept too: whoever goes on by it ignores it
/// and counts that.
fn cut_traceparent(text: &str) -> &str {
    cut(text, TRACEPARENT_BYTES_MAX)
}

/// Fields by their names, each of which is known and there once.
struct Fields<'a>(Vec<(&'static str, &'a str)>);

impl<'a> Fields<'a> {
    const KNOWN: [&'static str; 9] = [
        "app",
        "topic",
        "user",
        "data",
        "key",
        "conflate",
        "ttl_ms",
        "expires_at",
        "traceparent",
    ];

    fn new(fields: &'a [(Bytes, Bytes)]) -> Result<Self, String> {
        let mut found: Vec<(&'static str, &'a str)> = Vec::with_capacity(fields.len());
        for (name, value) in fields {
            let known = Self::KNOWN.into_iter().find(|k| k.as_bytes() == &name[..]);
            let Some(name) = known else {
                let name: String = String::from_utf8_lossy(name).chars().take(64).collect();
                return Err(format!("the field `{name}` is not known"));
            };
            if found.iter().any(|(before, _)| *before == name) {
                return Err(format!("the field `{name}` is there twice"));
            }
            let value = match str::from_utf8(value) {
                Err(_) if name == "traceparent" => "",
                value => value.map_err(|_| format!("`{name}` is no UTF-8"))?,
            };
            found.push((name, value));
        }
        Ok(Self(found))
    }

    fn find(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| *value)
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, String> {
        match self.find(name) {
            Some("") => Err(format!("`{name}` is empty")),
            found => Ok(found),
        }
    }

    fn number(&self, name: &str) -> Result<Option<u64>, String> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let wrong = |_| format!("`{name}` must be an unsigned integer");
        text.parse().map(Some).map_err(wrong)
    }
}

fn pack<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    rmp_serde::encode::write(out, value).expect("writing to memory and these types never fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Position = Position { ms: 1_700, seq: 3 };

    fn message() -> QueuedMessage {
        let topic = Topic::new(&App::default_app(), "orders:7").unwrap();
        let mut publication = Publication::new(Data::Json("{\"a\":1}".into()), 1_700);
        publication.priority = Priority::High;
        QueuedMessage {
            topic,
            publication,
            expires_ms: Some(9_000),
            traceparent: Some("00-aa-bb-01".to_owned()),
        }
    }

    fn fields(pairs: &[(&str, &str)]) -> Vec<(Bytes, Bytes)> {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        pairs.iter().map(|(n, v)| (bytes(n), bytes(v))).collect()
    }

    fn read(pairs: &[(&str, &str)]) -> Result<QueuedMessage, String> {
        of_fields(&fields(pairs), ID, Priority::High, |_| false)
    }

    #[test]
    fn a_message_comes_back_as_it_was_and_a_newer_release_may_add_to_it() {
        let bare = QueuedMessage {
            expires_ms: None,
            traceparent: None,
            ..message()
        };
        for message in [message(), bare] {
            let mut bytes = encode(&message);
            let (read, parts) = decode_parts(&bytes.clone().into()).unwrap();
            assert_eq!((read, parts), (message.clone(), encode_parts(&message)));
            bytes[1] += 1;
            bytes.extend_from_slice(b"\x93\x01\x92\xc3\xc0\x81\xa1k\x90");
            assert_eq!(decode(&bytes.into()).unwrap(), message);
        }
    }

    #[test]
    fn what_no_node_would_have_written_is_unreadable() {
        let bytes = Bytes::from(encode(&message()));
        assert!(matches!(decode(&Bytes::new()), Err(Unreadable::Empty)));
        assert!(matches!(
            decode(&Bytes::from_static(&[0x41, 0x90])),
            Err(Unreadable::Version(0x41))
        ));
        for end in 1..bytes.len() {
            assert!(decode(&bytes.slice(..end)).is_err(), "{end}");
        }
        let mut nowhere = vec![MESSAGE_V1, 0x94];
        pack(&mut nowhere, &"no-app");
        nowhere.extend_from_slice(&bytes[nowhere.len()..]);
        assert!(decode(&nowhere.into()).is_err());
    }

    #[test]
    fn fields_of_a_backend_make_the_message_that_the_api_would() {
        let read = read(&[
            ("topic", "orders:7"),
            ("data", "{\"a\":1}"),
            ("expires_at", "9000"),
            ("traceparent", "00-aa-bb-01"),
        ]);
        assert_eq!(read, Ok(message()));
    }

    #[test]
    fn fields_that_are_wrong_are_named() {
        for (pairs, why) in [
            (&[("data", "1")][..], "exactly one of `topic` and `user`"),
            (
                &[("topic", "t"), ("user", "u"), ("data", "1")],
                "exactly one of `topic` and `user`",
            ),
            (&[("topic", "t")], "`data` is missing"),
            (
                &[("topic", "t"), ("data", "{")],
                "`data` cannot be taken: it is not one JSON value",
            ),
            (&[("topic", "t t"), ("data", "1")], "`topic`: "),
            (&[("user", "{"), ("data", "1")], "`user`: "),
            (&[("app", "A"), ("topic", "t"), ("data", "1")], "`app`: "),
            (
                &[("topic", "t"), ("data", "1"), ("colour", "red")],
                "`colour` is not known",
            ),
            (
                &[("topic", "t"), ("data", "1"), ("data", "2")],
                "`data` is there twice",
            ),
            (
                &[("topic", "t"), ("data", "1"), ("ttl_ms", "-1")],
                "`ttl_ms` must be an unsigned integer",
            ),
            (
                &[("topic", "t"), ("data", "1"), ("conflate", "yes")],
                "`conflate` must be",
            ),
        ] {
            let error = read(pairs).unwrap_err();
            assert!(error.contains(why), "{pairs:?}: {error}");
        }
    }

    #[test]
    fn data_of_a_backend_keeps_the_rules_of_data_by_the_api() {
        let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
        for data in [
            "\"\\ud800\"",
            "1e999",
            "123456789012345678901234567890",
            &deep,
            "1 2",
        ] {
            let told = Data::from_json(data.as_bytes()).unwrap_err().message;
            let error = read(&[("topic", "t"), ("data", data)]).unwrap_err();
            assert_eq!(error, told);
            assert!(error.starts_with("`data` cannot be taken: "), "{error}");
            // A blob with such data is none that a node wrote.
            let mut poisoned = message();
            poisoned.publication.data = Data::Json(data.to_owned().into());
            let bytes = encode(&poisoned).into();
            assert!(matches!(decode(&bytes), Err(Unreadable::Field("data"))));
        }
        let spaced = read(&[("topic", "t"), ("data", " {\"a\":1}\n")]).unwrap();
        assert_eq!(spaced.publication.data, message().publication.data);
    }

    #[test]
    fn whatever_stands_for_a_trace_the_entry_is_taken_and_so_much_of_it_is_kept() {
        let longest = "0".repeat(TRACEPARENT_BYTES_MAX);
        let longer = format!("{}\u{e4}", &longest[1..]);
        let read = |text| read(&[("topic", "t"), ("data", "1"), ("traceparent", text)]);
        for whole in [&*longest, "00-aa bb", "00-\n", ""] {
            assert_eq!(read(whole).unwrap().traceparent.as_deref(), Some(whole));
        }
        let cut = read(&longer).unwrap().traceparent;
        assert_eq!(cut.as_deref(), Some(&longest[1..]));
        let mut pairs = fields(&[("topic", "t"), ("data", "1"), ("traceparent", "x")]);
        pairs[2].1 = Bytes::from_static(b"\xff");
        let position = Position { ms: 7, seq: 0 };
        let read = of_fields(&pairs, position, Priority::Normal, |_| false).unwrap();
        assert_eq!(read.traceparent.as_deref(), Some(""));
    }

    #[test]
    fn what_cannot_be_read_is_kept_as_far_as_it_fits() {
        let pairs = fields(&[("a", "1"), ("b", "\u{fffd}")]);
        let wanted = [("a", "1"), ("b", "\u{fffd}")];
        let wanted = wanted.map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(decode_fields(&encode_fields(&pairs)).unwrap(), wanted);
        assert!(are_kept_whole(&pairs));
        assert_eq!(decode_fields(&encode(&message())), None);
    }

    #[test]
    fn the_longest_of_what_cannot_be_read_is_cut_and_nothing_is_left_out() {
        let [half, most, over] = [2, 1, 0].map(|n| match n {
            0 => "x".repeat(200_000),
            n => "x".repeat(KEPT_BYTES_MAX / n),
        });
        for (pairs, is_whole) in [
            (vec![("data", &*half), ("topic", "t")], true),
            (vec![("topic", "t"), ("data", &most), ("key", "k")], false),
            (vec![("data", &half), ("topic", "t"), ("b", &half)], false),
            (vec![(&*over, &*over), ("topic", "t")], false),
            (vec![("x", &*over); FIELDS_KEPT_MAX], false),
        ] {
            let whole = fields(&pairs);
            let kept = encode_fields(&whole);
            assert!(kept.len() <= KEPT_BYTES_MAX, "{}", kept.len());
            assert!(is_whole || kept.len() > KEPT_BYTES_MAX - 2_000);
            assert_eq!(are_kept_whole(&whole), is_whole);
            let read = decode_fields(&kept).unwrap();
            assert_eq!(read.len(), pairs.len());
            for ((name, value), (kept_name, kept_value)) in pairs.iter().zip(read) {
                assert!(name.starts_with(&kept_name) && value.starts_with(&kept_value));
                assert_eq!(kept_value.len() < 10, value.len() < 10);
            }
        }
        let many = vec![("x", "1"); FIELDS_KEPT_MAX + 1];
        assert!(!are_kept_whole(&fields(&many)));
    }
}
