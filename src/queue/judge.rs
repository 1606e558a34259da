//! What becomes of an entry: it is published, or put aside with a reason.
//!
//! In: an entry at the head of its stream, Redis' clock, the configuration, the apps. Out: a [`Verdict`]. Pure.
//! A panic on the way is a verdict too (`crashed`): whatever a backend wrote, no entry stands before
//! the others for ever. What could be read is kept as a message; of the rest [`KEPT_BYTES_MAX`] bytes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::apps::Apps;
use crate::broker::queue::entry::{self, FIELDS_MAX, KEPT_BYTES_MAX, Parts, QueuedMessage};
use crate::broker::queue::{Content, FetchedEntry, Judged, STARTS_MAX, Verdict, Why};
use crate::config::Config;
use fanfare_protocol::ids::{Topic, TopicKind};

/// A message, and the same as bytes.
type Readable = (QueuedMessage, Parts);

/// Why an entry is put aside.
struct Refusal {
    why: Why,
    error: String,
}

fn refused(why: Why, error: impl Into<String>) -> Refusal {
    let error = error.into();
    Refusal { why, error }
}

/// By what entries are judged.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The configuration of the node.
    pub config: &'a Config,
    /// The apps that it knows.
    pub apps: &'a Apps,
}

/// Judges an entry at this time of Redis' clock, unix milliseconds. Of an app that is not known it says so:
/// whether there is one may have to be read first.
#[must_use]
pub fn judge(entry: &FetchedEntry, now_ms: u64, rules: Rules<'_>) -> Judged {
    let judged = catch_unwind(AssertUnwindSafe(|| decide(entry, now_ms, rules)));
    let verdict = judged.unwrap_or_else(|_| {
        let refusal = refused(Why::Crashed, "reading it panicked");
        bury_unread(&entry.content, refusal)
    });
    Judged {
        partition: entry.partition,
        priority: entry.priority,
        id: entry.id,
        verdict,
    }
}

fn decide(entry: &FetchedEntry, now_ms: u64, rules: Rules<'_>) -> Verdict {
    let crashed = || {
        let text = format!("{STARTS_MAX} nodes in a row ended while they had it in hand");
        refused(Why::Crashed, text)
    };
    // One more home reads it, only to keep it as a message; should that be what ends homes, the next
    // one keeps it unread.
    if entry.starts > STARTS_MAX + 1 {
        return bury_unread(&entry.content, crashed());
    }
    let readable = match read(entry, rules.apps) {
        Ok(readable) => readable,
        Err(_) if entry.starts > STARTS_MAX => return bury_unread(&entry.content, crashed()),
        Err(refusal) => return bury_unread(&entry.content, refusal),
    };
    let checked = match entry.starts > STARTS_MAX {
        true => Err(crashed()),
        false => check(entry, &readable.0, now_ms, rules),
    };
    match checked {
        Ok(()) => publish(
            readable,
            matches!(entry.content, Content::Fields(_)),
            rules.apps,
        ),
        Err(refusal) => bury(&entry.content, &readable.0, refusal),
    }
}

/// Whether it is put aside because of its app.
#[must_use]
pub fn is_of_unknown_app(judged: &Judged) -> bool {
    matches!(
        &judged.verdict,
        Verdict::Bury {
            why: Why::UnknownApp,
            ..
        }
    )
}

