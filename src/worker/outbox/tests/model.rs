//! What an outbox should hold, without queues: for each topic a list and a lane.
//!
//! In: what was pushed, what [`Outbox::make_room`] says it did, and each frame that the socket took.
//! Out: an error where the outbox holds or sends something else.

use std::collections::{BTreeMap, HashSet, VecDeque};

use proptest::prelude::*;
use serde_json::Value;

use super::super::lanes::{self, Dropped, Item};
use super::{BOUND, Bound, JSON, frame};
use crate::worker::hub::TopicKey;
use crate::worker::outbox::{LAST, Outbox, Shed, Waiting};
use crate::worker::outgoing::Outgoing;
use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::Position;

type Checked = Result<(), TestCaseError>;

/// What takes a place in the order of its topic.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Unit {
    Message {
        at: Position,
        prev: Position,
        key: Option<String>,
        bytes: usize,
    },
    Notice {
        id: u64,
        bytes: usize,
    },
    Gap {
        from: Position,
        to: Position,
        dropped: u64,
    },
}

impl Unit {
    fn message(outgoing: &Outgoing) -> Self {
        Self::Message {
            at: outgoing.position,
            prev: outgoing.prev,
            key: outgoing.conflation_key().map(str::to_owned),
            bytes: outgoing.frame(JSON).len(),
        }
    }

    fn of(item: &Item) -> Self {
        match item {
            Item::Message { outgoing, .. } => Self::message(outgoing),
            Item::Notice { frame: bytes, .. } => {
                let (event, length) = frame(bytes).expect("a whole frame");
                let from = position(&event["from"]).expect("notices have one here");
                Self::Notice {
                    id: from.ms,
                    bytes: length,
                }
            }
            Item::Dropped(dropped) => {
                // Made now, it must be made again when more is dropped.
                let _ = item.frame(JSON);
                assert_eq!(dropped.gap.reason, GapReason::Slow);
                Self::Gap {
                    from: dropped.gap.from.expect("known"),
                    to: dropped.gap.to.expect("known"),
                    dropped: dropped.gap.dropped.expect("counted"),
                }
            }
            Item::Reply(_) | Item::Acked(_) => panic!("{item:?} has no topic"),
        }
    }

    /// What it stands for when it is dropped, or has been.
    fn dropped(&self) -> Option<(Position, Position, u64)> {
        match self {
            Self::Message { at, prev, .. } => Some((*prev, *at, 1)),
            Self::Gap { from, to, dropped } => Some((*from, *to, *dropped)),
            Self::Notice { .. } => None,
        }
    }

    fn is_message(&self) -> bool {
        matches!(self, Self::Message { .. })
    }

    fn is_shown_by(&self, event: &Value) -> bool {
        let is = |name: &str, p: &Position| position(&event[name]) == Some(*p);
        match self {
            Self::Message { at, .. } => event["type"] == "message" && is("position", at),
            Self::Notice { id, .. } => event["reason"] == "failover" && is("from", &super::at(*id)),
            Self::Gap { from, to, dropped } => {
                let is_place = is("from", from) && is("to", to);
                event["reason"] == "slow" && is_place && event["dropped"] == *dropped
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Message { bytes, .. } | Self::Notice { bytes, .. } => *bytes,
            Self::Gap { .. } => size_of::<Dropped>(),
        }
    }
}

fn position(value: &Value) -> Option<Position> {
    value.as_str()?.parse().ok()
}

/// What waits of one topic.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Waits {
    lane: usize,
    units: VecDeque<Unit>,
}

type Topics = BTreeMap<TopicKey, Waits>;

/// See the module.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) with_history: Vec<TopicKey>,
    pub(super) replies: VecDeque<String>,
    pub(super) topics: Topics,
    pub(super) last: VecDeque<String>,
    names: BTreeMap<String, TopicKey>,
    /// The frame that the socket has taken a part of: how it will show, when it is whole.
    begun: Option<Begun>,
}

#[derive(Debug)]
enum Begun {
    Answer(String),
    Unit(Unit),
}

impl Model {
    pub(super) fn new(with_history: impl Iterator<Item = TopicKey>) -> Self {
        Self {
            with_history: with_history.collect(),
            replies: VecDeque::new(),
            topics: Topics::new(),
            last: VecDeque::new(),
            names: BTreeMap::new(),
            begun: None,
        }
    }

