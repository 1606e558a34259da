//! What waits for one socket: answers first, then messages in four lanes, then the close frame.
//!
//! In: replies of the session, live messages, pages of a catch-up, gaps. Out: [`Outbox::write`],
//! vectored writes of everything that waits. Owned by the worker. Bounds: messages and bytes
//! ([`Outbox::has_room_for`]; what happens at the bound is decided in `worker/overflow.rs`), replies
//! by number and bytes (at the bound no further command is read); a catch-up asks for its next
//! page only when [`Outbox::has_room`]. A frame that is partly written is finished first. A single
//! message waits without any memory of its own; lanes are lent for the time in which more waits.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;

use fanfare_protocol::form::WireForm;
use fanfare_protocol::ids::{Position, Priority};

use super::hub::TopicKey;
use super::outgoing::Outgoing;

mod figures;
mod lane_pool;
mod lanes;

pub use lane_pool::LanePool;
use lanes::{FRONT, Item, LAST, Lanes};

/// Frames of one `writev`. Linux takes 1,024; past 64 the copy dominates the call.
const SLICES_MAX: usize = 64;

/// How much of one kind waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Frames.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
}

impl Waiting {
    fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: usize) {
        self.messages -= 1;
        self.bytes -= bytes;
    }
}

/// Most that may wait of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// Frames.
    pub messages_max: usize,
    /// Their bytes.
    pub bytes_max: usize,
}

impl Bound {
    /// Whether so much is over the bound.
    #[must_use]
    pub fn exceeded(&self, waiting: Waiting) -> bool {
        waiting.messages > self.messages_max || waiting.bytes > self.bytes_max
    }

    /// A part of it.
    fn part(&self, numerator: usize, denominator: usize) -> Self {
        Self {
            messages_max: self.messages_max * numerator / denominator,
            bytes_max: self.bytes_max / denominator * numerator,
        }
    }
}

/// What a write did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Frames that the socket took whole.
    pub frames: u64,
    /// Bytes that it took.
    pub bytes: u64,
    /// Of the frames, gaps that tell of messages dropped here.
    pub gaps: u64,
    /// Write calls.
    pub calls: u64,
    /// The socket takes no more: wait until it is writable.
    pub blocked: bool,
}

/// What [`Outbox::make_room`] did.
#[derive(Debug, Default)]
pub struct Shed {
    /// Messages for which a newer one of the same key stands.
    pub conflated: usize,
    /// Topics whose messages were taken back.
    pub taken_back: Vec<TakenBack>,
    /// Messages that the session will not get.
    pub dropped: u64,
    /// The message at hand may be queued now.
    pub fits: bool,
}

/// A topic of which an outbox holds nothing any more, because it can be read again.
#[derive(Debug, PartialEq, Eq)]
pub struct TakenBack {
    /// Which topic.
    pub topic: TopicKey,
    /// The position after which to read.
    pub at: Position,
    /// In which lane it waited.
    pub urgency: Priority,
}

/// The queue itself.
#[derive(Debug)]
pub struct Outbox {
    form: WireForm,
    /// The only item that waits, or the one that is partly written, and its lane.
    head: Option<(Item, usize)>,
    /// Bytes of it that the socket has taken already.
    head_written: usize,
    lanes: Option<Box<Lanes>>,
}

impl Outbox {
    /// An empty outbox of a session that speaks this form.
    #[must_use]
    pub fn new(form: WireForm) -> Self {
        Self {
            form,
            head: None,
            head_written: 0,
            lanes: None,
        }
    }

    /// Queues an answer or a control frame: before all messages.
    pub fn push_reply(&mut self, frame: Bytes, spares: &mut LanePool) {
        self.push(Item::Reply(frame), FRONT, spares);
    }

    /// Queues news of the cursor, of which only the newest waits.
    pub fn push_acked(&mut self, frame: Bytes, spares: &mut LanePool) {
        self.push(Item::Acked(frame), FRONT, spares);
    }

