//! The feed's channels: what is sent for them, and what follows from the answers.
//!
//! In: chunks of topics, Redis' answers for their channels. Out: SUBSCRIBE or SSUBSCRIBE and their
//! opposites on the feed's connection; confirmations to those who wait, the break when all stands
//! again, refusals. Bound: one chunk at a time.
//!
//! A classic SUBSCRIBE is refused as a whole where one of its channels is forbidden, without a word of
//! which: the chunk is halved until the channel is found, which is then tried alone from time to time
//! and holds up no other.

use std::time::Instant;

use super::{Hearing, REFUSED_RETRY};
use crate::broker::interest::WishNumber;
use crate::broker::queue::bells::Ring;
use crate::broker::redis::health::Line;
use crate::broker::redis::subscriptions::{CHUNK_TOPICS_MAX, Chunk};
use crate::redis::refusal::Refusal;
use crate::redis::wire::Connection;
use crate::redis::{RedisError, access};
use fanfare_protocol::ids::Topic;

/// Who hears a channel; `None`: the probes.
type Hearer = Option<Topic>;

/// What the feed's connection carries.
#[derive(Debug)]
pub(super) enum Sent {
    /// Channels of the chunk: a sharded one and who hears it, or all classic ones.
    Channel(Option<Hearer>),
    /// Channels that nobody wants any more.
    Leaving,
    /// Whether Redis is there.
    Question,
}

/// A chunk of which some channels are not confirmed yet.
#[derive(Debug)]
pub(super) struct Underway {
    chunk: Chunk,
    open_count: usize,
    /// Those whose slot is elsewhere.
    elsewhere: Vec<Hearer>,
    /// Those that the user may not hear, and in which word.
    forbidden: Vec<Topic>,
    refusal: Option<&'static Refusal>,
    /// Why not even one is known to stand.
    failed: Option<RedisError>,
}

impl Hearing {
    /// Asks for a chunk, and for what is always subscribed with the first one.
    pub(super) fn subscribe(&mut self, connection: &mut Connection<Sent>, chunk: Chunk) {
        let mut classic = self.channels(&chunk.topics);
        let mut sharded: Vec<(Hearer, String)> = Vec::new();
        let is_sharded = self.task.shared.owned.is_some();
        if is_sharded {
            let topics = chunk.topics.iter().cloned().map(Some);
            sharded = topics.zip(std::mem::take(&mut classic)).collect();
        }
        // Redis refuses a SUBSCRIBE of nothing; once more does no harm.
        if chunk.is_first || chunk.topics.is_empty() || self.is_probe_due {
            self.is_probe_due = false;
            self.probe = self.task.shared.probe_channel();
            match is_sharded {
                true => sharded.push((None, self.probe.clone())),
                false => classic.push(self.probe.clone()),
            }
        }
        if chunk.is_first {
            classic.extend(self.control.clone());
        }
        let mut underway = Underway {
            chunk,
            open_count: 0,
            elsewhere: Vec::new(),
            forbidden: Vec::new(),
            refusal: None,
            failed: None,
        };
        if !classic.is_empty() {
            let token = Sent::Channel(None);
            underway.count(connection.send_channels(token, "SUBSCRIBE", b"subscribe", &classic));
        }
        for (hearer, channel) in sharded {
            let token = Sent::Channel(Some(hearer));
            let channel = [channel];
            underway.count(connection.send_channels(token, "SSUBSCRIBE", b"ssubscribe", &channel));
        }
        self.underway = Some(underway);
        self.conclude();
    }

    /// Behind everything sent before, ahead of any later SUBSCRIBE of the same topics.
    pub(super) fn leave(&self, connection: &mut Connection<Sent>, topics: &[Topic]) {
        // Where there is no room the channels stay, and what comes by them is passed over.
        let mut channels = self.channels(topics);
        let Some(owned) = &self.task.shared.owned else {
            let _ =
                connection.send_channels(Sent::Leaving, "UNSUBSCRIBE", b"unsubscribe", &channels);
            return;
        };
        // A master drops the subscriptions of a slot that leaves it, and refuses to hear of them.
        channels.retain(|channel| owned.has(channel));
        for channels in channels.chunks(CHUNK_TOPICS_MAX) {
            let _ = connection.leave_sharded(Sent::Leaving, channels);
        }
    }

    fn channels(&self, topics: &[Topic]) -> Vec<String> {
        let keys = &self.task.shared.keys;
        topics.iter().map(|topic| keys.channel(topic)).collect()
    }

    /// Takes the answer for a sharded channel, or for all classic ones.
    pub(super) fn channels_answered(
        &mut self,
        hearer: Option<Hearer>,
        answer: Result<(), RedisError>,
    ) {
        let Some(underway) = &mut self.underway else {
            return;
        };
        underway.open_count -= 1;
        if let Err(error) = answer {
            underway.refused(hearer, error);
        }
        self.conclude();
    }

