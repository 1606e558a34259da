//! Publishes over a WebSocket as clients do: open loop, many commands in flight, to topics.
//!
//! In: a rate. Out: publications, and how each ended. One task makes publications by the clock, the
//! other sends them over one session and takes the answers. What was in flight when a session was
//! lost is sent again over the next one, on another node, with the same idempotency key and in the
//! old order. Bound: [`TRIES_FOR`] for each publication.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use fanfare_bench::socket::{Scratch, SocketError};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::app::App;
use super::backend::{Attempt, BETWEEN_TRIES, PUBLISHERS_APART, TRIES_FOR};
use super::history::{Event, Id, TopicIndex};
use super::run::Run;
use super::speech::{Form, Speech, data};
use super::stage::Stage;

/// How long a session may leave a publication unanswered.
const ANSWER_PATIENCE: Duration = Duration::from_secs(4);
/// The `id` of `connect`; publications have their own number, which begins above it.
const CONNECT: u64 = 0;

/// See the module.
pub(crate) struct Speaker {
    pub(crate) run: Rc<Run>,
    pub(crate) stage: Rc<Stage>,
    pub(crate) scratch: Scratch,
    pub(crate) app: App,
    pub(crate) publisher: u32,
    pub(crate) every: Duration,
    pub(crate) topics: Vec<TopicIndex>,
}

/// A publication that has not ended.
#[derive(Debug)]
struct Open {
    topic: TopicIndex,
    begun: Duration,
    attempts: u32,
    /// When it was last sent over the present session, and not yet answered.
    sent: Option<Duration>,
    /// Not before this time again.
    not_before: Duration,
    is_doubtful: bool,
}

/// Publications by number, which is their order.
type Waiting = BTreeMap<u32, Open>;

impl Speaker {
    /// Publishes until the run is over and everything has ended.
    pub(crate) async fn publish(self, seed: u64) {
        let seed = seed ^ u64::from(self.publisher);
        let mut random = StdRng::seed_from_u64(seed);
        let (made, mut fresh) = mpsc::unbounded_channel();
        let this = Rc::new(self);
        tokio::task::spawn_local(Rc::clone(&this).make(seed, made));
        let mut waiting = Waiting::new();
        let nodes = this.stage.nodes_count();
        let mut node = this.publisher as usize % nodes;
        for connection in 0_u32.. {
            let lane = this.publisher << 16 | connection;
            let session = this.session(node, lane, &mut fresh, &mut waiting);
            if session.await.is_ok() {
                return;
            }
            for open in waiting.values_mut() {
                open.is_doubtful |= open.sent.take().is_some();
            }
            while let Ok((number, open)) = fresh.try_recv() {
                waiting.insert(number, open);
            }
            this.give_up(&mut waiting);
            node = (node + random.random_range(1..nodes)) % nodes;
            sleep(BETWEEN_TRIES).await;
        }
    }