    pub(super) fn name(&mut self, name: &str, key: TopicKey) {
        self.names.insert(name.to_owned(), key);
    }

    pub(super) fn is_empty(&self) -> bool {
        let is_empty = self.replies.is_empty() && self.topics.is_empty();
        is_empty && self.last.is_empty() && self.begun.is_none()
    }

    pub(super) fn messages_count(&self) -> usize {
        self.topics.values().map(|w| w.units.len()).sum()
    }

    pub(super) fn push_acked(&mut self, id: u64) {
        self.replies.retain(|r| !r.starts_with("acked"));
        self.replies.push_back(format!("acked {id}-0"));
    }

    fn push(&mut self, topic: TopicKey, lane: usize, unit: Unit) {
        let empty = Waits {
            lane,
            units: VecDeque::new(),
        };
        let waits = self.topics.entry(topic).or_insert(empty);
        waits.lane = waits.lane.min(lane);
        waits.units.push_back(unit);
    }

    pub(super) fn push_message(&mut self, topic: TopicKey, outgoing: &Outgoing) {
        let lane = lanes::lane_of(outgoing.priority());
        self.push(topic, lane, Unit::message(outgoing));
    }

    pub(super) fn push_notice(&mut self, topic: TopicKey, id: u64, bytes: usize) {
        let lane = self.topics.get(&topic).map(|w| w.lane);
        let lane = lane.unwrap_or(lanes::lane_of(fanfare_protocol::ids::Priority::Normal));
        self.push(topic, lane, Unit::Notice { id, bytes });
    }

    pub(super) fn push_dropped(&mut self, topic: TopicKey, outgoing: &Outgoing) {
        let newest = self.topics.get_mut(&topic).and_then(|w| w.units.back_mut());
        if let Some(Unit::Gap { to, dropped, .. }) = newest {
            *to = outgoing.position;
            *dropped += 1;
            return;
        }
        let gap = Unit::Gap {
            from: outgoing.prev,
            to: outgoing.position,
            dropped: 1,
        };
        self.push(topic, lanes::lane_of(outgoing.priority()), gap);
    }

    pub(super) fn drop_unsent(&mut self) {
        self.replies.clear();
        self.topics.clear();
        self.last.clear();
    }

    /// The outbox has made room for this message, and says how.
    pub(super) fn shed(
        &mut self,
        topic: TopicKey,
        outgoing: &Outgoing,
        shed: &Shed,
        outbox: &Outbox,
    ) -> Checked {
        let conflated = self.conflate();
        let older = self.older(topic, outgoing);
        let in_place = older.clone().filter(|_| shed.fits);
        prop_assert_eq!(conflated + in_place.iter().len(), shed.conflated);
        let lane = lanes::lane_of(outgoing.priority());
        let own = self.topics.get_mut(&topic).map(|waits| {
            waits.lane = waits.lane.min(lane);
            waits.lane
        });
        let own = own.unwrap_or(lane);
        let has_history = self.with_history.contains(&topic);
        let first = if has_history { own + 1 } else { own };
        let after = view(outbox);
        let mut dropped = 0;
        let mut lowest_taken_back = 0;
        for (key, before) in &self.topics {
            let now = after.get(key).map_or(&[][..], |w| {
                assert_eq!(w.units.as_slices().1, []);
                w.units.as_slices().0
            });
            let is_kept = |unit: &&Unit| Some(*unit) != in_place.as_ref() || *key != topic;
            let units: Vec<_> = before.units.iter().filter(is_kept).cloned().collect();
            if now == units {
                continue;
            }
            prop_assert!(before.lane >= first, "a lane above was touched");
            if let Some(back) = shed.taken_back.iter().find(|b| b.topic == *key) {
                prop_assert!(self.with_history.contains(key));
                let notice = units.iter().rposition(|u| !u.is_message());
                let (kept, taken) = units.split_at(notice.map_or(0, |n| n + 1));
                prop_assert_eq!(kept, now);
                let first_taken = taken.first().and_then(Unit::dropped);
                prop_assert_eq!(first_taken.map(|(prev, ..)| prev), Some(back.at));
                prop_assert_eq!(lanes::lane_of(back.urgency), before.lane);
                lowest_taken_back = lowest_taken_back.max(before.lane);
            } else {
                prop_assert!(!self.with_history.contains(key));
                dropped += merged(&units, now)?;
            }
        }
        prop_assert_eq!(dropped, shed.dropped);
        self.topics = after;
        let mut waiting = outbox.messages();
        waiting.add(outgoing.frame(JSON).len());
        let is_full = waiting.messages > 1 && BOUND.exceeded(waiting);
        if shed.fits {
            let with_older = Bound {
                messages_max: usize::MAX,
                bytes_max: BOUND.bytes_max / 4 * 5,
            };
            let is_small = |older: &Unit| waiting.bytes <= outbox.messages().bytes + older.bytes();
            let may_exceed = |older| is_small(older) || !with_older.exceeded(waiting);
            prop_assert!(!is_full || in_place.as_ref().is_some_and(may_exceed));
        } else {
            prop_assert!(is_full);
            self.check_nothing_left(first, (topic, older))?;
        }
        Ok(())
    }

