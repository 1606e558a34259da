//! The session and time: pings, silence, ends of tokens, unread replies, leaving the node.
//!
//! In: the two clocks as values, and what the session's loop has seen. Out: [`Due`]s, and when to
//! look again. Pure, like all of [`super::state`]; nothing here runs a timer. Deadlines are seconds,
//! looked at by the worker's wheel.

use std::time::{Duration, Instant};

use fanfare_protocol::close::CloseReason;
use fanfare_protocol::ids::Topic;

use super::drain_schedule::{self, DrainSchedule};
use super::state::{Machine, Now, Phase};

/// What the clock asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Ping the client.
    Ping,
    /// Say that the session's token, or that for a topic, ends; unix seconds.
    Expiring(Option<Topic>, u64),
    /// The token for a topic has ended, and nothing else lets the session stay there: it has left.
    /// True: it was a member.
    Left(Topic, bool),
    /// What an authorizer granted for a topic has ended: it has left. True: it was a member.
    Unauthorized(Topic, bool),
    /// The token for a topic has ended: the session stays there without, and may no longer be
    /// caught up with all that is retained.
    Limited(Topic),
    /// Say that the session is to go; when to reconnect, in milliseconds.
    Drain(u64),
    /// End.
    End(CloseReason),
}

/// When this session goes, because the node sends it away.
#[derive(Debug, Clone, Copy)]
pub(super) struct DrainPlan {
    tell_at: Option<Instant>,
    reconnect_after_ms: u64,
    close_at: Instant,
    reason: CloseReason,
}

impl Machine {
    /// A sign of life: something arrived, or a socket that was full has taken something.
    pub fn seen(&mut self, now: Now) {
        self.seen_at = now.instant;
    }

    /// Nobody was heard until then, and what clients took was not seen, because this node did not run.
    pub fn awake_since(&mut self, at: Instant) {
        self.seen_at = self.seen_at.max(at);
        if let Some((since, _)) = &mut self.unread_since {
            *since = (*since).max(at);
        }
    }

    /// Whether the client is read at present. Silence is judged only while it is: what it sent
    /// meanwhile could not be heard. Why it is not read has a bound of its own.
    pub fn hears(&mut self, hears: bool, now: Now) {
        if std::mem::replace(&mut self.is_deaf, !hears) && hears {
            self.seen(now);
        }
    }

    /// Whether replies wait unread over their bound, and the bytes that the client has taken so
    /// far; a clock runs while they do, and begins anew whenever a whole bound has been taken: a
    /// long page on a thin line is progress. Returns true when it began just now, so that the
    /// deadline must be scheduled.
    pub fn unread(&mut self, over: bool, taken_bytes: u64, now: Now) -> bool {
        let bound = self.config.session.replies_bytes_max as u64;
        let runs = |(_, before): &(Instant, u64)| over && taken_bytes - before < bound;
        if self.unread_since.as_ref().is_some_and(runs) {
            return false;
        }
        self.unread_since = over.then_some((now.instant, taken_bytes));
        over
    }

    /// The node leaves. This session is told at its `share` (0 to 1, at random) of the departure,
    /// and closed a while later if it has not gone by then.
    pub fn drain(&mut self, departure: &DrainSchedule, share: f64) {
        let (tell_at, grace) = (departure.tell_at(share), departure.grace());
        self.send_away(tell_at, grace, CloseReason::Draining);
    }

    /// The node has more than its share of sessions, and this one is to go: it is told at once,
    /// and closed a while later if it has not gone by then.
    pub fn shed(&mut self, now: Now) {
        let grace = drain_schedule::grace(&self.config.drain);
        self.send_away(now.instant, grace, CloseReason::Rebalanced);
    }

    /// Who is on the way out already stays so.
    fn send_away(&mut self, tell_at: Instant, grace: Duration, reason: CloseReason) {
        self.drain.get_or_insert(DrainPlan {
            tell_at: Some(tell_at),
            reconnect_after_ms: millis(grace / 2),
            close_at: tell_at + grace,
            reason,
        });
    }

