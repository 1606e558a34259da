//! What a client may read, judged afterwards by what became of each publication.
//!
//! In: the events of one client, and the fate of every publication. Out: the first event that may
//! not be there, or the first publication that is missing without a word. Within a stay numbers only
//! rise, except that a failover begins anew where it says; what is passed over was lost by the
//! broker, is stood for by a newer one of its key, or lies in a gap that was told.

use std::collections::HashMap;

use serde_json::Value;

use fanfare_protocol::ids::Position;

/// The mark at the end of a stay.
pub(super) const LEFT: u64 = 1;
/// Marks from here on begin a stay after the publication whose number is added.
pub(super) const BEGUN: u64 = 1_000;
const MARKS_PER_TOPIC: u64 = 1_000_000;

/// Above every position.
const END: Position = Position {
    ms: u64::MAX,
    seq: u64::MAX,
};

/// A mark of this topic.
pub(super) fn mark(topic: usize, what: u64) -> u64 {
    topic as u64 * MARKS_PER_TOPIC + what
}

/// One publication, in the order of their numbers; the first one stands for the beginning.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub(super) key: Option<String>,
    pub(super) position: Position,
    pub(super) is_lost: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    History,
    Bare,
}

/// A topic as it is at the end.
pub(super) struct Topic<'a> {
    pub(super) kind: Kind,
    pub(super) published: &'a [Published],
}

/// What was met, so that a test can say that there was enough.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) messages: u64,
    pub(super) gaps: u64,
    pub(super) failovers: u64,
}

/// A stay, as far as it was read.
#[derive(Debug)]
struct Stay {
    reached: usize,
    /// No message has come yet.
    is_new: bool,
    /// From and to of what was told since the last message.
    gaps: Vec<(Position, Position)>,
}

pub(super) fn check(events: &[Value], topics: &[Topic], seen: &mut Seen) -> Result<(), String> {
    let mut stays: HashMap<usize, Stay> = HashMap::new();
    for event in events {
        if event["type"] == "ok" {
            let id = event["id"].as_u64().ok_or("no id")?;
            let topic = (id / MARKS_PER_TOPIC) as usize;
            match id % MARKS_PER_TOPIC {
                LEFT => stays.remove(&topic),
                begun => stays.insert(
                    topic,
                    Stay {
                        reached: (begun - BEGUN) as usize,
                        is_new: true,
                        gaps: Vec::new(),
                    },
                ),
            };
            continue;
        }
        let name = event["topic"].as_str().ok_or("no topic")?;
        let number: usize = name.parse().map_err(|_| "another topic")?;
        let (topic, stay) = (&topics[number], stays.get_mut(&number));
        let stay = stay.ok_or(format!("{event} outside of a stay"))?;
        match event["type"].as_str() {
            Some("message") => message(event, topic, stay, seen)?,
            Some("gap") => gap(event, topic, stay, seen)?,
            _ => return Err(format!("{event} was not expected")),
        }
    }
    for (number, stay) in stays {
        let topic = &topics[number];
        passed_over(topic, &stay, topic.published.len())
            .map_err(|what| format!("at the end of {number}: {what}"))?;
    }
    Ok(())
}

fn message(event: &Value, topic: &Topic, stay: &mut Stay, seen: &mut Seen) -> Result<(), String> {
    let number = event["data"].as_u64().ok_or("no number")? as usize;
    if number <= stay.reached {
        return Err(format!("{event} after {}", stay.reached));
    }
    passed_over(topic, stay, number).map_err(|what| format!("before {event}: {what}"))?;
    stay.reached = number;
    stay.is_new = false;
    stay.gaps.clear();
    seen.messages += 1;
    Ok(())
}

/// Whether nothing between what was reached and `until` is missing without a word.
fn passed_over(topic: &Topic, stay: &Stay, until: usize) -> Result<(), String> {
    let published = topic.published;
    for number in stay.reached + 1..until {
        let missing = &published[number];
        let is_told =
            |(from, to): &(Position, Position)| *from < missing.position && missing.position <= *to;
        let has_newer = missing.key.is_some()
            && published[number + 1..]
                .iter()
                .any(|newer| newer.key == missing.key);
        if !missing.is_lost && !has_newer && !stay.gaps.iter().any(is_told) {
            return Err(format!("{number} is missing"));
        }
    }
    Ok(())
}

fn gap(event: &Value, topic: &Topic, stay: &mut Stay, seen: &mut Seen) -> Result<(), String> {
    let position = |name: &str| -> Option<Position> { event[name].as_str()?.parse().ok() };
    let from = position("from").ok_or(format!("{event} begins nowhere"))?;
    let number = topic.published.iter().position(|p| p.position == from);
    let number = number.ok_or(format!("{event} begins nowhere"))?;
    match (event["reason"].as_str(), position("to")) {
        (Some("failover"), None) => {
            seen.failovers += 1;
            passed_over(topic, stay, number + 1).or_else(|what| match topic.kind {
                // Its pages begin before that, and bring it.
                Kind::History => Ok(()),
                Kind::Bare => Err(format!("before {event}: {what}")),
            })?;
            if topic.kind == Kind::Bare && stay.is_new {
                // It began at what may be lost, and what has passed by is not promised.
                stay.gaps.push((from, END));
            }
            stay.reached = stay.reached.min(number);
        }
        (Some("slow"), Some(to)) if topic.kind == Kind::Bare => {
            seen.gaps += 1;
            stay.gaps.push((from, to));
        }
        _ => return Err(format!("{event} was not expected")),
    }
    Ok(())
}