    /// There is no room: then there is nothing that could have been shed either, but what the message
    /// itself might have stood for.
    fn check_nothing_left(&self, first: usize, older: (TopicKey, Option<Unit>)) -> Checked {
        for (topic, waits) in self.topics.iter().filter(|(_, w)| w.lane >= first) {
            let left = if self.with_history.contains(topic) {
                waits.units.back().is_some_and(Unit::is_message)
            } else {
                let is_older = |unit: &Unit| *topic == older.0 && Some(unit) == older.1.as_ref();
                let mut units = waits.units.iter();
                units.any(|unit| unit.is_message() && !is_older(unit))
            };
            prop_assert!(!left, "{:?} is left, and there is no room", waits);
        }
        Ok(())
    }

    /// The message that waits and for which this one may stand.
    fn older(&self, topic: TopicKey, outgoing: &Outgoing) -> Option<Unit> {
        let of = outgoing.conflation_key()?;
        let is_it = |unit: &&Unit| match unit {
            Unit::Message { key, .. } => key.as_deref() == Some(of),
            Unit::Notice { .. } | Unit::Gap { .. } => false,
        };
        self.topics.get(&topic)?.units.iter().find(is_it).cloned()
    }

    /// Of each key keeps the newest.
    fn conflate(&mut self) -> usize {
        let before = self.messages_count();
        for waits in self.topics.values_mut() {
            let mut seen = HashSet::new();
            let newest_first = std::mem::take(&mut waits.units).into_iter().rev();
            for unit in newest_first {
                if let Unit::Message { key: Some(key), .. } = &unit
                    && !seen.insert(key.clone())
                {
                    continue;
                }
                waits.units.push_front(unit);
            }
        }
        before - self.messages_count()
    }

    /// The socket has a whole frame.
    pub(super) fn wrote(&mut self, event: &Value) -> Checked {
        match self.begun.take() {
            Some(Begun::Answer(answer)) => prop_assert_eq!(answer, answer_of(event)),
            Some(Begun::Unit(unit)) => prop_assert!(unit.is_shown_by(event), "{}", event),
            None => {
                let topic = event["topic"].as_str().and_then(|t| self.names.get(t));
                match topic.copied() {
                    Some(topic) => {
                        let unit = self.next_unit(topic)?;
                        prop_assert!(unit.is_shown_by(event), "{} before {:?}", event, unit);
                    }
                    None => prop_assert_eq!(self.next_answer()?, answer_of(event)),
                }
            }
        }
        Ok(())
    }

    fn next_unit(&mut self, topic: TopicKey) -> Result<Unit, TestCaseError> {
        prop_assert!(self.replies.is_empty(), "answers come first");
        let waits = self.topics.get_mut(&topic);
        let unit = waits.and_then(|w| w.units.pop_front());
        self.topics.retain(|_, waits| !waits.units.is_empty());
        unit.ok_or(TestCaseError::fail("nothing of the topic waited"))
    }

    fn next_answer(&mut self) -> Result<String, TestCaseError> {
        if let Some(reply) = self.replies.pop_front() {
            return Ok(reply);
        }
        prop_assert!(self.topics.is_empty(), "the last frame comes last");
        let last = self.last.pop_front();
        last.ok_or(TestCaseError::fail("no answer waited"))
    }

