//! The outbox against a plain model, over random steps, and the rules of its lanes one by one.
//!
//! In: pushes, promotions, shedding, leaves and writes of any size. Out: the frames that the socket
//! took, which must be what the model says. The model knows nothing of queues: for each topic what
//! waits of it in order, and the highest priority among that.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;
use slotmap::SlotMap;

use super::*;
use crate::broker::model::publication;
use crate::broker::{Body, Entry};
use crate::worker::encode;
use fanfare_protocol::event::{Event, Gap, GapReason, Ok as Answer};
use fanfare_protocol::form::{Encoding, WireForm};
use fanfare_protocol::ids::{App, Topic};

mod lanes_by_hand;
mod model;

use model::Model;

const JSON: WireForm = WireForm::websocket(Encoding::Json);
/// Topics below this one have history.
const WITH_HISTORY: usize = 3;
const TOPICS: usize = 6;
const BOUND: Bound = Bound {
    messages_max: 24,
    bytes_max: 6_000,
};

/// One topic under test.
struct Line {
    key: TopicKey,
    name: Topic,
    last: u64,
}

fn lines() -> Vec<Line> {
    let mut keys: SlotMap<TopicKey, ()> = SlotMap::default();
    let mut line = |n: usize| Line {
        key: keys.insert(()),
        name: Topic::new(&App::default_app(), &format!("t{n}")).expect("a name"),
        last: 0,
    };
    (0..TOPICS).map(&mut line).collect()
}

fn at(ms: u64) -> Position {
    Position { ms, seq: 0 }
}

impl Line {
    fn publish(&mut self, priority: Priority, key: Option<u16>, bytes: usize) -> Arc<Outgoing> {
        let data = format!("\"{}\"", "x".repeat(bytes));
        let mut publication = publication(Bytes::from(data), 0);
        publication.priority = priority;
        publication.conflate = key.is_some();
        publication.key = key.map(|k| k.to_string());
        let prev = at(self.last);
        self.last += 1;
        let entry = Entry {
            position: at(self.last),
            prev,
            body: Body::Publication(Arc::new(publication)),
        };
        // Positions are shown, so that a test can tell messages apart.
        Outgoing::new(self.name.clone(), entry, true)
    }
}

fn reply(id: u64) -> Bytes {
    let answer = Answer {
        id: Some(id),
        ..Answer::default()
    };
    encode::frame(JSON, &Event::Ok(answer))
}

fn acked(id: u64) -> Bytes {
    encode::frame(JSON, &Event::Acked { position: at(id) })
}

fn notice(topic: &Topic, id: u64) -> Bytes {
    let gap = Gap {
        topic: topic.clone(),
        of: None,
        from: Some(at(id)),
        to: None,
        reason: GapReason::Failover,
        dropped: None,
    };
    encode::frame(JSON, &Event::Gap(gap))
}

/// The first whole frame of these bytes, and how long it is.
fn frame(bytes: &[u8]) -> Option<(Value, usize)> {
    let [first, length, rest @ ..] = bytes else {
        return None;
    };
    assert_eq!(*first, 0x81, "a whole text frame begins here");
    let (length, begins) = match length {
        126 => (
            u16::from_be_bytes([*rest.first()?, *rest.get(1)?]).into(),
            4,
        ),
        short => (usize::from(*short), 2),
    };
    let payload = bytes.get(begins..begins + length)?;
    let event = serde_json::from_slice(payload).expect("JSON");
    Some((event, begins + length))
}

/// A socket that takes so many bytes and then blocks.
fn socket(room: &mut usize, taken: &mut Vec<u8>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    assert!(!slices.is_empty(), "a write of nothing");
    assert!(slices.iter().all(|s| !s.is_empty()), "an empty frame");
    if *room == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let before = *room;
    for slice in slices {
        let count = slice.len().min(*room);
        taken.extend_from_slice(&slice[..count]);
        *room -= count;
    }
    Ok(before - *room)
}

