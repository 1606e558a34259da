//! A client that wants everything: it joins, reads, loses its connection, and comes back from its
//! positions on another node.
//!
//! In: what nodes send, and orders of the nemesis (read nothing, go, end). Out: entries of the
//! history. Owner: one task of the run's thread. A session that shows no sign of life for
//! [`SILENCE_MAX`] is left; a node that pings and delivers nothing is not, for that is what the
//! checker is to find.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use fanfare_bench::socket::{Scratch, SocketError};
use fanfare_protocol::ids::Position;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep, sleep_until};

use super::app::App;
use super::history::{ClientIndex, Event, TopicIndex};
use super::run::Run;
use super::speech::{Form, Speech, identity, position};
use super::stage::Stage;

/// How often a client asks for a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long a client believes in a silent connection.
const SILENCE_MAX: Duration = Duration::from_secs(6);
/// Between a lost connection and the next attempt, at random, in milliseconds.
const BACK_OFF_MS: std::ops::Range<u64> = 20..150;
/// Between two reads on a thin line. What a narrow client's kernel takes at once is some 4 KB, so
/// that this is 5 to 8 KB/s.
const THIN_REST: Duration = Duration::from_millis(600);
/// Long replies that a client on a thin line asks for: more than the kernels take at once.
const LONG_READINGS: u32 = 4;
/// An end by order of the HTTP API, which nobody in the run gives.
const CODE_DISCONNECTED: u16 = 4002;
/// The `id` of the first subscription; lower ones are other commands.
const FIRST_SUBSCRIPTION: u64 = 10;

/// What a client is told to do.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Orders {
    /// Read nothing.
    pub(crate) is_stalled: bool,
    /// Read slowly, with [`THIN_REST`] between two reads, and ask for a long reply first.
    pub(crate) is_thin: bool,
    /// Counts up whenever the connection is to be dropped.
    pub(crate) drops: u32,
    /// End.
    pub(crate) is_over: bool,
}

/// A topic as a client knows it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) topic: TopicIndex,
    name: String,
    /// After which the next message is expected.
    pub(crate) last: Position,
    /// When the newest message that came was first tried.
    pub(crate) newest_begun: Duration,
    /// Whether it is joined on the present connection.
    is_joined: bool,
}

/// See the module.
pub(crate) struct Client {
    pub(crate) number: ClientIndex,
    pub(crate) app: App,
    user: String,
    run: Rc<Run>,
    stage: Rc<Stage>,
    scratch: Scratch,
    pub(crate) orders: watch::Sender<Orders>,
    /// Name of the present session, once everything is joined.
    session: RefCell<Option<String>>,
    pub(crate) slots: RefCell<Vec<Slot>>,
}

/// What follows from an event.
enum Step {
    Go,
    Subscribe,
    LeaveIn(Duration),
}

impl Client {
    /// A client that has joined nothing yet, of an app whose first client has that number.
    pub(crate) fn new(
        number: ClientIndex,
        (app, first): (App, ClientIndex),
        run: &Rc<Run>,
        stage: &Rc<Stage>,
        scratch: &Scratch,
    ) -> Self {
        let history = run.history.borrow();
        let mine = (0..).zip(&history.topics);
        let mine = mine.filter(|(_, topic)| topic.clients.contains(&number));
        let slots = mine.map(|(topic, about)| Slot {
            topic,
            name: about.name.clone(),
            last: Position::ZERO,
            newest_begun: Duration::ZERO,
            is_joined: false,
        });
        Self {
            number,
            app,
            user: user(number - first),
            run: Rc::clone(run),
            stage: Rc::clone(stage),
            scratch: Rc::clone(scratch),
            orders: watch::Sender::default(),
            session: RefCell::new(None),
            slots: RefCell::new(slots.collect()),
        }
    }

    /// Whether the client can be made slow: its own socket is narrow and leads straight to nodes.
    pub(crate) fn is_narrow(&self) -> bool {
        self.number.is_multiple_of(5)
    }

