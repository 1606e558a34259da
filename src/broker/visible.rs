//! Pages of history as readers see them: without the publications that are past their own end.
//!
//! In: what a session or the API asks. Out: messages, and whether there are more. What has ended, and
//! what nobody can read (a body whose data breaks the rules of data, which another program wrote),
//! takes no place in a page: reading goes on until the page is full or nothing more is retained,
//! because a reader goes on from the last message that it was shown. Bounds: the query's `limit`
//! and `bytes_max`, here of messages in the longer of their two wire forms; reads are as many as the
//! topic's retention has pages.

use super::{Body, Broker, BrokerError, HistoryPage, HistoryQuery};
use fanfare_protocol::event::Message;

/// Entries read at once, or the whole page if that is more, after a read that did not fill the
/// page: where one publication has ended, its neighbours mostly have too.
const READ_ON: u32 = 100;

/// A page of history.
#[derive(Debug)]
pub struct VisiblePage {
    /// In the order asked for.
    pub messages: Vec<Message>,
    /// There may be more in that direction.
    pub more: bool,
}

/// Reads a page of what has not ended at `now_ms`.
///
/// # Errors
/// [`BrokerError`].
pub async fn history(
    broker: &Broker,
    query: HistoryQuery,
    now_ms: u64,
) -> Result<VisiblePage, BrokerError> {
    let limit = query.limit as usize;
    let mut left = query;
    let mut messages = Vec::new();
    loop {
        let HistoryPage { entries, more } = broker.history(left.clone()).await?;
        let read_to = entries.last().map(|entry| entry.position);
        for entry in entries {
            // Changes of members are no messages; their topic has no name by which to ask.
            let Body::Publication(publication) = &entry.body else {
                continue;
            };
            if publication.has_ended(now_ms) || publication.data.check().is_err() {
                continue;
            }
            let bytes = entry.body.frame_size(&left.topic).longest;
            let has_room = messages.is_empty() || bytes <= left.bytes_max;
            if messages.len() == limit || !has_room {
                let more = true;
                return Ok(VisiblePage { messages, more });
            }
            left.bytes_max = left.bytes_max.saturating_sub(bytes);
            messages.push(publication.message(&left.topic, Some(entry.position)));
        }
        let has_room = messages.len() < limit && left.bytes_max > 0;
        match read_to {
            Some(_) if more && has_room && left.reverse => left.until = read_to,
            Some(_) if more && has_room => left.since = read_to,
            _ => return Ok(VisiblePage { messages, more }),
        }
        left.limit = left.limit.max(READ_ON);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::broker::PublishRequest;
    use crate::broker::memory::{MemoryBroker, clock::Clock};
    use crate::broker::publication::Publication;
    use crate::config::Retention;
    use crate::telemetry::metrics::Metrics;
    use fanfare_protocol::data::Data;
    use fanfare_protocol::ids::{App, Position, Topic};
    use fanfare_protocol::size::FrameSize;

    const RETENTION: Retention = Retention {
        entries_max: 10_000,
        age_ms: 3_600_000,
    };
    const NOW_MS: u64 = 1_000;
    const BODY_BYTES: usize = 10;

    fn topic() -> Topic {
        Topic::new(&App::default_app(), "t").expect("a valid name")
    }

    /// A broker with one publication for each letter: `-` has ended, the others have not, and `!` is
    /// half of a surrogate pair. Each other has [`BODY_BYTES`] and begins with its letter.
    async fn retaining(letters: &str) -> Broker {
        let (memory, _feed) = MemoryBroker::new(Clock::System, Arc::new(Metrics::new(0)));
        let broker = Broker::Memory(memory);
        for letter in letters.chars() {
            let body = match letter {
                '!' => "\"\\ud800\"".to_owned(),
                letter => format!("\"{letter}{}\"", "x".repeat(BODY_BYTES - 3)),
            };
            let publication = Publication {
                ttl_ms: Some(if letter == '-' { NOW_MS } else { NOW_MS + 1 }),
                ..Publication::new(Data::Json(Bytes::from(body)), 0)
            };
            let request = PublishRequest::new(topic(), publication, RETENTION);
            broker.publish(request).await.expect("it is in memory");
        }
        broker
    }

    fn query(limit: u32, reverse: bool) -> HistoryQuery {
        HistoryQuery {
            topic: topic(),
            retention: RETENTION,
            since: None,
            until: None,
            limit,
            bytes_max: 1 << 20,
            reverse,
        }
    }

    /// The letters of a page, a `+` after them when there may be more, and its last position.
    async fn page(broker: &Broker, query: HistoryQuery) -> (String, Option<Position>) {
        let page = history(broker, query, NOW_MS).await.expect("in memory");
        let letter = |message: &Message| match &message.data {
            Data::Json(bytes) => char::from(bytes[1]),
            Data::MsgPack(_) => panic!("published as JSON"),
        };
        let mut letters: String = page.messages.iter().map(letter).collect();
        letters.extend(page.more.then_some('+'));
        (letters, page.messages.last().and_then(|m| m.position))
    }

    #[tokio::test]
    async fn what_has_ended_takes_no_place_in_a_page_in_either_direction() {
        let ended = "-".repeat(250);
        let broker = retaining(&format!("a{ended}b-c{ended}")).await;
        for (limit, forward, backward) in [
            (1, "a+", "c+"),
            (2, "ab+", "cb+"),
            (3, "abc+", "cba"),
            (4, "abc", "cba"),
        ] {
            assert_eq!(page(&broker, query(limit, false)).await.0, forward);
            assert_eq!(page(&broker, query(limit, true)).await.0, backward);
        }
        assert_eq!(page(&retaining(&ended).await, query(1, false)).await.0, "");
    }

    #[tokio::test]
    async fn what_a_form_cannot_express_takes_no_place_in_a_page_in_either_direction() {
        let broker = retaining("!a!!b!").await;
        for (limit, forward, backward) in [(1, "a+", "b+"), (2, "ab", "ba"), (3, "ab", "ba")] {
            assert_eq!(page(&broker, query(limit, false)).await.0, forward);
            assert_eq!(page(&broker, query(limit, true)).await.0, backward);
        }
    }

    #[tokio::test]
    async fn pages_continue_from_the_last_message_and_give_everything_once() {
        let broker = retaining("-a-b--c---d----e-").await;
        for limit in 1..=6 {
            let mut all = String::new();
            let mut asked = query(limit, false);
            loop {
                let (letters, last) = page(&broker, asked.clone()).await;
                all.push_str(letters.trim_end_matches('+'));
                if !letters.ends_with('+') {
                    break;
                }
                assert!(last > asked.since, "a page with more after it brings on");
                asked.since = last;
            }
            assert_eq!(all, "abcde", "{limit} a page");
        }
    }

    #[tokio::test]
    async fn a_page_is_bounded_by_the_bytes_of_what_it_shows_but_never_empty() {
        let broker = retaining("-a--b-c").await;
        let body = Data::Json(Bytes::from(vec![b'0'; BODY_BYTES]));
        let bytes = FrameSize::message(&topic(), &body, None, None).longest;
        for (bytes_max, expected) in [
            (1, "a+"),
            (bytes, "a+"),
            (2 * bytes - 1, "a+"),
            (2 * bytes, "ab+"),
            (3 * bytes, "abc"),
            (4 * bytes, "abc"),
        ] {
            let bounded = HistoryQuery {
                bytes_max,
                ..query(10, false)
            };
            assert_eq!(page(&broker, bounded).await.0, expected, "{bytes_max}");
        }
    }
}