/// Whether a message may be published from where it stands.
fn check(
    entry: &FetchedEntry,
    message: &QueuedMessage,
    now_ms: u64,
    Rules { config, apps }: Rules<'_>,
) -> Result<(), Refusal> {
    let topic = &message.topic;
    if !apps.has(topic) {
        let text = format!(
            "its app `{}` is not known here: it was removed, or never there; redrive it when there is \
             such an app",
            topic.app()
        );
        return Err(refused(Why::UnknownApp, text));
    }
    if topic.kind() == TopicKind::Presence {
        return Err(refused(Why::BadEntry, "its target is no topic of clients"));
    }
    let home = topic.partition(config.redis.partitions);
    if home != entry.partition {
        let text = format!(
            "{} is of partition {home}, and it stands in the queue of {}",
            topic.name(),
            entry.partition
        );
        return Err(refused(Why::WrongPartition, text));
    }
    let limits = &config.session;
    let bytes = message.publication.data.bytes().len();
    if bytes > limits.message_bytes_max {
        let text = format!(
            "`data` has {bytes} bytes, more than {}",
            limits.message_bytes_max
        );
        return Err(refused(Why::TooLarge, text));
    }
    let key_bytes = message.publication.key.as_ref().map_or(0, String::len);
    if key_bytes > limits.key_bytes_max {
        let text = format!("`key` is longer than {} bytes", limits.key_bytes_max);
        return Err(refused(Why::TooLarge, text));
    }
    if message.publication.priority != entry.priority {
        let text = "it stands in the stream of another priority than its own";
        return Err(refused(Why::BadEntry, text));
    }
    match message.expires_ms {
        Some(expires_ms) if expires_ms <= now_ms => {
            let text = format!("it was to be published before {expires_ms}, and it is {now_ms}");
            Err(refused(Why::Expired, text))
        }
        _ => Ok(()),
    }
}

fn read(entry: &FetchedEntry, apps: &Apps) -> Result<Readable, Refusal> {
    match &entry.content {
        Content::Blob(bytes) => {
            entry::decode_parts(bytes).map_err(|error| refused(Why::BadEntry, error.to_string()))
        }
        Content::Fields(fields) if fields.len() > FIELDS_MAX => {
            let text = format!("{} fields are more than {FIELDS_MAX}", fields.len());
            Err(refused(Why::TooLarge, text))
        }
        Content::Fields(fields) => {
            let conflates = |topic: &Topic| apps.of_topic(topic).namespace(topic).conflate;
            let read = entry::of_fields(fields, entry.id, entry.priority, conflates);
            let message = read.map_err(|error| refused(Why::BadEntry, error))?;
            let parts = entry::encode_parts(&message);
            Ok((message, parts))
        }
        Content::Oversized { fields, bytes } => {
            let text = format!(
                "{fields} fields of {bytes} bytes are more than are read, and none is kept"
            );
            Err(refused(Why::TooLarge, text))
        }
    }
}

fn publish((message, parts): Readable, came_as_fields: bool, apps: &Apps) -> Verdict {
    Verdict::Publish {
        retention: apps
            .of_topic(&message.topic)
            .namespace(&message.topic)
            .retention(),
        message: Box::new(message),
        parts,
        trace: None,
        came_as_fields,
    }
}

/// What was read is kept as a message, however long, so that it can be redriven.
fn bury(content: &Content, message: &QueuedMessage, refusal: Refusal) -> Verdict {
    let kept = match content {
        // As it is, also where a newer release knows more of it.
        Content::Blob(bytes) => bytes.clone(),
        Content::Fields(_) | Content::Oversized { .. } => entry::encode(message).into(),
    };
    let Refusal { why, error } = refusal;
    Verdict::Bury { why, error, kept }
}