    /// The socket has taken so many bytes of a frame that is not whole.
    pub(super) fn began(&mut self, outbox: &Outbox, bytes: usize) -> Checked {
        prop_assert_eq!(outbox.head_written, bytes);
        if bytes == 0 || self.begun.is_some() {
            return Ok(());
        }
        let (item, _) = outbox.head.as_ref().expect("a part of it is written");
        self.begun = Some(match item.topic() {
            None => {
                let answer = self.next_answer()?;
                let (event, _) = frame(item.frame(JSON)).expect("whole");
                prop_assert_eq!(&answer, &answer_of(&event));
                Begun::Answer(answer)
            }
            Some(topic) => {
                let unit = self.next_unit(topic)?;
                prop_assert_eq!(&unit, &Unit::of(item));
                Begun::Unit(unit)
            }
        });
        Ok(())
    }

    /// The outbox holds what it should, where it should, and has counted it.
    pub(super) fn check(&self, outbox: &Outbox) -> Checked {
        prop_assert_eq!(&view(outbox), &self.topics);
        let mut messages = Waiting::default();
        for unit in self.topics.values().flat_map(|w| &w.units) {
            messages.add(unit.bytes());
        }
        prop_assert_eq!(outbox.messages(), messages);
        let begun = matches!(self.begun, Some(Begun::Answer(_)));
        let replies = self.replies.len() + self.last.len() + usize::from(begun);
        prop_assert_eq!(outbox.replies().messages, replies);
        let mut by_lane = [Waiting::default(); LAST];
        for (lane, queue) in outbox
            .lanes
            .iter()
            .flat_map(|l| l.queues.iter().enumerate())
        {
            for item in queue {
                by_lane[lane % LAST].add(item.bytes_count(outbox.form));
            }
        }
        if let Some((item, lane)) = &outbox.head {
            let bytes = item.bytes_count(outbox.form);
            by_lane[lane % LAST].add(bytes.saturating_sub(outbox.head_written));
        }
        prop_assert_eq!(outbox.waiting(), by_lane);
        prop_assert_eq!(outbox.is_empty(), self.is_empty());
        if let Some(lanes) = &outbox.lanes {
            prop_assert!(!lanes.is_empty(), "empty lanes are given back");
        }
        Ok(())
    }
}

fn answer_of(event: &Value) -> String {
    match event["type"].as_str() {
        Some("acked") => format!("acked {}", event["position"].as_str().unwrap_or_default()),
        _ => format!("ok {}", event["id"]),
    }
}

/// Whether `now` is `before` with some neighbours told as one gap; how many messages became so.
fn merged(before: &[Unit], now: &[Unit]) -> Result<u64, TestCaseError> {
    let mut rest = before.iter();
    let mut messages = 0;
    for unit in now {
        let Unit::Gap { from, to, dropped } = unit else {
            prop_assert_eq!(Some(unit), rest.next());
            continue;
        };
        let (mut count, mut begins, mut ends) = (0, None, None);
        while count < *dropped {
            let next = rest.next();
            let stood_for = next.and_then(Unit::dropped);
            let Some((first, last, more)) = stood_for else {
                return Err(TestCaseError::fail(format!("{unit:?} tells of {next:?}")));
            };
            messages += u64::from(next.is_some_and(Unit::is_message));
            count += more;
            begins = begins.or(Some(first));
            ends = Some(last);
        }
        prop_assert_eq!((Some(*from), Some(*to), *dropped), (begins, ends, count));
    }
    prop_assert_eq!(rest.next(), None, "gone without a word");
    Ok(messages)
}

/// What waits in the outbox, by topic. All of one topic stands in one lane.
fn view(outbox: &Outbox) -> Topics {
    let mut topics = Topics::new();
    let mut add = |lane: usize, item: &Item| {
        let Some(topic) = item.topic() else { return };
        assert!((1..LAST).contains(&lane));
        let waits = topics.entry(topic).or_insert(Waits {
            lane,
            units: VecDeque::new(),
        });
        assert_eq!(waits.lane, lane, "one topic waits in two lanes");
        waits.units.push_back(Unit::of(item));
    };
    if let Some((item, lane)) = &outbox.head
        && outbox.head_written == 0
    {
        assert!(outbox.lanes.is_none(), "nothing waits before what is whole");
        add(*lane, item);
    }
    for (lane, queue) in outbox
        .lanes
        .iter()
        .flat_map(|l| l.queues.iter().enumerate())
    {
        queue.iter().for_each(|item| add(lane, item));
    }
    topics
}
