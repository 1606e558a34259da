//! What all parts of a run share: the clock, the history that they write, the names of topics.
//!
//! In: what happens. Out: the history, with its times. Here also the receive path is sabotaged
//! where that is asked for, to prove that the checker would see it. Owner: the run's thread.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use fanfare_protocol::ids::Position;
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::Value;

use super::app::App;
use super::checker::Wrong;
use super::history::{ClientIndex, EntryName, Event, History, Id, Taken, Topic, TopicIndex};
use super::throng::Living;

/// What the harness does to its own receive path, so that a run must be found faulty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sabotage {
    /// Forgets a message
    Drop,
    /// Takes a message twice
    Dup,
    /// Changes the order of two
    Swap,
    /// Invents one
    Phantom,
    /// Takes one that is for somebody else
    Leak,
    /// Takes one that the same user of the other app got in the same topic
    AppLeak,
}

/// As long as an ordinary small update.
pub(crate) const DATA_BYTES: usize = 200;

/// One of so many messages is sabotaged.
const SABOTAGED_ONE_OF: u64 = 2_000;

impl Sabotage {
    /// What must be found, any of these.
    pub(crate) fn expected(self) -> &'static [Wrong] {
        match self {
            Self::Drop => &[Wrong::SilentGap, Wrong::Lost],
            Self::Dup => &[Wrong::Doubled],
            Self::Swap => &[Wrong::Reordered],
            Self::Phantom => &[Wrong::Phantom],
            Self::Leak => &[Wrong::Misdirected],
            Self::AppLeak => &[Wrong::BetweenApps],
        }
    }
}

/// See the module.
pub(crate) struct Run {
    begun: Instant,
    pub(crate) history: RefCell<History>,
    topics: FxHashMap<(App, String), TopicIndex>,
    /// Publications that have not ended.
    pub(crate) open_publications: Cell<u64>,
    /// Entries of the queue that have not ended, and how many writers it has had.
    pub(crate) queue_open: Cell<usize>,
    pub(crate) queue_writers: Cell<u16>,
    /// The members that are there.
    pub(crate) living: Living,
    /// No new publications.
    pub(crate) is_over: Cell<bool>,
    /// The sessions of clients, by app.
    sessions: RefCell<FxHashMap<String, App>>,
    /// The sessions that were shown as members, and in which app.
    shown: RefCell<FxHashSet<(App, String)>>,
    /// How long the data of publications by session is.
    pub(crate) data_bytes: Cell<usize>,
    sabotage: Option<Sabotage>,
    received: Cell<u64>,
    /// What a swap holds back.
    held: RefCell<Option<Event>>,
}

impl Run {
    /// A run that begins now.
    pub(crate) fn new(history: History, sabotage: Option<Sabotage>) -> Self {
        let topics = history.topics.iter();
        let names = topics.map(|topic| (topic.app, topic.name.clone()));
        let topics = names.zip(0..).collect();
        Self {
            begun: Instant::now(),
            history: RefCell::new(history),
            topics,
            open_publications: Cell::new(0),
            queue_open: Cell::new(0),
            queue_writers: Cell::new(0),
            living: Living::default(),
            sessions: RefCell::default(),
            shown: RefCell::default(),
            is_over: Cell::new(false),
            data_bytes: Cell::new(DATA_BYTES),
            sabotage,
            received: Cell::new(0),
            held: RefCell::new(None),
        }
    }

    /// Time since the begin.
    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Adds what happens now.
    pub(crate) fn push(&self, event: Event) {
        self.history.borrow_mut().push(self.now(), event);
    }

    /// A session of a client began.
    pub(crate) fn began(&self, app: App, session: &str) {
        let mut sessions = self.sessions.borrow_mut();
        sessions.insert(session.to_owned(), app);
    }

    /// A session was shown as a member, as one that came, or as one that left.
    pub(crate) fn shown(&self, app: App, member: &Value) {
        if let Some(session) = member["session"].as_str() {
            let mut shown = self.shown.borrow_mut();
            shown.insert((app, session.to_owned()));
        }
    }

    /// Adds each session that was shown in another app than its own. At the end: a session may be
    /// shown before its client knows its name.
    pub(crate) fn judge_shown(&self) {
        let sessions = self.sessions.borrow();
        for (app, session) in &*self.shown.borrow() {
            if let Some(own) = sessions.get(session).filter(|own| *own != app) {
                let (own, app) = (own.word(), app.word());
                let what = format!("session {session} of {own} was shown as a member in {app}");
                self.push(Event::BetweenApps { what });
            }
        }
    }

