//! What has come back from the broker, turned into frames and modes in one step without awaits.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::broker::{Acked, InboxSummary};
use crate::telemetry::alerts::gravest;
use crate::worker::catchup::{Pull, ReadPage};
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::event::{ErrorBody, Event, Gap, GapReason, InboxState, Ok, Resumed, Welcome};
use fanfare_protocol::ids::{Position, Topic};

use super::Session;
use super::broker_calls::{
    BrokerCalls, Completion, Entered, Start, Subscribed, left_before_joined,
};
use super::joining::{Amendment, Joining};
use super::opening::{AutoJoined, Opened};
use super::state::{Now, Refusal};

/// Where a topic begins: what `ok` and `welcome.topics` say of it.
struct Begun {
    gap: Option<GapReason>,
    position: Position,
}

impl Begun {
    fn resumed(&self, count: Option<u64>, expires: Option<u64>) -> Resumed {
        Resumed::Joined {
            recovered: self.gap.is_none(),
            position: self.position,
            gap_reason: self.gap,
            count,
            expires,
        }
    }
}

impl Session {
    pub(super) fn done(&mut self, done: Completion) {
        match done {
            Completion::Opened(opened) => self.opened(*opened),
            Completion::Unopened(id, error) => {
                self.refuse(
                    id,
                    Refusal {
                        error,
                        end: Some(CloseReason::Unavailable),
                    },
                );
            }
            Completion::Everyone(own) => self.everyone_is_live(*own),
            Completion::Checked(parked) => self.unparked(*parked),
            Completion::Held(held) => self.released(*held),
            Completion::Authorized(asked) => self.authorized(*asked),
            Completion::Subscribed {
                id,
                joining,
                result,
            } => self.subscribed(id, &joining, result),
            Completion::Amended {
                id,
                amendment,
                result,
            } => self.amended(id, &amendment, result),
            Completion::Published(id, result) => self.answer(id, result, |published| Ok {
                position: Some(published.position),
                duplicate: published.duplicate,
                ..Ok::default()
            }),
            Completion::Acked(id, result) => {
                let result = result.and_then(|acked| match acked {
                    Acked::Cursor(position) => Result::Ok(position),
                    Acked::AboveNewest => Err(WireError::bad_request(
                        "`position` is above the newest of the inbox",
                    )),
                });
                self.answer(id, result, |position| Ok {
                    position: Some(position),
                    ..Ok::default()
                });
            }
            Completion::History(id, result) => self.answer(id, result, |page| Ok {
                publications: Some(page.messages),
                more: Some(page.more),
                ..Ok::default()
            }),
            Completion::Presence(id, result) => self.answer(id, result, |page| Ok {
                count: Some(page.count),
                members: Some(page.members),
                position: Some(page.position),
                more: Some(page.more),
                ..Ok::default()
            }),
            Completion::Page(pull, result) => self.pulled(pull, result),
            Completion::PullAgain(pull) => self.calls.worker.pull_again(self.calls.key, &pull),
            Completion::Alone(done) => {
                self.alone = false;
                self.done(*done);
            }
        }
    }

    /// A page of a catch-up is there, or has to be asked for again.
    fn pulled(&mut self, pull: Pull, result: Result<Rc<ReadPage>, WireError>) {
        let (worker, key) = (&self.calls.worker, self.calls.key);
        let now_ms = Now::read().unix_ms;
        let goes_on = result.is_ok_and(|page| worker.page(key, &pull, &page, now_ms));
        if goes_on {
            self.failed_pulls = 0;
        } else {
            self.work(BrokerCalls::rest(pull, self.failed_pulls.into()));
            self.failed_pulls = self.failed_pulls.saturating_add(1);
        }
    }

    fn answer<T>(
        &mut self,
        id: Option<u64>,
        result: Result<T, WireError>,
        ok: impl FnOnce(T) -> Ok,
    ) {
        match result {
            Result::Ok(value) => self.ok(Ok { id, ..ok(value) }),
            Err(error) => self.refuse(id, error.into()),
        }
    }

    fn subscribed(
        &mut self,
        id: Option<u64>,
        joining: &Joining,
        result: Result<Subscribed, WireError>,
    ) {
        let topic = &joining.topic;
        if self.machine.stay(topic) != Some(joining.stay) {
            let has_entered = result.is_ok_and(|subscribed| subscribed.count.is_some());
            return self.left_meanwhile(id, topic, has_entered);
        }
        match result {
            Err(error) => {
                self.forget(topic);
                self.refuse(id, error.into());
            }
            Result::Ok(subscribed) => {
                let begun = self.begin_subscription(joining, &subscribed);
                let ends = self.heed(topic, subscribed.authorized);
                self.ok(Ok {
                    id,
                    recovered: Some(begun.gap.is_none()),
                    gap_reason: begun.gap,
                    position: Some(begun.position),
                    count: subscribed.count,
                    expires: sooner(joining.expires, ends),
                    ..Ok::default()
                });
            }
        }
    }

