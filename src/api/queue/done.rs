//! What a call does with dead letters.
//!
//! In: letters, or their ids. Out: how many this call has done with, and those with which it was not
//! done. Redriving is enqueuing under an idempotency key made from the letter's id, then dropping the
//! letter: whoever repeats it after either step adds nothing. Bounds: [`LETTERS_MAX`] letters a call,
//! [`ENQUEUE_MAX`] of them held at once, [`CALLS_AT_ONCE`] calls of the broker.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use utoipa::ToSchema;

use super::answers;
use super::body::once_ms;
use super::bound::{Bound, is_spared};
use super::letters::{self, LETTERS_MAX, LetterId};
use super::walk::{Shelf, Walk};
use super::whose::Whose;
use crate::api::state::ApiState;
use crate::api::unix_ms;
use crate::broker::queue::{DeadLetter, ENQUEUE_MAX, EnqueueRequest, Why};
use crate::broker::queue::{entry, once};
use crate::http::error::as_body;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::event::ErrorBody;

/// Calls of the broker that one request waits for at the same time.
const CALLS_AT_ONCE: usize = 16;

/// Whose idempotency keys those of redriven letters are. No publisher's text has this form.
const PUBLISHER: &str = "dead";

/// What a call left.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Rest {
    /// Letters and partitions with which it was not done, and why.
    pub failed: Vec<Undone>,
    /// There may be more than one call takes: those after `next`.
    pub more: bool,
    /// Continues as `after`; there with `more`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next: Option<String>,
    /// `false`: this node runs without Redis, and what it has ends with it. Absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub durable: Option<bool>,
}

/// A letter with which it was not done, or a partition whose letters could not be read.
#[derive(Debug, Serialize, ToSchema)]
pub struct Undone {
    /// Which letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub id: Option<String>,
    /// Which partition, in place of `id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub partition: Option<u32>,
    /// Why: `not_found` where there is none of this id.
    pub error: ErrorBody,
}

/// The letters that a call is about, in portions. It ends before a partition of which it could not take
/// all, so that the next call begins with letters of which none has been redriven.
pub(super) struct Letters<'a, S> {
    walk: Walk<'a, S>,
    whose: &'a Whose,
    why: Option<Why>,
    count: usize,
    /// The partition before which it ended.
    ended_before: Option<u32>,
}

impl<'a, S: Shelf> Letters<'a, S> {
    /// All of these apps, or those that died of this, after this place.
    pub(super) fn new(
        (shelf, whose): (&'a S, &'a Whose),
        why: Option<Why>,
        after: Option<LetterId>,
    ) -> Self {
        Self {
            walk: Walk::after(shelf, after),
            whose,
            why,
            count: 0,
            ended_before: None,
        }
    }

    /// Whether the walk is in a partition, or may go into the next one.
    async fn goes_on(&mut self) -> bool {
        if !self.walk.is_between() {
            return true;
        }
        let Some(ahead) = self.walk.ahead().await else {
            return false;
        };
        let is_full = self.count + ahead.count.min(LETTERS_MAX) > LETTERS_MAX;
        if is_full || self.walk.is_long() {
            self.ended_before = Some(ahead.partition);
        }
        self.ended_before.is_none()
    }

    /// The next portion; `None` where there are no more, or a call takes no more.
    pub(super) async fn portion(&mut self) -> Option<Vec<DeadLetter>> {
        let mut letters = Vec::new();
        while letters.len() < ENQUEUE_MAX && self.goes_on().await {
            let letter = self.walk.here().await;
            let wanted = letter
                .filter(|one| self.why.is_none_or(|why| why == one.why) && self.whose.has(one));
            self.count += usize::from(wanted.is_some());
            letters.extend(wanted);
        }
        (!letters.is_empty()).then_some(letters)
    }
}

/// What a call has done.
pub(super) struct Done<'a> {
    state: &'a ApiState,
    whose: &'a Whose,
    bound: Bound<'a>,
    pub(super) count: u64,
    pub(super) rest: Rest,
}

impl<'a> Done<'a> {
    pub(super) fn new(state: &'a ApiState, whose: &'a Whose) -> Self {
        Self {
            state,
            whose,
            bound: Bound::now(state),
            count: 0,
            rest: Rest {
                durable: answers::durable(state),
                ..Rest::default()
            },
        }
    }

    fn failed(&mut self, id: LetterId, error: &WireError) {
        self.rest.failed.push(Undone {
            id: Some(id.to_string()),
            partition: None,
            error: as_body(error),
        });
    }

    /// The call ends here: where the next one begins, and what this one could not read.
    pub(super) fn walked<S>(&mut self, letters: Letters<'_, S>) {
        let next = letters.ended_before.map(LetterId::before_all_of);
        self.rest.more = next.is_some();
        self.rest.next = next.map(|next| next.to_string());
        let faults = letters.walk.faults.into_iter();
        self.rest.failed.extend(faults.map(|fault| Undone {
            id: None,
            partition: Some(fault.partition),
            error: fault.error,
        }));
    }