    /// Adds something that must not be, and says so at once.
    pub(crate) fn broken(&self, what: String) {
        self.say(&what);
        self.push(Event::Broken { what });
    }

    /// A writer hands entries to the queue.
    pub(crate) fn queue_begun(&self, entries: impl Iterator<Item = EntryName>, is_raw: bool) {
        for entry in entries {
            self.queue_open.set(self.queue_open.get() + 1);
            self.push(Event::EntryBegun { entry, is_raw });
        }
    }

    /// What became of one of them.
    pub(crate) fn queue_ended(&self, entry: EntryName, taken: Taken) {
        self.queue_open.set(self.queue_open.get() - 1);
        self.push(Event::EntryEnded { entry, taken });
    }

    /// Tells people what is going on.
    pub(crate) fn say(&self, what: &str) {
        eprintln!("[{:7.3}] {what}", self.now().as_secs_f64());
    }

    /// Which topic of an app has this name.
    pub(crate) fn topic(&self, app: App, name: &str) -> Option<TopicIndex> {
        self.topics.get(&(app, name.to_owned())).copied()
    }

    /// The app of a topic.
    pub(crate) fn app(&self, topic: TopicIndex) -> App {
        self.history.borrow().topics[topic as usize].app
    }

    /// The name of a topic.
    pub(crate) fn name(&self, topic: TopicIndex) -> String {
        self.history.borrow().topics[topic as usize].name.clone()
    }

    /// Adds a message as it was received, or not quite.
    pub(crate) fn received(
        &self,
        client: ClientIndex,
        topic: TopicIndex,
        id: Id,
        position: Position,
    ) {
        let event = Event::Received {
            client,
            topic,
            id,
            position,
        };
        let count = self.received.get() + 1;
        self.received.set(count);
        let sabotage = self
            .sabotage
            .filter(|_| count.is_multiple_of(SABOTAGED_ONE_OF));
        match sabotage {
            None => self.push(event),
            Some(Sabotage::Drop) => {}
            Some(Sabotage::Dup) => {
                self.push(event.clone());
                self.push(event);
            }
            Some(Sabotage::Swap) => {
                self.release();
                self.held.replace(Some(event));
                return;
            }
            Some(Sabotage::Phantom) => {
                self.push(event);
                let number = u32::MAX;
                let id = Id { number, ..id };
                self.push(Event::Received {
                    client,
                    topic,
                    id,
                    position,
                });
            }
            Some(Sabotage::Leak) => {
                self.push(event);
                let topic = self.inbox_of_another(client);
                self.push(Event::Received {
                    client,
                    topic,
                    id,
                    position,
                });
            }
            Some(Sabotage::AppLeak) => {
                self.push(event);
                self.leak(topic, id, position);
            }
        }
        let fits = |held: &Event| matches!(held, Event::Received { client: c, topic: t, .. } if (*c, *t) == (client, topic));
        if self.held.borrow().as_ref().is_some_and(fits) {
            self.release();
        }
    }

    fn release(&self) {
        if let Some(held) = self.held.take() {
            self.push(held);
        }
    }

    /// An inbox of the same app.
    fn inbox_of_another(&self, client: ClientIndex) -> TopicIndex {
        let history = self.history.borrow();
        let mut topics = (0..).zip(&history.topics);
        let app = history.topics.iter().find(|t| t.clients.contains(&client));
        let app = app.map_or(App::Default, |topic| topic.app);
        let is_theirs = |(_, topic): &(TopicIndex, &Topic)| {
            topic.app == app && topic.clients.len() == 1 && topic.clients[0] != client
        };
        topics.find(is_theirs).map_or(0, |(topic, _)| topic)
    }

    /// Lets a message of a topic come through to a reader of the topic of its name in the other app.
    fn leak(&self, topic: TopicIndex, id: Id, position: Position) {
        let reader = {
            let history = self.history.borrow();
            let Topic { app, name, .. } = &history.topics[topic as usize];
            let mut twins = (0..).zip(&history.topics);
            let twin = twins.find(|(_, twin)| twin.app != *app && twin.name == *name);
            twin.and_then(|(topic, twin)| Some((topic, *twin.clients.first()?)))
        };
        if let Some((topic, client)) = reader {
            self.push(Event::Received {
                client,
                topic,
                id,
                position,
            });
        }
    }
}