    /// An authorizer grants a topic until then; returns it.
    fn heed(&mut self, topic: &Topic, until: Option<u64>) -> Option<u64> {
        let until = until?;
        self.machine.authorized(topic, until);
        self.schedule(Now::read());
        Some(until)
    }

    fn amended(
        &mut self,
        id: Option<u64>,
        amendment: &Amendment,
        result: Result<Entered, WireError>,
    ) {
        let topic = &amendment.topic;
        if self.machine.stay(topic) != Some(amendment.stay) {
            return self.left_meanwhile(id, topic, result.is_ok());
        }
        match result {
            Err(error) => {
                self.machine.is_no_member(topic);
                self.end_membership(topic);
                self.refuse(id, error.into());
            }
            Result::Ok(entered) => {
                let changes = topic.presence();
                self.calls.worker.begin_live(self.calls.key, &changes);
                let ends = self.heed(topic, entered.authorized);
                self.ok(Ok {
                    id,
                    count: Some(entered.count),
                    expires: sooner(amendment.expires, ends),
                    ..Ok::default()
                });
            }
        }
    }

    /// The session left while the answer was on its way, and may have joined again; a membership
    /// that began meanwhile ends.
    fn left_meanwhile(&mut self, id: Option<u64>, topic: &Topic, has_entered: bool) {
        if has_entered {
            self.end_membership(topic);
        }
        if !self.machine.has_joined(topic) {
            self.calls.worker.leave(self.calls.key, topic);
        }
        self.refuse(id, left_before_joined().into());
    }

    fn begin_subscription(&self, joining: &Joining, subscribed: &Subscribed) -> Begun {
        let topic = &joining.topic;
        if subscribed.count.is_some() {
            let changes = topic.presence();
            self.calls.worker.begin_live(self.calls.key, &changes);
        }
        let begun = self.begin(topic, subscribed.start);
        if joining.begin.reach.is_none() {
            self.limit_by_now(topic);
        }
        Begun {
            position: self.machine.told_place(topic, begun.position),
            ..begun
        }
    }

    /// The right to read history may have gone while the answer was on its way.
    fn limit_by_now(&self, topic: &Topic) {
        if self.machine.is_limited(topic) {
            self.calls.worker.limit(self.calls.key, topic, true);
        }
    }

    /// Lets a topic's messages through. They follow behind what is queued in the same step.
    fn begin(&self, topic: &Topic, start: Start) -> Begun {
        let (worker, key) = (&self.calls.worker, self.calls.key);
        match start {
            Start::Live => Begun {
                gap: None,
                position: worker.begin_live(key, topic).unwrap_or_default(),
            },
            Start::After { at, gap } => {
                let position = worker.begin_after(key, topic, at);
                // Without history what came between the broker's answer and now has passed by.
                let passed = (position != at).then_some(GapReason::Retention);
                Begun {
                    gap: gap.or(passed),
                    position,
                }
            }
        }
    }

    /// Everything is joined: `welcome`, what is gone of the inbox and `@`, then the messages of
    /// every topic from its place.
    fn opened(&mut self, opened: Opened) {
        let mut topics = BTreeMap::new();
        for (name, outcome) in opened.topics {
            let resumed = match outcome {
                Result::Ok((joining, subscribed)) => {
                    let begun = self.begin_subscription(&joining, &subscribed);
                    let ends = self.heed(&joining.topic, subscribed.authorized);
                    begun.resumed(subscribed.count, sooner(joining.expires, ends))
                }
                Err(error) => {
                    if let Result::Ok(topic) = Topic::new(self.machine.app(), &name) {
                        self.forget(&topic);
                    }
                    refused(error)
                }
            };
            topics.insert(name, resumed);
        }
        let (summary, inbox) = opened.inbox.unzip();
        let (everyone, late) = match opened.everyone {
            Result::Ok(own) => (Some(own), None),
            Err(late) => (None, Some(late)),
        };
        let state = inbox.as_ref().zip(summary);
        let state = state.map(|(own, summary)| (own.topic.clone(), summary));
        let mut gaps = Vec::new();
        for own in inbox.into_iter().chain(everyone) {
            let begun = self.begin(&own.topic, own.start);
            match &own.named {
                Some(Result::Ok(())) => {
                    topics.insert(own.topic.name().to_owned(), begun.resumed(None, None));
                }
                Some(Err(error)) => {
                    topics.insert(own.topic.name().to_owned(), refused(error.clone()));
                }
                None => {}
            }
            gaps.extend(gap_of(&own, &begun));
        }
        if let Some(late) = late {
            if late.is_named {
                let name = Topic::everyone(self.machine.app()).name().to_owned();
                let text = "`@` cannot be joined yet; a `gap` follows when it is";
                topics.insert(name, refused(WireError::unavailable(text)));
            }
            self.late = Some(Box::new(late));
        }
        self.machine.opened();
        self.welcome(opened.id, state, topics);
        self.tell_opened();
        for gap in gaps {
            self.tell_gap(gap);
        }
        self.schedule(Now::read());
    }