    /// The name of the session, where everything is joined.
    pub(crate) fn member(&self) -> Option<String> {
        let all = self.slots.borrow().iter().all(|slot| slot.is_joined);
        self.session.borrow().clone().filter(|_| all)
    }

    /// Connects again and again until told to end.
    pub(crate) async fn live(self: Rc<Self>, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed ^ u64::from(self.number) << 32);
        let mut orders = self.orders.subscribe();
        let nodes = self.stage.nodes_count();
        let mut node = self.number as usize % nodes;
        while !orders.borrow().is_over {
            // What was missed is asked for anew; only ends that must not be are told.
            if let Err(SocketError::Closed { code, .. }) = self.session(node, &mut orders).await
                && code == CODE_DISCONNECTED
            {
                let number = self.number;
                self.run
                    .broken(format!("client {number} was ended with {code}"));
            }
            self.session.replace(None);
            for slot in self.slots.borrow_mut().iter_mut() {
                slot.is_joined = false;
            }
            node = (node + random.random_range(1..nodes)) % nodes;
            sleep(Duration::from_millis(random.random_range(BACK_OFF_MS))).await;
        }
    }

    /// One connection from its begin to its end.
    async fn session(
        &self,
        node: usize,
        orders: &mut watch::Receiver<Orders>,
    ) -> Result<(), SocketError> {
        let to = self.stage.door(node, self.is_narrow());
        let form = Form::of(self.number);
        let is_narrow = self.is_narrow();
        let mut speech =
            Speech::open(to, (self.app, &self.user), form, is_narrow, &self.scratch).await?;
        speech.send(&self.connect()).await?;
        let Orders { drops, is_thin, .. } = *orders.borrow_and_update();
        let (mut events, mut leave_at) = (Vec::new(), None);
        speech.rest(&mut events).await?;
        let (mut heartbeat, mut heard) = (interval(HEARTBEAT), Instant::now());
        let (mut is_thin, mut read_at) = (is_thin, heard);
        loop {
            let mut ended = Ok(());
            tokio::select! {
                read = speech.read(&mut events), if !is_thin || read_at <= Instant::now() => {
                    heard = Instant::now();
                    read_at = heard + THIN_REST;
                    ended = read;
                }
                () = sleep_until(read_at), if is_thin && read_at > Instant::now() => {}
                _ = orders.changed() => {
                    let stalled = orders.wait_for(|orders| !orders.is_stalled).await;
                    let now = stalled.map_or(Orders::default(), |orders| *orders);
                    if now.is_over || now.drops != drops {
                        return Ok(());
                    }
                    heard = Instant::now();
                    if now.is_thin && !is_thin {
                        for _ in 0..LONG_READINGS {
                            speech.send(&self.long_reading()).await?;
                        }
                    }
                    is_thin = now.is_thin;
                }
                _ = heartbeat.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        return Err(SocketError::TimedOut);
                    }
                    speech.send(&json!({"type": "ping", "id": 2})).await?;
                }
                () = sleep_until(leave_at.unwrap_or(heard)), if leave_at.is_some() => return Ok(()),
            }
            for event in events.drain(..) {
                match self.hear(&event) {
                    Step::Go => {}
                    Step::Subscribe => {
                        for command in self.subscriptions() {
                            speech.send(&command).await?;
                        }
                    }
                    Step::LeaveIn(wait) => leave_at = Some(Instant::now() + wait),
                }
            }
            ended?;
        }
    }

    fn connect(&self) -> Value {
        let slots = self.slots.borrow();
        let own = slots.iter().filter(|slot| slot.name.starts_with('@'));
        let positions: Map<_, _> = own
            .map(|slot| (slot.name.clone(), slot.last.to_string().into()))
            .collect();
        json!({"type": "connect", "id": 1, "positions": positions})
    }

    /// Asks for as much of a topic as one reply may hold.
    fn long_reading(&self) -> Value {
        let slots = self.slots.borrow();
        let topic = slots.iter().find(|slot| !slot.name.starts_with('@'));
        let name = topic.map(|slot| slot.name.as_str()).unwrap_or_default();
        json!({"type": "history", "id": 3, "topic": name, "limit": 1_000})
    }

    fn subscriptions(&self) -> Vec<Value> {
        let slots = self.slots.borrow();
        let others = (FIRST_SUBSCRIPTION..).zip(slots.iter());
        let others = others.filter(|(_, slot)| !slot.name.starts_with('@'));
        others
            .map(|(id, slot)| {
                json!({"type": "subscribe", "id": id, "topic": slot.name,
                       "since": slot.last.to_string(), "presence": true})
            })
            .collect()
    }

    fn hear(&self, event: &Value) -> Step {
        match event["type"].as_str().unwrap_or_default() {
            "message" => self.message(event),
            "gap" => self.gap(event),
            "presence" => {
                let both = [&event["joined"], &event["left"]];
                for member in both.into_iter().filter_map(Value::as_array).flatten() {
                    self.run.shown(self.app, member);
                }
            }
            "welcome" => {
                let session = event["session"].as_str().map(str::to_owned);
                self.run
                    .began(self.app, session.as_deref().unwrap_or_default());
                self.session.replace(session);
                for slot in self.slots.borrow_mut().iter_mut() {
                    if let Some(joined) = event["topics"].get(&slot.name) {
                        self.joined(slot, joined);
                        // `welcome` does not wait for `@`, which goes on from its position as soon
                        // as it can.
                        slot.is_joined |= slot.name == "@" && joined.get("error").is_some();
                    }
                }
                return Step::Subscribe;
            }
            "ok" => {
                let id = event["id"].as_u64().unwrap_or_default();
                if let Some(index) = id.checked_sub(FIRST_SUBSCRIPTION) {
                    self.joined(&mut self.slots.borrow_mut()[index as usize], event);
                }
            }
            "drain" => {
                let wait = event["reconnect_after_ms"].as_u64().unwrap_or_default();
                return Step::LeaveIn(Duration::from_millis(wait));
            }
            // Mostly `unavailable`: the same is asked of another node.
            "error" | "unsubscribed" => return Step::LeaveIn(Duration::ZERO),
            _ => {}
        }
        Step::Go
    }

    fn joined(&self, slot: &mut Slot, answer: &Value) {
        let Some(position) = position(answer, "position") else {
            return;
        };
        let recovered = answer["recovered"] == true;
        self.run.push(Event::Joined {
            client: self.number,
            topic: slot.topic,
            since: slot.last,
            recovered,
            position,
        });
        slot.is_joined = true;
        if !recovered {
            slot.last = position;
        }
    }

    fn message(&self, event: &Value) {
        let name = event["topic"].as_str().unwrap_or_default();
        let topic = self.run.topic(self.app, name);
        let known = (topic, identity(&event["data"]), position(event, "position"));
        let (Some(topic), Some((id, begun)), Some(position)) = known else {
            let number = self.number;
            return self.run.broken(format!("client {number} got {event}"));
        };
        self.run.received(self.number, topic, id, position);
        let mut slots = self.slots.borrow_mut();
        if let Some(slot) = slots.iter_mut().find(|slot| slot.topic == topic) {
            slot.last = position;
            slot.newest_begun = slot.newest_begun.max(begun);
        }
    }

    fn gap(&self, event: &Value) {
        // Of members, not of messages.
        if event["of"] == "presence" {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.iter_mut().find(|slot| event["topic"] == slot.name) else {
            return;
        };
        let is_failover = event["reason"] == "failover";
        let from = position(event, "from");
        self.run.push(Event::Gap {
            client: self.number,
            topic: slot.topic,
            from,
            to: position(event, "to"),
            is_failover,
        });
        if let Some(from) = from.filter(|_| is_failover) {
            slot.last = slot.last.min(from);
        }
    }
}

/// The user that a client is, by its place in its app.
pub(crate) fn user(number: ClientIndex) -> String {
    format!("user-{number}")
}
