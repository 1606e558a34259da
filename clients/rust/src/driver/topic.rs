//! A subscription as the client's task sees it: its queue, its place, and what an event is to its
//! reader.
//!
//! Pure but for the queue. In: frames and events of one topic. Out: items in the queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fanfare_protocol::client::{Heard, decode_event};
use fanfare_protocol::command::Subscribe;
use fanfare_protocol::event::{Event as Said, Message};
use fanfare_protocol::form::Encoding;
use fanfare_protocol::ids::Position;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::frame::Frame;
use crate::subscription::{Gap, Item, Queued, ROOM_TO_RESUME, Shared};

/// Most live messages that wait until a topic is read up to them.
const AHEAD_MAX: usize = 256;

/// Where a subscription is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stay {
    /// Its `subscribe` waits, or is on its way.
    Joining,
    /// What comes is for its reader.
    Live,
    /// Its queue was full: what comes is passed over. `is_left`: and comes no more.
    Held { is_left: bool },
    /// It was asked for again. What still comes is of the stay before.
    Rejoining,
    /// A topic that cannot be left is read by `history` up to what comes live.
    Reading,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Topic {
    /// As it was joined.
    pub(super) options: Subscribe,
    pub(super) queue: mpsc::Sender<Queued>,
    pub(super) shared: Arc<Shared>,
    /// Behind the last item that found room.
    pub(super) position: Option<String>,
    /// Messages without a position came after it, or were passed over.
    pub(super) is_unplaced: bool,
    pub(super) overflows: u64,
    pub(super) stay: Stay,
    /// While it is read: what came live meanwhile.
    pub(super) ahead: VecDeque<Frame>,
    /// More came than could wait there.
    pub(super) is_ahead_cut: bool,
    /// Messages with a position that were passed over, and come again by `history`.
    pub(super) passed_over: u64,
    /// There is something to be read, however many were passed over.
    pub(super) is_behind: bool,
    /// A gap that the server told while items were passed over.
    pub(super) owed: Option<Gap>,
    /// Not asked for again before.
    pub(super) not_before: Option<Instant>,
}

/// What became of an item.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Queueing {
    /// It waits for the reader, or the reader has gone and has said so.
    Done,
    /// There is no room.
    Full,
}