    /// The letters of these ids.
    pub(super) async fn found(&mut self, ids: &[LetterId]) -> Vec<DeadLetter> {
        let state = self.state;
        let asked =
            stream::iter(ids.iter().copied()).map(async |id| (id, letters::find(state, id).await));
        let found: Vec<_> = asked.buffered(CALLS_AT_ONCE).collect().await;
        let mut letters = Vec::with_capacity(found.len());
        for (id, found) in found {
            match found {
                Ok(Some(letter)) if self.whose.has(&letter) => letters.push(letter),
                // Of another app's letters nobody is told even that they are there.
                Ok(_) => self.failed(id, &not_found()),
                Err(error) => self.failed(id, &error.told()),
            }
        }
        letters
    }

    /// Enqueues letters again and drops those that the queue has.
    pub(super) async fn redrive(&mut self, letters: Vec<DeadLetter>) {
        let (mut ids, mut requests) = (Vec::new(), Vec::new());
        for letter in letters {
            let id = LetterId::of(&letter);
            match self.request(&letter) {
                Ok(request) => {
                    ids.push((id, request.message.topic.clone(), letter.priority));
                    requests.push(request);
                }
                Err(error) => self.failed(id, &error),
            }
        }
        if requests.is_empty() {
            return;
        }
        let mut enqueued = Vec::with_capacity(ids.len());
        let answers = self.state.broker.enqueue(requests).await;
        let spared = answers.iter().filter(|answer| is_spared(answer)).count();
        self.bound.give_back(spared as u64);
        for ((id, topic, priority), answer) in ids.into_iter().zip(answers) {
            match answer {
                Ok(_) => enqueued.push(id),
                Err(error) => {
                    self.bound.stop(&topic, priority);
                    self.failed(id, &error.told());
                }
            }
        }
        let before = self.count;
        self.remove(enqueued).await;
        self.state.metrics.queue.redriven.add(self.count - before);
    }

    /// What enqueues a letter again.
    fn request(&mut self, letter: &DeadLetter) -> Result<EnqueueRequest, WireError> {
        let mut message = entry::decode(&letter.kept).map_err(|_unreadable| {
            WireError::bad_request("what was kept of it cannot be read, so it cannot be redriven")
        })?;
        self.bound.take(&message.topic, letter.priority)?;
        message.publication.priority = letter.priority;
        let now_ms = unix_ms();
        message.expires_ms = message.expires_ms.filter(|ends_ms| *ends_ms > now_ms);
        // It is enqueued again: its `ttl_ms` begins anew.
        message.publication.time_ms = message.publication.time_ms.max(now_ms);
        let key = LetterId::of(letter).to_string();
        let digest = once::digest(PUBLISHER, &key, &message.topic);
        let settings = self.state.apps.of_topic(&message.topic);
        let namespace = settings.namespace(&message.topic);
        Ok(EnqueueRequest {
            not_before_ms: None,
            replicas: namespace.replicas(),
            idempotency: Some((digest, once_ms(self.state))),
            message,
        })
    }

    /// Drops letters that are known.
    pub(super) async fn drop_all(&mut self, ids: Vec<LetterId>) {
        let before = self.count;
        self.remove(ids).await;
        self.state.metrics.queue.dropped.add(self.count - before);
    }

    /// Takes letters away, whoever does so too.
    async fn remove(&mut self, ids: Vec<LetterId>) {
        let mut partitions: BTreeMap<u32, Vec<LetterId>> = BTreeMap::new();
        for id in ids {
            partitions.entry(id.partition).or_default().push(id);
        }
        let broker = &self.state.broker;
        let calls = stream::iter(partitions).map(async |(partition, ids)| {
            let positions: Vec<_> = ids.iter().map(|id| id.id).collect();
            (ids, broker.drop_dead(partition, &positions).await)
        });
        let ends: Vec<_> = calls.buffered(CALLS_AT_ONCE).collect().await;
        for (ids, end) in ends {
            match end {
                // Another call may have been first with some of them.
                Ok(count) => self.count += count,
                Err(error) => {
                    let error = error.told();
                    ids.into_iter().for_each(|id| self.failed(id, &error));
                }
            }
        }
    }

    /// Drops letters that may not be there, each by a call of its own that tells.
    pub(super) async fn drop_each(&mut self, ids: Vec<LetterId>) {
        let (state, whose) = (self.state, self.whose);
        let drop = async |id| match letters::find(state, id).await {
            Ok(Some(letter)) if whose.has(&letter) => letters::drop_one(state, id).await,
            Ok(_) => Ok(false),
            Err(error) => Err(error),
        };
        let calls = stream::iter(ids).map(async |id| (id, drop(id).await));
        let ends: Vec<_> = calls.buffered(CALLS_AT_ONCE).collect().await;
        for (id, end) in ends {
            match end {
                Ok(false) => self.failed(id, &not_found()),
                Ok(true) => {
                    self.count += 1;
                    state.metrics.queue.dropped.add(1);
                }
                Err(error) => self.failed(id, &error.told()),
            }
        }
    }
}

fn not_found() -> WireError {
    WireError::new(ErrorCode::NotFound, "there is no dead letter of this id")
}