#[derive(Debug, Clone)]
enum Step {
    Reply,
    Acked,
    Last,
    /// Pushed whatever waits, as from a page.
    Push(usize, Priority, Option<u16>, usize),
    /// Pushed if there is room, which is made.
    Deliver(usize, Priority, Option<u16>, usize),
    Notice(usize),
    Forget(usize),
    DropUnsent,
    Write(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let priority = prop_oneof![
        Just(Priority::Critical),
        Just(Priority::High),
        Just(Priority::Normal),
        Just(Priority::Low),
    ];
    let key = prop::option::of(0u16..3);
    // Now and then one is longer than a quarter of the bound.
    let bytes = prop_oneof![9 => 0usize..200, 1 => 1_000usize..3_000];
    let message = (0..TOPICS, priority, key, bytes);
    prop_oneof![
        6 => Just(Step::Reply),
        3 => Just(Step::Acked),
        1 => Just(Step::Last),
        12 => message.clone().prop_map(|(t, p, k, b)| Step::Push(t, p, k, b)),
        60 => message.prop_map(|(t, p, k, b)| Step::Deliver(t, p, k, b)),
        6 => (0..TOPICS).prop_map(Step::Notice),
        3 => (0..TOPICS).prop_map(Step::Forget),
        1 => Just(Step::DropUnsent),
        // At times nothing, at times everything, mostly a few frames.
        12 => prop_oneof![4 => 0usize..600, 1 => Just(100_000usize)].prop_map(Step::Write),
    ]
}

struct Subject {
    lines: Vec<Line>,
    outbox: Outbox,
    spares: LanePool,
    model: Model,
    taken: Vec<u8>,
    ids: u64,
}

impl Subject {
    fn new() -> Self {
        let lines = lines();
        let keys = lines.iter().map(|l| l.key);
        let mut model = Model::new(keys.take(WITH_HISTORY));
        for line in &lines {
            model.name(line.name.name(), line.key);
        }
        Self {
            model,
            lines,
            outbox: Outbox::new(JSON),
            spares: LanePool::default(),
            taken: Vec::new(),
            ids: 0,
        }
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        self.ids += 1;
        let id = self.ids;
        match *step {
            Step::Reply => {
                self.outbox.push_reply(reply(id), &mut self.spares);
                self.model.replies.push_back(format!("ok {id}"));
            }
            Step::Acked => {
                self.outbox.push_acked(acked(id), &mut self.spares);
                self.model.push_acked(id);
            }
            Step::Last => {
                self.outbox.push_last(reply(id), &mut self.spares);
                self.model.last.push_back(format!("ok {id}"));
            }
            Step::Push(n, priority, key, bytes) => {
                let outgoing = self.lines[n].publish(priority, key, bytes);
                self.push(n, outgoing);
            }
            Step::Deliver(n, priority, key, bytes) => {
                let outgoing = self.lines[n].publish(priority, key, bytes);
                self.deliver(n, outgoing)?;
            }
            Step::Notice(n) => {
                let Line { key, name, .. } = &self.lines[n];
                let frame = notice(name, id);
                self.model.push_notice(*key, id, frame.len());
                self.outbox.push_notice(*key, frame, &mut self.spares);
            }
            Step::Forget(n) => {
                self.outbox.forget(self.lines[n].key);
                self.model.topics.remove(&self.lines[n].key);
            }
            Step::DropUnsent => {
                let waited = self.model.messages_count();
                prop_assert_eq!(self.outbox.drop_unsent(), waited as u64);
                self.model.drop_unsent();
            }
            Step::Write(room) => self.write(room)?,
        }
        self.model.check(&self.outbox)
    }

    fn push(&mut self, n: usize, outgoing: Arc<Outgoing>) {
        let key = self.lines[n].key;
        self.model.push_message(key, &outgoing);
        self.outbox.push_message(key, outgoing, &mut self.spares);
    }

    /// As a worker does it.
    fn deliver(&mut self, n: usize, outgoing: Arc<Outgoing>) -> Result<(), TestCaseError> {
        let key = self.lines[n].key;
        let mut fits = self.outbox.has_room_for(&outgoing, BOUND);
        if !fits {
            let with_history = self.model.with_history.clone();
            let has_history = |t: TopicKey| with_history.contains(&t);
            let spares = &mut self.spares;
            let shed = self
                .outbox
                .make_room(key, &outgoing, BOUND, spares, has_history);
            self.model.shed(key, &outgoing, &shed, &self.outbox)?;
            fits = shed.fits;
        }
        if fits {
            self.push(n, outgoing);
        } else if !self.model.with_history.contains(&key) {
            self.outbox.push_dropped(key, &outgoing, &mut self.spares);
            self.model.push_dropped(key, &outgoing);
        }
        Ok(())
    }

    fn write(&mut self, mut room: usize) -> Result<(), TestCaseError> {
        let offered = room;
        let (taken, spares) = (&mut self.taken, &mut self.spares);
        let began = taken.len();
        let written = self
            .outbox
            .write(spares, |slices| socket(&mut room, taken, slices))
            .expect("it takes or blocks");
        prop_assert_eq!(written.bytes as usize, self.taken.len() - began);
        prop_assert_eq!(written.bytes as usize, offered - room);
        prop_assert_eq!(written.blocked, !self.outbox.is_empty());
        let (mut frames, mut gaps) = (0, 0);
        while let Some((event, length)) = frame(&self.taken) {
            self.taken.drain(..length);
            self.model.wrote(&event)?;
            frames += 1;
            gaps += u64::from(event["reason"] == "slow");
        }
        prop_assert_eq!((written.frames, written.gaps), (frames, gaps));
        self.model.began(&self.outbox, self.taken.len())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Per topic nothing is lost that was not reported, nothing comes twice or out of order; what
    /// waits is counted exactly; answers come first and the close frame last.
    #[test]
    fn what_an_outbox_sends_is_what_the_model_says_whatever_was_pushed_and_shed(
        steps in prop::collection::vec(step(), 1..250),
    ) {
        let mut subject = Subject::new();
        for step in &steps {
            subject.take(step)?;
        }
        subject.take(&Step::Write(10_000_000))?;
        prop_assert!(subject.outbox.is_empty());
        prop_assert!(subject.taken.is_empty(), "every frame is whole");
        prop_assert!(subject.model.is_empty());
        prop_assert_eq!(subject.outbox.messages(), Waiting::default());
        prop_assert_eq!(subject.outbox.replies(), Waiting::default());
    }
}