impl Topic {
    pub(super) fn new(
        options: Subscribe,
        queue: mpsc::Sender<Queued>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            position: options.since.map(|since| since.to_string()),
            options,
            queue,
            shared,
            is_unplaced: false,
            overflows: 0,
            stay: Stay::Joining,
            ahead: VecDeque::new(),
            is_ahead_cut: false,
            passed_over: 0,
            is_behind: false,
            owed: None,
            not_before: None,
        }
    }

    /// Enters another stay.
    pub(super) fn enter(&mut self, stay: Stay) {
        let is_held = matches!(stay, Stay::Held { .. });
        self.shared.is_held.store(is_held, Ordering::SeqCst);
        self.stay = stay;
    }

    /// Held, left, and with room again.
    pub(super) fn is_ready(&self) -> bool {
        let is_held = self.stay == Stay::Held { is_left: true };
        let is_time = self.not_before.is_none_or(|at| at <= Instant::now());
        is_held
            && is_time
            && self.queue.capacity() >= ROOM_TO_RESUME
            && self.shared.has_room_for(1 << 20)
    }

    pub(super) fn queue(&mut self, item: Item, bytes: usize) -> Queueing {
        if !self.shared.has_room_for(bytes) {
            return Queueing::Full;
        }
        // Before it can be taken.
        self.shared.bytes.fetch_add(bytes, Ordering::SeqCst);
        match self.queue.try_send((item, bytes)) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Queueing::Done,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.shared.bytes.fetch_sub(bytes, Ordering::SeqCst);
                Queueing::Full
            }
        }
    }

    /// Queues an event of the server.
    pub(super) fn deal(&mut self, frame: &Frame) -> Queueing {
        let Some(item) = self.item(frame) else {
            return Queueing::Done;
        };
        if self.queue(item, frame.text.len()) == Queueing::Full {
            return Queueing::Full;
        }
        if let Some(place) = frame.head.place_after() {
            self.position = Some(place.to_owned());
            self.is_unplaced = false;
        }
        self.is_unplaced |= frame.head.is_unplaced();
        Queueing::Done
    }

    /// Notes an event that is passed over.
    pub(super) fn pass_over(&mut self, frame: &Frame) {
        self.is_unplaced |= frame.head.is_unplaced();
        if frame.head.kind == "message" && frame.head.position.is_some() {
            self.passed_over += 1;
        }
        if frame.head.kind == "gap" {
            self.owed = serde_json::from_str(&frame.text).ok();
        }
    }

    /// Goes on after a pause: what was passed over comes by itself, or was told.
    pub(super) fn go_on(&mut self, position: Option<&str>) {
        self.position = position.map(str::to_owned);
        self.is_unplaced = false;
        self.passed_over = 0;
        self.owed = None;
        self.enter(Stay::Live);
    }

    /// Keeps an event until the topic is read up to it.
    pub(super) fn keep(&mut self, frame: Frame) {
        if self.ahead.len() < AHEAD_MAX && !self.is_ahead_cut {
            self.ahead.push_back(frame);
        } else {
            self.is_ahead_cut = true;
            self.pass_over(&frame);
        }
    }

    /// What was kept comes again with the next page.
    pub(super) fn pass_over_ahead(&mut self) {
        for frame in std::mem::take(&mut self.ahead) {
            self.pass_over(&frame);
        }
        self.is_ahead_cut = false;
    }

    /// Queues a message that was read.
    pub(super) fn read(&mut self, message: Message) -> Queueing {
        let position = message.position;
        let bytes = message.data.bytes().len();
        if self.queue(Item::Message(message), bytes) == Queueing::Full {
            return Queueing::Full;
        }
        if let Some(position) = position {
            self.position = Some(position.to_string());
        }
        self.passed_over = self.passed_over.saturating_sub(1);
        Queueing::Done
    }

    /// Whether an event that was kept lies behind what was read.
    pub(super) fn is_new(&self, frame: &Frame) -> bool {
        let place = frame.head.place_after().and_then(parsed);
        let read = self.position.as_deref().and_then(parsed);
        match (place, read) {
            (Some(place), Some(read)) => place > read,
            _ => true,
        }
    }

    /// Queues a gap.
    pub(super) fn tell_gap(&mut self, gap: Gap) -> Queueing {
        let to = gap.to.filter(|_| gap.of.is_none());
        let queued = self.queue(Item::Gap(gap), 0);
        if let Some(to) = to.filter(|_| queued == Queueing::Done) {
            self.position = Some(to.to_string());
        }
        queued
    }

    /// What was passed over and will not come.
    pub(super) fn lost(&mut self, reason: &str) -> Gap {
        let dropped = std::mem::take(&mut self.passed_over);
        Gap {
            of: None,
            from: self.position.as_deref().and_then(parsed),
            to: None,
            reason: reason.to_owned(),
            dropped: (dropped > 0).then_some(dropped),
        }
    }

    /// An event as an item; `None` where it is not for subscriptions. A message that cannot be read
    /// is a gap.
    fn item(&self, frame: &Frame) -> Option<Item> {
        let kind = &*frame.head.kind;
        if kind == "gap" {
            return serde_json::from_str(&frame.text).ok().map(Item::Gap);
        }
        if kind != "message" && kind != "presence" {
            return None;
        }
        match decode_event(Encoding::Json, frame.text.as_bytes()) {
            Ok(Heard::Event(Said::Message(message))) => Some(Item::Message(message)),
            Ok(Heard::Event(Said::Presence(presence))) => Some(Item::Presence(presence)),
            _ => Some(Item::Gap(Gap {
                of: (kind == "presence").then(|| kind.to_owned()),
                from: self.position.as_deref().and_then(parsed),
                to: frame.head.position.as_deref().and_then(parsed),
                reason: "unreadable".to_owned(),
                dropped: Some(1),
            })),
        }
    }
}

fn parsed(position: &str) -> Option<Position> {
    position.parse().ok()
}

/// A gap that the client itself has made as an event.
pub(super) fn gap_of(event: &Value) -> Option<Gap> {
    serde_json::from_value(event.clone()).ok()
}