    /// Queues the last frame: behind everything.
    pub fn push_last(&mut self, frame: Bytes, spares: &mut LanePool) {
        self.push(Item::Reply(frame), LAST, spares);
    }

    /// Queues a message in the lane of its priority, or of its topic where that is higher.
    pub fn push_message(
        &mut self,
        topic: TopicKey,
        outgoing: Arc<Outgoing>,
        spares: &mut LanePool,
    ) {
        let lane = lanes::lane_of(outgoing.priority());
        self.push(Item::Message { topic, outgoing }, lane, spares);
    }

    /// Queues what is told in its topic's order: behind what waits of the topic, and by itself no
    /// more urgent than a message without a priority. What follows of its topic takes it along.
    pub fn push_notice(&mut self, topic: TopicKey, frame: Bytes, spares: &mut LanePool) {
        let lane = self
            .lane(topic)
            .unwrap_or(lanes::lane_of(Priority::default()));
        self.push(Item::Notice { topic, frame }, lane, spares);
    }

    fn push(&mut self, item: Item, lane: usize, spares: &mut LanePool) {
        if self.head.is_none() && self.lanes.is_none() {
            self.head = Some((item, lane));
            return;
        }
        let form = self.form;
        self.lanes(spares).push(item, lane, form);
    }

    /// The lanes, with everything that waits in them.
    fn lanes(&mut self, spares: &mut LanePool) -> &mut Lanes {
        let lanes = self.lanes.get_or_insert_with(|| spares.lend());
        if self.head_written == 0
            && let Some((waiting, its_lane)) = self.head.take()
        {
            lanes.push(waiting, its_lane, self.form);
        }
        lanes
    }

    /// The lane in which the topic's items wait. One that is partly written waits no more.
    fn lane(&self, topic: TopicKey) -> Option<usize> {
        match &self.head {
            Some((item, lane)) if self.head_written == 0 && item.topic() == Some(topic) => {
                Some(*lane)
            }
            _ => self.lanes.as_ref()?.lane(topic),
        }
    }

    /// Answers and control frames that wait, one that is partly written included.
    #[must_use]
    pub fn replies(&self) -> Waiting {
        let mut waiting = self
            .lanes
            .as_ref()
            .map_or(Waiting::default(), |l| l.replies());
        if let Some((item, _)) = &self.head
            && item.topic().is_none()
        {
            waiting.add(item.bytes_count(self.form));
        }
        waiting
    }

    /// Messages that wait, and gaps in their order. One that is partly written is on its way.
    #[must_use]
    pub fn messages(&self) -> Waiting {
        let mut waiting = self
            .lanes
            .as_ref()
            .map_or(Waiting::default(), |l| l.messages());
        if let Some((item, _)) = &self.head
            && self.head_written == 0
            && item.topic().is_some()
        {
            waiting.add(item.bytes_count(self.form));
        }
        waiting
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head.is_none() && self.lanes.is_none()
    }

    /// Whether a message may be queued. One always may, also where it is longer than the bound: a
    /// body can be six times as long in this form as it was published. One that an older may give
    /// way to may go a sixteenth over the bound: [`Outbox::make_room`] looks through all that
    /// waits, and each time frees at least that much of what is conflated.
    #[must_use]
    pub fn has_room_for(&self, outgoing: &Outgoing, bound: Bound) -> bool {
        if self.is_empty() {
            return true;
        }
        let mut waiting = self.messages();
        let is_first = waiting.messages == 0;
        waiting.add(outgoing.frame(self.form).len());
        let may_conflate = || outgoing.conflation_key().is_some();
        is_first
            || !bound.exceeded(waiting)
            || !bound.part(17, 16).exceeded(waiting) && may_conflate()
    }

