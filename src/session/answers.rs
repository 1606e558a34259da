//! What has come back from the broker, turned into frames and modes in one step without awaits.

use std::collections::BTreeMap;

use crate::broker::{Acked, Body, HistoryPage, InboxSummary};
use crate::protocol::error::WireError;
use crate::protocol::event::{ErrorBody, Event, GapReason, InboxState, Ok, Resumed, Welcome};
use crate::protocol::ids::{Position, Topic};
use crate::worker::outgoing::message;

use super::Session;
use super::state::Now;
use super::work::{Done, Opened, Start, Subscribed, compare};

/// Where a topic begins: what `ok` and `welcome.topics` say of it.
struct Begun {
    recovered: Option<bool>,
    gap: Option<GapReason>,
    position: Position,
}

impl Session {
    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Opened(opened) => self.opened(*opened),
            Done::Subscribed(id, topic, result) => self.subscribed(id, topic, result),
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
            Done::History(id, topic, result) => {
                let now_ms = Now::read().unix_ms;
                self.answer(id, result, |page| history(&topic, page, now_ms));
            }
            Done::Presence(id, result) => self.answer(id, result, |page| Ok {
                count: Some(page.count),
                members: Some(page.members),
                position: Some(page.position),
                more: Some(page.more),
                ..Ok::default()
            }),
            Done::Page(topic, Result::Ok(page)) => {
                let now_ms = Now::read().unix_ms;
                let worker = &self.desk.worker;
                if !worker.page(self.desk.key, &topic, &page, now_ms, true) {
                    self.work(super::work::Desk::rest(topic));
                }
            }
            Done::Page(topic, Err(_)) => self.work(super::work::Desk::rest(topic)),
            Done::PullAgain(topic) => self.desk.worker.pull_again(self.desk.key, &topic),
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
        // The client may have left while the answer was on its way.
        if !self.machine.has_joined(&topic) {
            let error = WireError::new(
                crate::protocol::error::ErrorCode::NotSubscribed,
                "the topic was left before it was joined",
            );
            return self.refuse(id, error.into());
        }
        match result {
            Err(error) => {
                let presence = self.machine.leave(&topic).unwrap_or(false);
                self.unjoin(&topic, presence);
                self.refuse(id, error.into());
            }
            Result::Ok(subscribed) => {
                let count = subscribed.count;
                if count.is_some() {
                    self.desk
                        .worker
                        .begin_live(self.desk.key, &topic.presence());
                }
                self.begin(&topic, subscribed.start, |session, begun| {
                    session.ok(Ok {
                        id,
                        recovered: begun.recovered,
                        gap_reason: begun.gap,
                        position: Some(begun.position),
                        count,
                        ..Ok::default()
                    });
                });
            }
        }
    }

    /// Lets a topic's messages through, behind what `tell` says of it.
    fn begin(&mut self, topic: &Topic, start: Start, tell: impl FnOnce(&mut Self, Begun)) {
        let worker = self.desk.worker.clone();
        let key = self.desk.key;
        match start {
            Start::Live => {
                let position = worker.begin_live(key, topic).unwrap_or_default();
                let begun = Begun {
                    recovered: None,
                    gap: None,
                    position,
                };
                tell(self, begun);
            }
            Start::Compare(since) => {
                let position = worker.begin_live(key, topic).unwrap_or_default();
                let gap = compare(since, position);
                let begun = Begun {
                    recovered: Some(gap.is_none()),
                    gap,
                    position,
                };
                tell(self, begun);
            }
            Start::Page(page) => {
                worker.begin_pull(key, topic, page.start);
                let begun = Begun {
                    recovered: Some(page.gap.is_none()),
                    gap: page.gap,
                    position: page.start,
                };
                tell(self, begun);
                if !worker.page(key, topic, &page, Now::read().unix_ms, false) {
                    self.work(super::work::Desk::rest(topic.clone()));
                }
            }
        }
    }

    /// Everything is joined: `welcome`, then the messages of every topic from its place.
    fn opened(&mut self, opened: Opened) {
        let mut topics = BTreeMap::new();
        let mut begin = Vec::new();
        for (name, result) in opened.topics {
            match result {
                Err(error) => {
                    self.forget(&name);
                    let error = ErrorBody {
                        code: error.code,
                        message: error.message.into_owned(),
                    };
                    topics.insert(name, Resumed::Refused { error });
                }
                Result::Ok((topic, subscribed)) => {
                    // What `begin` will say: nothing runs in between.
                    topics.insert(name, self.resumed(&topic, &subscribed.start));
                    begin.push((topic, subscribed.start));
                }
            }
        }
        let services = self.desk.services.clone();
        let view = services.view.borrow().clone();
        let inbox_topic = self.machine.inbox();
        let home = match &inbox_topic {
            Some(inbox) => view.home(inbox),
            None => view.here(),
        };
        let identity = self.machine.identity();
        let welcome = Welcome {
            id: opened.id,
            session: self.desk.session,
            user: identity.user.as_ref().map(|u| u.as_str().to_owned()),
            node: view.me.node.as_str().to_owned(),
            home,
            ping_ms: services
                .config
                .session
                .ping
                .map_or(0, |p| u64::try_from(p.as_millis()).unwrap_or(u64::MAX)),
            expires: identity.claims.as_ref().map(|c| c.expires),
            inbox: opened
                .inbox
                .as_ref()
                .map(|(topic, summary, _)| inbox_state(topic, summary)),
            topics: (!topics.is_empty()).then_some(topics),
        };
        self.machine.opened();
        self.reply(&Event::Welcome(Box::new(welcome)));
        self.begin_everyone(opened.everyone);
        if let Some((inbox, _, start)) = opened.inbox {
            self.desk.worker.begin_pull(self.desk.key, &inbox, start);
        }
        for (topic, start) in begin {
            self.begin(&topic, start, |_, _| {});
        }
        self.schedule(Now::read());
    }

    fn begin_everyone(&mut self, since: Option<Position>) {
        let everyone = Topic::everyone(self.machine.app());
        let has_history = self.desk.services.config.everyone.history_entries_max > 0;
        match since {
            Some(since) if has_history => {
                self.desk.worker.begin_pull(self.desk.key, &everyone, since);
            }
            _ => {
                let position = self.desk.worker.begin_live(self.desk.key, &everyone);
                let gap = since.and_then(|since| Some((since, compare(since, position?)?)));
                if let (Some((from, reason)), Some(to)) = (gap, position) {
                    self.tell_gap(&everyone, from, to, reason);
                }
            }
        }
    }

    fn tell_gap(&self, topic: &Topic, from: Position, to: Position, reason: GapReason) {
        self.desk.worker.metrics().counters.gaps_told.add_owned(1);
        self.reply(&Event::Gap(crate::protocol::event::Gap {
            topic: topic.clone(),
            from: Some(from),
            to: (reason != GapReason::Failover).then_some(to),
            reason,
            dropped: None,
        }));
    }

    fn resumed(&self, topic: &Topic, start: &Start) -> Resumed {
        let (gap, position) = match start {
            Start::Page(page) => (page.gap, page.start),
            Start::Compare(since) => {
                let newest = self.desk.worker.last(topic).unwrap_or_default();
                (compare(*since, newest), newest)
            }
            Start::Live => (None, self.desk.worker.last(topic).unwrap_or_default()),
        };
        Resumed::Joined {
            recovered: gap.is_none(),
            position,
            gap_reason: gap,
        }
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

/// A page of history, without what is past its own end.
fn history(topic: &Topic, page: HistoryPage, now_ms: u64) -> Ok {
    let publications = page.entries.iter().filter_map(|entry| match &entry.body {
        Body::Publication(publication) if !publication.has_ended(now_ms) => {
            Some(message(topic, Some(entry.position), publication))
        }
        _ => None,
    });
    Ok {
        publications: Some(publications.collect()),
        more: Some(page.more),
        ..Ok::default()
    }
}
