//! What has come back from the broker, turned into frames and modes in one step without awaits.

use std::collections::BTreeMap;

use crate::broker::{Acked, InboxSummary};
use crate::protocol::error::WireError;
use crate::protocol::event::{ErrorBody, Event, Gap, GapReason, InboxState, Ok, Resumed, Welcome};
use crate::protocol::ids::{Position, Topic};

use super::Session;
use super::state::Now;
use super::work::{Desk, Done, Opened, Start, Subscribed, left_before_joined};

/// Where a topic begins: what `ok` and `welcome.topics` say of it.
struct Begun {
    gap: Option<GapReason>,
    position: Position,
}

impl Begun {
    fn resumed(&self) -> Resumed {
        Resumed::Joined {
            recovered: self.gap.is_none(),
            position: self.position,
            gap_reason: self.gap,
        }
    }
}

impl Session {
    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Opened(opened) => self.opened(*opened),
            Done::Subscribed {
                id,
                topic,
                stay,
                result,
            } if self.machine.stay(&topic) == Some(stay) => self.subscribed(id, topic, result),
            Done::Subscribed { id, topic, .. } => self.left_meanwhile(id, &topic),
            Done::Published(id, result) => self.answer(id, result, |published| Ok {
                position: Some(published.position),
                duplicate: published.duplicate,
                ..Ok::default()
            }),
            Done::Acked(id, result) => {
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
            Done::History(id, result) => self.answer(id, result, |page| Ok {
                publications: Some(page.messages),
                more: Some(page.more),
                ..Ok::default()
            }),
            Done::Presence(id, result) => self.answer(id, result, |page| Ok {
                count: Some(page.count),
                members: Some(page.members),
                position: Some(page.position),
                more: Some(page.more),
                ..Ok::default()
            }),
            Done::Page(pull, result) => {
                let (worker, key) = (&self.desk.worker, self.desk.key);
                let now_ms = Now::read().unix_ms;
                let goes_on = result.is_ok_and(|page| worker.page(key, &pull, &page, now_ms));
                if !goes_on {
                    self.work(Desk::rest(pull));
                }
            }
            Done::PullAgain(pull) => self.desk.worker.pull_again(self.desk.key, &pull),
            Done::Alone(done) => {
                self.alone = false;
                self.done(*done);
            }
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

    fn subscribed(&mut self, id: Option<u64>, topic: Topic, result: Result<Subscribed, WireError>) {
        match result {
            Err(error) => {
                let presence = self.machine.leave(&topic).unwrap_or(false);
                self.unjoin(&topic, presence);
                self.refuse(id, error.into());
            }
            Result::Ok(Subscribed { start, count }) => {
                if count.is_some() {
                    let changes = topic.presence();
                    self.desk.worker.begin_live(self.desk.key, &changes);
                }
                let begun = self.begin(&topic, start);
                self.ok(Ok {
                    id,
                    recovered: Some(begun.gap.is_none()),
                    gap_reason: begun.gap,
                    position: Some(begun.position),
                    count,
                    ..Ok::default()
                });
            }
        }
    }

    /// The client left while the answer was on its way, and may have joined again. There is no
    /// membership to be ended: who becomes a member is not read before that is answered.
    fn left_meanwhile(&mut self, id: Option<u64>, topic: &Topic) {
        if !self.machine.has_joined(topic) {
            self.desk.worker.leave(self.desk.key, topic);
        }
        self.refuse(id, left_before_joined().into());
    }

    /// Lets a topic's messages through. They follow behind what is queued in the same step.
    fn begin(&self, topic: &Topic, start: Start) -> Begun {
        let (worker, key) = (&self.desk.worker, self.desk.key);
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
        for (name, result) in opened.topics {
            let resumed = match result {
                Result::Ok((topic, start)) => self.begin(&topic, start).resumed(),
                Err(error) => {
                    self.forget(&name);
                    let error = ErrorBody {
                        code: error.code,
                        message: error.message.into_owned(),
                    };
                    Resumed::Refused { error }
                }
            };
            topics.insert(name, resumed);
        }
        let mut gaps = Vec::new();
        for own in opened.own {
            let begun = self.begin(&own.topic, own.start);
            if own.is_named {
                topics.insert(own.topic.name().to_owned(), begun.resumed());
            }
            gaps.extend(begun.gap.zip(own.left).map(|(reason, left)| {
                let (from, to) = reason.bounds(left, begun.position);
                Gap {
                    topic: own.topic,
                    of: None,
                    from: Some(from),
                    to,
                    reason,
                    dropped: None,
                }
            }));
        }
        self.machine.opened();
        self.welcome(opened.id, opened.inbox, topics);
        for gap in gaps {
            let worker = &self.desk.worker;
            worker.metrics().counters.gaps_told.add_owned(1);
            let topic = gap.topic.clone();
            worker.notice(self.desk.key, &topic, &Event::Gap(gap));
        }
        self.schedule(Now::read());
    }

    fn welcome(
        &self,
        id: Option<u64>,
        inbox: Option<(Topic, InboxSummary)>,
        topics: BTreeMap<String, Resumed>,
    ) {
        let services = &self.desk.services;
        let view = services.view.borrow().clone();
        let home = match &inbox {
            Some((inbox, _)) => view.home(inbox),
            None => view.here(),
        };
        let identity = self.machine.identity();
        let ping = services.config.session.ping;
        let welcome = Welcome {
            id,
            session: self.desk.session,
            user: identity.user.as_ref().map(|u| u.as_str().to_owned()),
            node: view.me.node.as_str().to_owned(),
            home,
            ping_ms: ping.map_or(0, |p| u64::try_from(p.as_millis()).unwrap_or(u64::MAX)),
            expires: identity.claims.as_ref().map(|c| c.expires),
            inbox: inbox.map(|(topic, summary)| inbox_state(&topic, &summary)),
            topics: (!topics.is_empty()).then_some(topics),
        };
        self.reply(&Event::Welcome(Box::new(welcome)));
    }

    /// Undoes the join of a topic that could not be resumed.
    fn forget(&mut self, name: &str) {
        if let Result::Ok(topic) = Topic::new(self.machine.app(), name)
            && let Some(presence) = self.machine.leave(&topic)
        {
            self.unjoin(&topic, presence);
        }
    }
}

fn inbox_state(topic: &Topic, summary: &InboxSummary) -> InboxState {
    InboxState {
        topic: topic.name().to_owned(),
        position: summary.cursor.unwrap_or_default(),
        pending: summary.pending,
    }
}