    /// Whether a catch-up of this urgency may add its next page: less than half of the bound waits
    /// before it, or nothing in its own lane, so that lower lanes move too.
    #[must_use]
    pub fn has_room(&self, urgency: Priority, bound: Bound) -> bool {
        let half = bound.part(1, 2);
        if half.exceeded(self.replies()) {
            return false;
        }
        let lane = lanes::lane_of(urgency);
        match &self.lanes {
            Some(lanes) => {
                let before = lanes.waiting_up_to(lane);
                !half.exceeded(before) || lanes.is_lane_empty(lane)
            }
            None => !half.exceeded(self.messages()),
        }
    }

    /// Writes as much as `write` takes, several frames a call, until nothing waits or it would
    /// block. HOT: no allocation; bench: `benches/outbox.rs`.
    ///
    /// # Errors
    /// What `write` says, other than `WouldBlock` and `Interrupted`.
    pub fn write(
        &mut self,
        spares: &mut LanePool,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<Written> {
        let mut done = Written::default();
        while !self.is_empty() {
            done.calls += 1;
            match self.write_once(&mut write) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    done.bytes += n as u64;
                    self.advance(n, &mut done);
                    if let Some(lanes) = self.lanes.take_if(|lanes| lanes.is_empty()) {
                        spares.give_back(lanes);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    done.blocked = true;
                    return Ok(done);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_once(
        &self,
        write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let head = self.head.as_ref();
        let head = head.map(|(item, _)| &item.frame(self.form)[self.head_written..]);
        let Some(lanes) = &self.lanes else {
            return write(&[IoSlice::new(head.unwrap_or_default())]);
        };
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut plan = lanes.plan();
        let items = std::iter::from_fn(|| lanes.planned(&mut plan, self.form));
        let frames = items.map(|item| &item.frame(self.form)[..]);
        let mut count = 0;
        for (slice, frame) in slices.iter_mut().zip(head.into_iter().chain(frames)) {
            *slice = IoSlice::new(frame);
            count += 1;
        }
        write(&slices[..count])
    }

    /// Takes `n` written bytes off, and counts the frames that are through. A gap is counted here
    /// and not when something is dropped, because until now it may grow or be joined to another.
    fn advance(&mut self, n: usize, done: &mut Written) {
        let mut left = n;
        loop {
            if let Some((item, _)) = &self.head {
                let rest = item.frame(self.form).len() - self.head_written;
                if left < rest {
                    self.head_written += left;
                    return;
                }
                left -= rest;
                done.frames += 1;
                done.gaps += u64::from(matches!(item, Item::Dropped(_)));
                (self.head, self.head_written) = (None, 0);
            }
            if left == 0 {
                return;
            }
            self.head = self.lanes.as_mut().and_then(|l| l.pop(self.form));
        }
    }

    /// Makes room for a message of a topic: of those that a newer one may stand for, keeps the
    /// newest; then takes back what can be read again; then drops the oldest of what cannot, from
    /// the lowest lane up, until a quarter of the bound is free. Lanes above the message's own are
    /// left alone, and its own too if it can be read again itself; what waits of its own topic has
    /// moved up with it. What the message itself stands for goes only if the message comes in its
    /// place, for which it may take a quarter of the bound in bytes more. There may be no room even
    /// so: see [`Shed::fits`].
    pub fn make_room(
        &mut self,
        topic: TopicKey,
        outgoing: &Outgoing,
        bound: Bound,
        spares: &mut LanePool,
        has_history: impl Fn(TopicKey) -> bool,
    ) -> Shed {
        let mut shed = Shed::default();
        let form = self.form;
        let lanes = self.lanes(spares);
        let before = lanes.messages();
        shed.conflated = lanes.conflate(form);
        let freed = Waiting {
            messages: shed.conflated,
            bytes: before.bytes - lanes.messages().bytes,
        };
        let own = lanes::lane_of(outgoing.priority());
        lanes.move_up(topic, own, form);
        let own = lanes.lane(topic).unwrap_or(own);
        let first = if has_history(topic) { own + 1 } else { own };
        let bytes = outgoing.frame(form).len();
        let older = lanes.older(topic, outgoing);
        let older_bytes = older.map(|(lane, at)| lanes.queues[lane][at].bytes_count(form));
        // What waits when the message is queued.
        let with = |mut waiting: Waiting| {
            if let Some(bytes) = older_bytes {
                waiting.remove(bytes);
            }
            waiting.add(bytes);
            waiting
        };
        let is_full = |waiting| bound.exceeded(with(waiting));
        let target = bound.part(3, 4);
        let is_over = |waiting| target.exceeded(waiting) || is_full(waiting);
        // Without the target every message that comes would search the lanes again.
        let sixteenth = bound.part(1, 16);
        let is_enough =
            freed.messages >= sixteenth.messages_max || freed.bytes >= sixteenth.bytes_max;
        for lane in (first..LAST).rev() {
            if is_full(lanes.messages()) || !is_enough && target.exceeded(lanes.messages()) {
                let taken_back = lanes.take_back(lane, form, &has_history);
                shed.taken_back.extend(taken_back);
            }
        }
        let is_older = |t: TopicKey, message: &Outgoing| {
            let key = message.conflation_key();
            t == topic && key.is_some() && key == outgoing.conflation_key()
        };
        let may_drop = |t: TopicKey, message: &Outgoing| !has_history(t) && !is_older(t, message);
        for lane in (first..LAST).rev() {
            if is_full(lanes.messages()) {
                shed.dropped += lanes.drop_oldest(lane, form, is_over, may_drop);
            }
        }
        let waiting = with(lanes.messages());
        let in_place = older_bytes
            .is_some_and(|older| bytes <= older || waiting.bytes <= bound.bytes_max / 4 * 5);
        shed.fits = waiting.messages == 1 || !bound.exceeded(waiting) || in_place;
        if shed.fits
            && let Some((lane, at)) = lanes.older(topic, outgoing)
        {
            lanes.remove_at(lane, at, form);
            shed.conflated += 1;
        }
        self.lanes.take_if(|lanes| lanes.is_empty());
        shed
    }

    /// Whether what must be told, and cannot be shed, is over the bound by itself.
    #[must_use]
    pub fn is_past_help(&self, bound: Bound) -> bool {
        let lanes = self.lanes.as_ref();
        bound.exceeded(self.messages())
            && lanes.is_some_and(|lanes| bound.exceeded(lanes.notices(self.form)))
    }

    /// Tells that a message was dropped, in the gap that its topic ends with, or a new one.
    pub fn push_dropped(&mut self, topic: TopicKey, outgoing: &Outgoing, spares: &mut LanePool) {
        let joins = self
            .lanes
            .as_mut()
            .is_some_and(|l| l.join_gap(topic, outgoing));
        if !joins {
            let lane = lanes::lane_of(outgoing.priority());
            self.push(Item::dropped(topic, outgoing), lane, spares);
        }
    }

    /// Drops everything but a frame that is partly written. Returns how many messages went.
    pub fn drop_unsent(&mut self) -> u64 {
        let before = self.messages().messages;
        self.lanes = None;
        if self.head_written == 0 {
            self.head = None;
        }
        (before - self.messages().messages) as u64
    }

    /// Takes back the messages of a topic that can be read again, as far back as its last notice.
    pub fn take_back(&mut self, topic: TopicKey, spares: &mut LanePool) -> Option<TakenBack> {
        let (lane, form) = (self.lane(topic)?, self.form);
        let taken = self.lanes(spares).take_back_of(topic, lane, form);
        self.lanes.take_if(|lanes| lanes.is_empty());
        taken
    }

    /// Removes what waits of a topic that the session has left.
    pub fn forget(&mut self, topic: TopicKey) {
        let is_untouched = self.head_written == 0;
        self.head
            .take_if(|(item, _)| is_untouched && item.topic() == Some(topic));
        if let Some(lanes) = &mut self.lanes {
            lanes.forget(topic, self.form);
        }
        self.lanes.take_if(|lanes| lanes.is_empty());
    }
}

#[cfg(test)]
mod tests;