    /// `@` has become live after `welcome`: what it missed meanwhile is told.
    fn everyone_is_live(&mut self, own: AutoJoined) {
        let begun = self.begin(&own.topic, own.start);
        self.limit_by_now(&own.topic);
        let gap = match own.left {
            Some(_) => gap_of(&own, &begun),
            // What was published since `welcome` passed this session by, and nobody knows what.
            None => Some(Gap {
                topic: own.topic,
                of: None,
                from: None,
                to: Some(begun.position),
                reason: GapReason::Lost,
                dropped: None,
            }),
        };
        if let Some(gap) = gap {
            self.tell_gap(gap);
        }
    }

    fn tell_gap(&self, gap: Gap) {
        let worker = &self.calls.worker;
        worker.metrics().counters.gaps_told.add_owned(1);
        let topic = gap.topic.clone();
        worker.notice(self.calls.key, &topic, &Event::Gap(gap));
    }

    fn welcome(
        &self,
        id: Option<u64>,
        inbox: Option<(Topic, InboxSummary)>,
        topics: BTreeMap<String, Resumed>,
    ) {
        let services = &self.calls.services;
        let view = services.view.borrow().clone();
        let home = match &inbox {
            Some((inbox, _)) => view.home(inbox),
            None => view.here(),
        };
        let identity = self.machine.identity();
        let ping = services.config.session.ping;
        let welcome = Welcome {
            id,
            session: self.calls.session,
            user: identity.user.as_ref().map(|u| u.as_str().to_owned()),
            node: view.me.node.as_str().to_owned(),
            home,
            ping_ms: ping.map_or(0, |p| u64::try_from(p.as_millis()).unwrap_or(u64::MAX)),
            expires: identity.claims.as_ref().map(|c| c.expires),
            inbox: inbox.map(|(topic, summary)| inbox_state(&topic, &summary)),
            topics: (!topics.is_empty()).then_some(topics),
        };
        let refused = welcome.topics.iter().flatten().filter_map(code_of);
        if let Some(code) = gravest(refused) {
            let errors = &self.calls.worker.metrics().command_errors;
            errors.of(code).add_owned(1);
        }
        self.reply(&Event::Welcome(Box::new(welcome)));
        let seconds = &self.calls.worker.metrics().connect_seconds;
        seconds.count_owned(self.begun_at.elapsed());
    }

    /// Undoes the join of a topic that could not begin.
    fn forget(&mut self, topic: &Topic) {
        if let Some(presence) = self.machine.leave(topic) {
            self.unjoin(topic, presence);
        }
    }
}

/// The sooner of two ends.
fn sooner(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

/// What is gone of a topic that the session belongs to unasked.
fn gap_of(own: &AutoJoined, begun: &Begun) -> Option<Gap> {
    let (reason, left) = begun.gap.zip(own.left)?;
    let (from, to) = reason.bounds(left, begun.position);
    Some(Gap {
        topic: own.topic.clone(),
        of: None,
        from: Some(from),
        to,
        reason,
        dropped: None,
    })
}

/// Why a topic of a welcome was refused; `None`: it was not.
fn code_of((_, resumed): (&String, &Resumed)) -> Option<ErrorCode> {
    match resumed {
        Resumed::Refused { error } => Some(error.code),
        _ => None,
    }
}

fn refused(error: WireError) -> Resumed {
    let error = ErrorBody {
        code: error.code,
        message: error.message.into_owned(),
    };
    Resumed::Refused { error }
}

fn inbox_state(topic: &Topic, summary: &InboxSummary) -> InboxState {
    InboxState {
        topic: topic.name().to_owned(),
        position: summary.cursor.unwrap_or_default(),
        pending: summary.pending,
    }
}