    /// What is due now, in the order in which it is to be done. Nothing follows an end.
    pub fn due(&mut self, now: Now) -> Vec<Due> {
        let mut due = Vec::new();
        // Before the end, so that the shortest window closes nobody who was not told.
        if let Some(plan) = &mut self.drain
            && plan.tell_at.is_some_and(|at| at <= now.instant)
        {
            plan.tell_at = None;
            due.push(Due::Drain(plan.reconnect_after_ms));
        }
        if let Some(reason) = self.overdue(now) {
            due.push(Due::End(reason));
            return due;
        }
        if let Some(claims) = &self.identity.claims
            && self.phase == Phase::Open
            && !self.told_expiring
            && now.unix_ms >= self.expiring_at_ms(claims.expires)
        {
            self.told_expiring = true;
            due.push(Due::Expiring(None, claims.expires));
        }
        self.topic_tokens_due(now, &mut due);
        self.authorizations_due(now, &mut due);
        if let Some(every) = self.config.session.ping
            && now.instant >= self.pinged_at + every
        {
            self.pinged_at = now.instant;
            due.push(Due::Ping);
        }
        due
    }

    /// Tokens for topics: told as the session's own is. A session that may stay without stays.
    fn topic_tokens_due(&mut self, now: Now, due: &mut Vec<Due>) {
        if self.phase != Phase::Open {
            return;
        }
        let mut ended = Vec::new();
        for at in 0..self.joined.len() {
            let Some(token) = &self.joined[at].token else {
                continue;
            };
            let (topic, expires) = (self.joined[at].topic.clone(), token.expires);
            if now.unix_ms >= self.expired_at_ms(expires) {
                ended.push(topic);
            } else if !token.is_told && now.unix_ms >= self.expiring_at_ms(expires) {
                if let Some(token) = &mut self.joined[at].token {
                    token.is_told = true;
                }
                due.push(Due::Expiring(Some(topic), expires));
            }
        }
        for topic in ended {
            due.extend(self.end_topic_token(topic));
        }
    }

    fn overdue(&self, now: Now) -> Option<CloseReason> {
        let session = &self.config.session;
        let past = |at: Instant| now.instant >= at;
        if let Some(plan) = self.drain.filter(|plan| past(plan.close_at)) {
            return Some(plan.reason);
        }
        let silence = if session.ping.is_some() {
            session.pong
        } else {
            session.idle
        };
        if !self.is_deaf && past(self.seen_at + silence) {
            return Some(match session.ping {
                Some(_) => CloseReason::PingTimeout,
                None => CloseReason::IdleTimeout,
            });
        }
        if self.phase != Phase::Open && past(self.phase_since + self.config.auth.timeout) {
            return Some(match self.phase {
                Phase::Unauthenticated => CloseReason::AuthTimeout,
                _ => CloseReason::Unavailable,
            });
        }
        if self
            .unread_since
            .is_some_and(|(since, _)| past(since + session.replies_timeout))
        {
            return Some(CloseReason::SlowConsumer);
        }
        let claims = self.identity.claims.as_ref()?;
        (now.unix_ms >= self.expired_at_ms(claims.expires)).then_some(CloseReason::TokenExpired)
    }

    /// When to look again.
    #[must_use]
    pub fn next_due(&self, now: Now) -> Instant {
        let session = &self.config.session;
        let silence = if session.ping.is_some() {
            session.pong
        } else {
            session.idle
        };
        let mut next = if self.is_deaf {
            now.instant + silence
        } else {
            self.seen_at + silence
        };
        if let Some(every) = session.ping {
            next = next.min(self.pinged_at + every);
        }
        if self.phase != Phase::Open {
            next = next.min(self.phase_since + self.config.auth.timeout);
        }
        if let Some((since, _)) = self.unread_since {
            next = next.min(since + session.replies_timeout);
        }
        if let Some(plan) = self.drain {
            next = next.min(plan.tell_at.unwrap_or(plan.close_at));
        }
        let own = self.identity.claims.as_ref();
        let own = own.map(|claims| (claims.expires, self.told_expiring));
        let of_topics = self
            .joined
            .iter()
            .filter_map(|joined| joined.token.as_ref());
        let of_topics = of_topics.map(|token| (token.expires, token.is_told));
        let of_topics = of_topics.chain(self.authorizations());
        for (expires, is_told) in own.into_iter().chain(of_topics) {
            let at_ms = if is_told {
                self.expired_at_ms(expires)
            } else {
                self.expiring_at_ms(expires)
            };
            let wait = Duration::from_millis(at_ms.saturating_sub(now.unix_ms));
            next = next.min(now.instant + wait.min(silence));
        }
        next
    }

    pub(super) fn expiring_at_ms(&self, expires: u64) -> u64 {
        expires
            .saturating_mul(1_000)
            .saturating_sub(millis(self.config.auth.expiring))
    }

    pub(super) fn expired_at_ms(&self, expires: u64) -> u64 {
        expires
            .saturating_mul(1_000)
            .saturating_add(millis(self.config.auth.expired_grace))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