/// Of what was not read [`KEPT_BYTES_MAX`] bytes are kept, and the error says where that is not all.
fn bury_unread(content: &Content, Refusal { why, mut error }: Refusal) -> Verdict {
    let (kept, is_whole) = match content {
        Content::Blob(bytes) => {
            let kept = bytes.slice(..bytes.len().min(KEPT_BYTES_MAX));
            (kept, bytes.len() <= KEPT_BYTES_MAX)
        }
        Content::Fields(fields) => {
            let kept = entry::encode_fields(fields);
            (kept.into(), entry::are_kept_whole(fields))
        }
        Content::Oversized { .. } => (entry::encode_fields(&[]).into(), true),
    };
    if !is_whole {
        error.push_str(&format!(
            "; what is kept of it is cut to {KEPT_BYTES_MAX} bytes"
        ));
    }
    Verdict::Bury { why, error, kept }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::publication::Publication;
    use crate::config::load;
    use bytes::Bytes;
    use fanfare_protocol::data::Data;
    use fanfare_protocol::ids::{App, Position, Priority};

    const NOW_MS: u64 = 5_000;

    fn topic() -> Topic {
        Topic::new(&App::default_app(), "orders:7").unwrap()
    }

    fn message() -> QueuedMessage {
        QueuedMessage {
            topic: topic(),
            publication: Publication::new(Data::Json("1".into()), 1_000),
            expires_ms: None,
            traceparent: None,
        }
    }

    fn of(content: Content) -> FetchedEntry {
        FetchedEntry {
            partition: topic().partition(load::defaults().redis.partitions),
            priority: Priority::Normal,
            id: Position { ms: 1_000, seq: 0 },
            content,
            starts: 1,
        }
    }

    fn blob(message: &QueuedMessage) -> FetchedEntry {
        of(Content::Blob(entry::encode(message).into()))
    }

    fn fields(pairs: &[(&str, &str)]) -> FetchedEntry {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let fields = pairs.iter().map(|(n, v)| (bytes(n), bytes(v)));
        of(Content::Fields(fields.collect()))
    }

    fn judged(entry: FetchedEntry) -> Judged {
        let config = load::defaults();
        let apps = Apps::of(&config);
        let (config, apps) = (&config, &apps);
        judge(&entry, NOW_MS, Rules { config, apps })
    }

    /// Why it is put aside; `None`: it is published.
    fn why(entry: FetchedEntry) -> Option<(Why, String)> {
        match judged(entry).verdict {
            Verdict::Publish { .. } => None,
            Verdict::Bury { why, error, .. } => Some((why, error)),
        }
    }

    #[test]
    fn what_is_whole_is_published_as_its_namespace_keeps_it() {
        assert_eq!(why(blob(&message())), None);
        assert_eq!(why(fields(&[("topic", "orders:7"), ("data", "1")])), None);
        let last = QueuedMessage {
            expires_ms: Some(NOW_MS + 1),
            ..message()
        };
        assert_eq!(why(blob(&last)), None);
    }

    #[test]
    fn what_is_not_is_put_aside_with_its_reason() {
        let expired = QueuedMessage {
            expires_ms: Some(NOW_MS),
            ..message()
        };
        let large = QueuedMessage {
            publication: Publication::new(Data::Json("1".repeat(70_000).into()), 1),
            ..message()
        };
        let urgent = |priority| FetchedEntry {
            priority,
            ..blob(&message())
        };
        let elsewhere = FetchedEntry {
            partition: 0,
            ..blob(&message())
        };
        let again = FetchedEntry {
            starts: STARTS_MAX + 1,
            ..blob(&message())
        };
        let many: Vec<_> = (0..=FIELDS_MAX).map(|_| ("x", "1")).collect();
        let oversized = Content::Oversized {
            fields: 10_000,
            bytes: 90_000,
        };
        for (entry, expected) in [
            (blob(&expired), Why::Expired),
            (blob(&large), Why::TooLarge),
            (urgent(Priority::Low), Why::BadEntry),
            (elsewhere, Why::WrongPartition),
            (again, Why::Crashed),
            (of(Content::Blob("\x01x".into())), Why::BadEntry),
            (of(Content::Blob("".into())), Why::BadEntry),
            (fields(&[("topic", "orders:7")]), Why::BadEntry),
            (fields(&many), Why::TooLarge),
            (of(oversized), Why::TooLarge),
        ] {
            let (why, error) = why(entry).expect("put aside");
            assert_eq!(why, expected, "{error}");
            assert!(!error.is_empty());
        }
    }

    #[test]
    fn what_is_for_an_app_that_is_not_known_is_put_aside_and_kept_as_a_message() {
        let topic = Topic::new(&App::new("gone").unwrap(), "orders:7").unwrap();
        let partition = topic.partition(load::defaults().redis.partitions);
        let message = QueuedMessage { topic, ..message() };
        let blob = FetchedEntry {
            partition,
            ..blob(&message)
        };
        let by_xadd = FetchedEntry {
            partition,
            ..fields(&[("app", "gone"), ("topic", "orders:7"), ("data", "1")])
        };
        for entry in [blob, by_xadd] {
            let (why, error, kept) = buried(entry);
            assert_eq!(why, Why::UnknownApp);
            assert!(
                error.starts_with("its app `gone` is not known here"),
                "{error}"
            );
            assert_eq!(entry::decode(&kept).unwrap().topic, message.topic);
        }
    }

    #[test]
    fn an_entry_that_three_homes_have_had_in_hand_has_one_try_left() {
        let entry = FetchedEntry {
            starts: STARTS_MAX,
            ..blob(&message())
        };
        assert_eq!(why(entry), None);
    }

    /// Why it is put aside, in which words, and what is kept of it.
    fn buried(entry: FetchedEntry) -> (Why, String, Bytes) {
        match judged(entry).verdict {
            Verdict::Bury { why, error, kept } => (why, error, kept),
            Verdict::Publish { .. } => panic!("expected a dead letter"),
        }
    }

    #[test]
    fn what_came_by_xadd_and_could_be_read_is_kept_as_a_message() {
        let long = format!("\"{}\"", "x".repeat(70_000));
        let late = [
            ("topic", "orders:7"),
            ("data", "{\"a\":1}"),
            ("expires_at", "4999"),
        ];
        let (pairs, large) = (&late[..2], [("topic", "orders:7"), ("data", &*long)]);
        let elsewhere = FetchedEntry {
            partition: 0,
            ..fields(pairs)
        };
        let again = FetchedEntry {
            starts: STARTS_MAX + 1,
            ..fields(pairs)
        };
        for (entry, expected) in [
            (fields(&late), Why::Expired),
            (elsewhere, Why::WrongPartition),
            (again, Why::Crashed),
            (fields(&large), Why::TooLarge),
        ] {
            let data = match expected {
                Why::TooLarge => long.clone(),
                _ => "{\"a\":1}".to_owned(),
            };
            let (why, error, kept) = buried(entry);
            assert_eq!(why, expected, "{error}");
            let kept = entry::decode(&kept).expect("a message");
            assert_eq!(kept.topic, topic());
            assert_eq!(kept.publication.data, Data::Json(data.into()));
            assert!(!error.contains("cut"), "{error}");
        }
    }

    #[test]
    fn a_message_is_kept_whole_and_what_cannot_be_read_is_cut_and_says_so() {
        let megabytes = "1".repeat(5_000_000);
        let large = QueuedMessage {
            publication: Publication::new(Data::Json(megabytes.clone().into()), 1),
            ..message()
        };
        let (why, error, kept) = buried(blob(&large));
        assert_eq!((why, kept), (Why::TooLarge, entry::encode(&large).into()));
        assert!(!error.contains("cut"), "{error}");

        let junk = format!("\u{1}{megabytes}");
        let (why, error, kept) = buried(of(Content::Blob(junk.clone().into())));
        assert_eq!(
            (why, &kept[..]),
            (Why::BadEntry, &junk.as_bytes()[..KEPT_BYTES_MAX])
        );
        assert!(error.contains("cut to 65536 bytes"), "{error}");

        let (why, error, kept) = buried(fields(&[("data", &*megabytes), ("tpic", "t")]));
        assert_eq!(why, Why::BadEntry);
        assert!(error.contains("cut to 65536 bytes"), "{error}");
        let kept = entry::decode_fields(&kept).expect("fields");
        assert_eq!((&*kept[0].0, &*kept[1].1), ("data", "t"));
        assert!(kept[0].1.len() > KEPT_BYTES_MAX - 100);

        // One more home reads what has ended three of them, and the next does not.
        for (starts, is_message) in [(STARTS_MAX + 1, true), (STARTS_MAX + 2, false)] {
            let entry = FetchedEntry {
                starts,
                ..fields(&[("topic", "orders:7"), ("data", "1")])
            };
            let (why, _, kept) = buried(entry);
            assert_eq!(why, Why::Crashed);
            assert_eq!(entry::decode(&kept).is_ok(), is_message);
            assert_eq!(entry::decode_fields(&kept).is_some(), !is_message);
        }
    }
}