    /// Makes publications by the clock.
    async fn make(self: Rc<Self>, seed: u64, made: mpsc::UnboundedSender<(u32, Open)>) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for number in 1_u32.. {
            ticks.tick().await;
            if self.run.is_over.get() {
                return;
            }
            let topic = *self.topics.choose(&mut random).expect("there are topics");
            let open = &self.run.open_publications;
            open.set(open.get() + 1);
            let id = self.id(number);
            self.run.push(Event::Begun { id, topic });
            let publication = Open {
                topic,
                begun: self.run.now(),
                attempts: 0,
                sent: None,
                not_before: Duration::ZERO,
                is_doubtful: false,
            };
            if made.send((number, publication)).is_err() {
                return;
            }
        }
    }

    fn id(&self, number: u32) -> Id {
        Id {
            publisher: self.publisher,
            number,
        }
    }

    /// One session. `Ok` when there is nothing more to do.
    async fn session(
        &self,
        node: usize,
        lane: u32,
        fresh: &mut mpsc::UnboundedReceiver<(u32, Open)>,
        waiting: &mut Waiting,
    ) -> Result<(), SocketError> {
        let form = Form::of(self.publisher);
        let user = format!("publisher-{}", self.publisher % PUBLISHERS_APART);
        let to = self.stage.door(node, false);
        let mut speech = Speech::open(to, (self.app, &user), form, false, &self.scratch).await?;
        speech
            .send(&json!({"type": "connect", "id": CONNECT}))
            .await?;
        let (mut events, mut is_welcome) = (Vec::new(), false);
        let mut look = interval(BETWEEN_TRIES);
        let begun = self.run.now();
        speech.rest(&mut events).await?;
        loop {
            let mut ended = Ok(());
            tokio::select! {
                read = speech.read(&mut events) => ended = read,
                Some((number, open)) = fresh.recv() => {
                    waiting.insert(number, open);
                }
                _ = look.tick() => {}
            }
            for event in events.drain(..) {
                is_welcome |= event["type"] == "welcome";
                if event["type"] == "drain" || event["type"] == "unsubscribed" {
                    ended = Err(SocketError::CutOff);
                }
                self.hear(&event, lane, waiting);
            }
            self.give_up(waiting);
            ended?;
            let now = self.run.now();
            let oldest = waiting.values().filter_map(|open| open.sent).min();
            let since = if is_welcome { oldest } else { Some(begun) };
            if since.is_some_and(|since| now > since + ANSWER_PATIENCE) {
                return Err(SocketError::TimedOut);
            }
            if is_welcome {
                self.send(&speech, waiting).await?;
            }
            if self.run.is_over.get() && fresh.is_empty() && waiting.is_empty() {
                return Ok(());
            }
        }
    }

    /// Sends what is to be sent, in order.
    async fn send(&self, speech: &Speech, waiting: &mut Waiting) -> Result<(), SocketError> {
        let now = self.run.now();
        for (number, open) in waiting.iter_mut() {
            if open.sent.is_some() || open.not_before > now {
                continue;
            }
            open.sent = Some(now);
            open.attempts += 1;
            let command = json!({
                "type": "publish", "id": number, "topic": self.run.name(open.topic),
                "data": data(self.id(*number), open.begun, self.run.data_bytes.get()),
                "idempotency_key": number.to_string(),
            });
            speech.send(&command).await?;
        }
        Ok(())
    }

    fn hear(&self, event: &Value, lane: u32, waiting: &mut Waiting) {
        let number = event["id"].as_u64().unwrap_or(CONNECT);
        let number = u32::try_from(number).unwrap_or_default();
        let Some(open) = waiting.get_mut(&number) else {
            return;
        };
        match Attempt::of(event) {
            attempt @ Attempt::Ok(_) => {
                let lane = Some(lane).filter(|_| open.attempts == 1);
                let topic = open.topic;
                waiting.remove(&number);
                self.end(number, topic, attempt, lane);
                return;
            }
            Attempt::Doubtful => open.is_doubtful = true,
            Attempt::Not => {}
        }
        open.sent = None;
        open.not_before = self.run.now() + BETWEEN_TRIES;
    }

    /// Ends what was tried for long enough.
    fn give_up(&self, waiting: &mut Waiting) {
        let now = self.run.now();
        waiting.retain(|number, open| {
            let goes_on = now < open.begun + TRIES_FOR;
            if !goes_on {
                let is_doubtful = open.is_doubtful || open.sent.is_some();
                let attempt = if is_doubtful {
                    Attempt::Doubtful
                } else {
                    Attempt::Not
                };
                self.end(*number, open.topic, attempt, None);
            }
            goes_on
        });
    }

    fn end(&self, number: u32, topic: TopicIndex, attempt: Attempt, lane: Option<u32>) {
        self.run.push(Event::Ended {
            id: self.id(number),
            topic,
            outcome: attempt.outcome(),
            lane,
        });
        let open = &self.run.open_publications;
        open.set(open.get() - 1);
    }
}
