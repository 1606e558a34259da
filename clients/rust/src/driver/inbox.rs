//! Topics that a session has by itself, the own inbox and `@`: they cannot be left and joined again,
//! so what was passed over is read by `history`, up to what comes live.
//!
//! In: subscriptions that begin, end, or have room again; pages. Out: items, and `lost` where what
//! was passed over is kept nowhere. Part of the client's task. Bounds: a page at a time.

use fanfare_protocol::command::{Command, History};
use fanfare_protocol::event::Ok as Answer;
use tokio::time::Instant;

use super::calls::{Asker, Call};
use super::topic::{Queueing, Stay, Topic};
use super::{CommandError, Driver, Frame};
use crate::subscription::Item;

/// Messages in a page.
const PAGE: usize = 100;
/// How long until a page is asked for again that the server could not give.
const PAGE_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// The own inbox, which begins with the session and not with its subscription.
pub(super) struct Inbox {
    pub(super) topic: String,
    /// Where its next subscription is to begin.
    position: String,
    /// Messages that came and that nobody took.
    pub(super) passed_over: u64,
    /// There are others, which waited for a reader that has gone.
    is_behind: bool,
}

impl Inbox {
    pub(super) fn new(topic: &str, position: Option<&str>) -> Self {
        Self {
            topic: topic.to_owned(),
            position: position.unwrap_or("0-0").to_owned(),
            passed_over: 0,
            is_behind: false,
        }
    }
}

impl Driver {
    /// Whether the session has a topic by itself.
    pub(super) fn is_by_itself(&self, topic: &str) -> bool {
        let inbox = self.inbox.as_ref();
        topic == "@" || inbox.is_some_and(|inbox| inbox.topic == topic)
    }

    /// Begins a subscription of such a topic.
    pub(super) fn attach(&mut self, name: &str) {
        self.connection.attend(name);
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        let inbox = self.inbox.as_mut().filter(|inbox| inbox.topic == name);
        let is_given = topic.position.is_some();
        if let Some(inbox) = inbox {
            topic.passed_over = std::mem::take(&mut inbox.passed_over);
            topic.is_behind = std::mem::take(&mut inbox.is_behind);
            if !is_given {
                topic.position = Some(inbox.position.clone());
            }
            inbox.position = topic.position.clone().unwrap_or_default();
        } else if !is_given {
            topic.position = self.connection.position(name).map(str::to_owned);
        }
        topic.is_behind |= is_given;
        if topic.is_behind || topic.passed_over > 0 {
            self.read_page(name);
        } else {
            topic.enter(Stay::Live);
        }
    }

    /// Ends one. The next begins behind what the reader took, not behind what waited for it.
    pub(super) fn detach(&mut self, name: &str, topic: &Topic) {
        let inbox = self.inbox.as_mut().filter(|inbox| inbox.topic == name);
        let Some(inbox) = inbox else {
            return self.connection.forget(name);
        };
        if let Some(taken) = topic.shared.taken() {
            inbox.position = taken.to_string();
        }
        let is_behind = topic.position.as_ref() != Some(&inbox.position);
        inbox.is_behind = is_behind || topic.stay != Stay::Live;
        inbox.passed_over = topic.passed_over;
    }

    /// Goes on with what was passed over.
    pub(super) fn read_on(&mut self, name: &str) {
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        if let Some(gap) = topic.owed.take() {
            // There is room. The place stays: what lies before the gap is still to be read.
            topic.queue(Item::Gap(gap), 0);
        }
        if topic.is_unplaced || topic.position.is_none() {
            return self.give_up(name, "lost");
        }
        if topic.is_behind || topic.passed_over > 0 {
            self.read_page(name);
        } else {
            topic.enter(Stay::Live);
        }
    }

    fn read_page(&mut self, name: &str) {
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        // They come again with the page.
        topic.pass_over_ahead();
        topic.is_behind = true;
        if !self.connection.is_open() {
            // Looked at when it is back.
            return topic.enter(Stay::Held { is_left: true });
        }
        topic.enter(Stay::Reading);
        let room = topic.queue.capacity().clamp(1, PAGE);
        let history = History {
            topic: name.to_owned(),
            since: topic.position.as_deref().and_then(|at| at.parse().ok()),
            limit: u32::try_from(room).ok(),
            ..History::default()
        };
        let command = Command::History(history);
        self.send(Call::new(command, Asker::Page(name.to_owned())));
    }

    /// Takes a page.
    pub(super) fn page(&mut self, name: &str, frame: &Frame) {
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        if topic.stay != Stay::Reading {
            return;
        }
        let Ok(page) = serde_json::from_str::<Answer>(&frame.text) else {
            return self.give_up(name, "unreadable");
        };
        let has_more = page.more == Some(true);
        for message in page.publications.unwrap_or_default() {
            if topic.read(message) == Queueing::Full {
                return self.pause(name);
            }
        }
        if has_more && topic.queue.capacity() < PAGE {
            return self.pause(name);
        }
        if has_more || topic.is_ahead_cut {
            return self.read_page(name);
        }
        if topic.passed_over > 0 {
            // They came once, and history does not have them any more.
            return self.give_up(name, "retention");
        }
        self.catch_up(name);
    }

    /// What came live while the last page was read.
    fn catch_up(&mut self, name: &str) {
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        topic.passed_over = 0;
        topic.is_behind = false;
        topic.enter(Stay::Live);
        while let Some(frame) = topic.ahead.pop_front() {
            if topic.is_new(&frame) && topic.deal(&frame) == Queueing::Full {
                topic.pass_over(&frame);
                return self.hold(name);
            }
        }
    }

    fn pause(&mut self, name: &str) {
        if let Some(topic) = self.topics.get_mut(name) {
            topic.pass_over_ahead();
            topic.is_behind = true;
        }
        self.hold(name);
    }

    /// What was passed over will not come.
    fn give_up(&mut self, name: &str, reason: &str) {
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        let gap = topic.lost(reason);
        if topic.queue(Item::Gap(gap), 0) == Queueing::Full {
            topic.is_behind = true;
            return self.hold(name);
        }
        topic.is_unplaced = false;
        self.catch_up(name);
    }

    /// A page was refused, or its answer was lost.
    pub(super) fn page_refused(&mut self, name: &str, error: Option<&CommandError>) {
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        if topic.stay != Stay::Reading {
            return;
        }
        let wait = match error {
            Some(CommandError::Lost { .. }) => return self.pause(name),
            Some(CommandError::Refused {
                retry: true,
                retry_after,
                ..
            }) => retry_after.unwrap_or(PAGE_AGAIN).max(PAGE_AGAIN),
            _ => return self.give_up(name, "lost"),
        };
        let topic_at = Some(Instant::now() + wait);
        topic.not_before = topic_at;
        self.pause(name);
        let earlier = self.look_at.into_iter().chain(topic_at);
        self.look_at = earlier.min();
    }
}