    /// When all is answered: what follows from it.
    fn conclude(&mut self) {
        let all_answered = |underway: &mut Underway| underway.open_count == 0;
        let Some(underway) = self.underway.take_if(all_answered) else {
            return;
        };
        let Underway {
            chunk,
            elsewhere,
            forbidden,
            refusal,
            failed,
            ..
        } = underway;
        if let Some(error) = failed {
            return self.chunk_failed(chunk, error);
        }
        if !elsewhere.is_empty() {
            // They leave when the topology says so, or are tried again.
            self.is_probe_due |= elsewhere.contains(&None);
            let topics: Vec<_> = elsewhere.into_iter().flatten().collect();
            self.subscriptions.refuse(&topics);
            self.next_chunk = Instant::now() + REFUSED_RETRY;
            self.task.shared.urgent.link.misplaced().notify_one();
        }
        if let Some(refusal) = refusal {
            self.forbidden(&forbidden, refusal);
        }
        self.chunk_stands(&chunk);
    }

    fn chunk_stands(&mut self, chunk: &Chunk) {
        let awaited = self.subscriptions.confirm(chunk);
        self.ring(&chunk.topics);
        self.confirm(awaited);
        if chunk.is_last && self.connections > 1 {
            self.task.sender.break_off();
        }
        let stood = std::mem::replace(&mut self.is_standing, self.subscriptions.stands());
        if self.is_standing {
            self.waits.over();
        }
        self.judge_forbidden();
        self.refuses(self.forbidden.as_ref().map(|(_, refusal)| *refusal));
        if self.is_standing && (!stood || chunk.topics.is_empty()) {
            self.task.shared.probes.now.notify_one();
        }
    }

    /// The bells among these are heard from now on, and one may have rung before.
    pub(super) fn ring<'a>(&self, topics: impl IntoIterator<Item = &'a Topic>) {
        for bell in topics.into_iter().filter_map(Topic::bell_of) {
            self.task.shared.bells.ring(bell, Ring::Unsaid);
        }
    }

    /// Tells those who wait for it that these are heard; for bells nobody does.
    pub(super) fn confirm(&mut self, mut awaited: Vec<(Topic, WishNumber)>) {
        awaited.retain(|(topic, _)| topic.bell_of().is_none());
        if !awaited.is_empty() {
            self.task.sender.confirm(awaited);
        }
    }

    fn chunk_failed(&mut self, chunk: Chunk, error: RedisError) {
        let is_forbidden = error.refusal().filter(|refusal| refusal.word == "NOPERM");
        if let Some(refusal) = is_forbidden
            && !chunk.topics.is_empty()
        {
            if self.subscriptions.halve(&chunk) {
                self.subscriptions.put_back(chunk);
            } else {
                self.forbidden(&chunk.topics, refusal);
                self.chunk_stands(&chunk);
            }
            return;
        }
        let error = error.into_reported();
        let server = self.task.shared.server();
        let why = access::explain(&error);
        let reason = format!("Redis at {server} did not confirm a subscription: {why}");
        self.refuses(Refusal::of(error.details()));
        self.task.shared.health.down(Line::Feed, reason);
        self.is_standing = false;
        self.is_probe_due = true;
        self.subscriptions.put_back(chunk);
        self.next_chunk = Instant::now() + self.waits.next();
    }

    /// The user of this node may not hear these.
    fn forbidden(&mut self, topics: &[Topic], refusal: &'static Refusal) {
        self.subscriptions.forbid(topics, Instant::now());
        if self.forbidden.is_none()
            && let Some(topic) = topics.first()
        {
            self.tell_forbidden(topic.clone(), refusal);
        }
    }

    /// A channel is told to be forbidden while somebody wants to hear it: it is heard now, or its topic
    /// has left.
    pub(super) fn judge_forbidden(&mut self) {
        let Some((told, refusal)) = self.forbidden.take() else {
            return;
        };
        match self.subscriptions.forbidden(Some(&told)) {
            Some(topic) if *topic == told => self.forbidden = Some((told, refusal)),
            Some(topic) => self.tell_forbidden(topic.clone(), refusal),
            None => {
                let health = &self.task.shared.health;
                health.up(Line::Channels);
                // Where the feed itself is refused, that is told by it.
                if health.reason(Line::Feed).is_none() {
                    self.refuses(None);
                }
            }
        }
    }

    fn tell_forbidden(&mut self, topic: Topic, refusal: &'static Refusal) {
        let shared = &self.task.shared;
        let (server, word, advice) = (shared.server(), refusal.word, refusal.advice);
        let reason = format!("Redis at {server} forbids the channel of {topic}: {word} ({advice})");
        shared.health.down(Line::Channels, reason);
        self.forbidden = Some((topic, refusal));
        self.refuses(Some(refusal));
    }
}

impl Underway {
    fn count(&mut self, sent: Result<(), (Sent, RedisError)>) {
        match sent {
            Ok(()) => self.open_count += 1,
            Err((_, error)) => self.failed = Some(error),
        }
    }

    fn refused(&mut self, hearer: Option<Hearer>, error: RedisError) {
        let refusal = error.refusal().filter(|refusal| refusal.word == "NOPERM");
        match (hearer, refusal) {
            (Some(hearer), _) if error.is_misplaced() => self.elsewhere.push(hearer),
            (Some(Some(topic)), Some(refusal)) => {
                self.forbidden.push(topic);
                self.refusal = Some(refusal);
            }
            _ => self.failed = Some(error),
        }
    }
}
