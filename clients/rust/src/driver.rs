//! The task behind a client: it alone has the connection, and deals what comes to the subscriptions.
//!
//! In: [`Request`]s of the client's copies; what happens to a [`ResumingConnection`]. Out: answers,
//! and items in the queues of subscriptions. Commands are sent at once and their answers found by
//! id, so that none of them holds up what comes; what happens is dealt in its order, so that a
//! subscription gets nothing of the stay before it. A queue that is full holds up nobody: its topic
//! is left, or for what cannot be left (`@…`) passed over, and later resumed behind the last item
//! that found room. Owner: nobody; it ends with the last copy, and tells why in [`Status`]. Bounds:
//! those of [`Calls`] and of each queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::command::{Command, Subscribe};
use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::client_error::ClientError;
use crate::frame::Frame;
use crate::resuming::{CommandError, Happening, Memory, ResumingConnection, options_of};
use crate::status::Status;
use crate::subscription::{Ended, Item, Queued, Shared};

mod calls;
mod inbox;
mod joining;
mod topic;

use calls::{Asker, Call, Calls};
use inbox::Inbox;
use topic::{Queueing, Stay, Topic};

/// How often calls that wait for the connection are looked over.
const SWEEP: Duration = Duration::from_secs(1);

/// What a client asks of its task.
pub(crate) enum Request {
    /// A command, to be answered by the text of its `ok`.
    Command {
        command: Command,
        answer: oneshot::Sender<Result<String, ClientError>>,
    },
    /// A subscription; of the own inbox where no topic is named.
    Join {
        what: Option<Subscribe>,
        answer: oneshot::Sender<Result<Joined, ClientError>>,
    },
}

/// The reader's side of a subscription.
pub(crate) struct Joined {
    pub(crate) topic: String,
    pub(crate) queue: mpsc::Receiver<Queued>,
    pub(crate) shared: Arc<Shared>,
}

/// The ends of a client that its task holds.
pub(crate) struct Ends {
    pub(crate) requests: mpsc::Receiver<Request>,
    /// Ends with the last copy of the client.
    pub(crate) closing: mpsc::Receiver<oneshot::Sender<()>>,
    pub(crate) wake: Arc<Notify>,
}

/// See the module.
pub(crate) struct Driver {
    connection: ResumingConnection,
    ends: Ends,
    status: watch::Sender<Status>,
    repeat_within: Duration,
    /// Where topics begin that are subscribed to without another beginning.
    positions: BTreeMap<String, String>,
    topics: BTreeMap<String, Topic>,
    joining: BTreeMap<String, (Joined, oneshot::Sender<Result<Joined, ClientError>>)>,
    /// Topics whose `unsubscribe` is on its way, and who wants to join them after it.
    leaving: BTreeMap<String, Vec<Call>>,
    calls: Calls,
    /// Calls whose answers were lost in the break that is being told.
    repeats: Vec<Call>,
    inbox: Option<Inbox>,
    /// When a topic that waits is to be looked at, whatever happens before.
    look_at: Option<Instant>,
}

impl Driver {
    /// Takes over a connection that is open.
    pub(crate) fn new(
        connection: ResumingConnection,
        ends: Ends,
        positions: BTreeMap<String, String>,
        repeat_within: Duration,
    ) -> (Self, watch::Receiver<Status>) {
        let (status, told) = watch::channel(connected(connection.welcome()));
        let inbox = connection.welcome()["inbox"]["topic"].as_str();
        let inbox = inbox.map(|topic| Inbox::new(topic, connection.position(topic)));
        let driver = Self {
            connection,
            ends,
            status,
            repeat_within,
            positions,
            topics: BTreeMap::new(),
            joining: BTreeMap::new(),
            leaving: BTreeMap::new(),
            calls: Calls::default(),
            repeats: Vec::new(),
            inbox,
            look_at: None,
        };
        (driver, told)
    }

    /// Works until the end.
    pub(crate) async fn run(mut self) {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (ended, done) = loop {
            self.send_what_waits();
            tokio::select! {
                happening = self.connection.happening() => match happening {
                    Ok(happening) => self.deal(happening),
                    Err(cause) => break (Ended::SentAway(Arc::new(cause)), None),
                },
                Some(request) = self.ends.requests.recv(), if self.calls.has_room() => {
                    self.take(request);
                }
                done = self.ends.closing.recv() => break (Ended::Closed, done),
                () = self.ends.wake.notified() => self.look_over(),
                () = at(self.look_at) => {
                    self.look_at = None;
                    self.look_over();
                }
                _ = sweep.tick(), if !self.connection.is_open() => {
                    self.calls.sweep(self.repeat_within);
                }
            }
        };
        for topic in self.topics.into_values() {
            // Nobody else sets it while the topic is in the map.
            let _ = topic.shared.ended.set(ended.clone());
        }
        self.status.send_replace(Status::Ended(ended));
        self.connection.close().await;
        // The caller of `close` may have gone.
        let _ = done.map(|done| done.send(()));
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Command { command, answer } => {
                self.calls.push(Call::new(command, Asker::Caller(answer)));
            }
            Request::Join { what, answer } => {
                // A subscription of the same topic may just have been dropped.
                self.look_over();
                if let Err((error, answer)) = self.begin_join(what, answer) {
                    // Whoever asked may have gone.
                    let _ = answer.send(Err(error));
                }
            }
        }
    }

    fn send_what_waits(&mut self) {
        while self.connection.is_open() {
            let Some(call) = self.calls.pop() else {
                return;
            };
            let user = self.connection.welcome()["user"].as_str();
            if call.is_given_up() {
                continue;
            }
            if call.is_of(user) {
                self.send(call);
            } else if let Asker::Caller(answer) = call.asker {
                calls::tell(answer, Err(calls::too_late()));
            }
        }
    }

    fn send(&mut self, call: Call) {
        let id = self.connection.next_id();
        let text = call.text(id).and_then(|text| {
            self.connection.fits(&text)?;
            Ok(text)
        });
        let text = match text {
            Ok(text) => text,
            Err(error) => return self.not_sent(call, error),
        };
        let memory = match &call.asker {
            Asker::Join(options) => Memory::Join(options.topic.clone(), options_of(options)),
            Asker::Leave(topic) => Memory::Leave(topic.clone()),
            Asker::Caller(_) | Asker::Page(_) => Memory::Nothing,
        };
        self.connection.send(id, text, memory);
        let user = self.connection.welcome()["user"].as_str();
        self.calls.sent(id, call, user);
    }

    fn not_sent(&mut self, call: Call, error: ClientError) {
        match call.asker {
            Asker::Caller(answer) => {
                // Whoever asked may have gone.
                let _ = answer.send(Err(error));
            }
            Asker::Join(options) => self.not_joined(&options.topic, error),
            Asker::Leave(topic) => self.left(&topic),
            Asker::Page(topic) => self.page_refused(&topic, None),
        }
    }

    fn deal(&mut self, happening: Happening) {
        match happening {
            Happening::Said(frame) => self.said(frame),
            Happening::Made(event) => self.made(&event),
            Happening::Resumed(topic) => self.resumed(&topic),
            Happening::Answered { id, result } => self.answered(id, result),
            Happening::Away { cause, again_after } => {
                self.calls.repeat(std::mem::take(&mut self.repeats));
                let cause = cause.to_string();
                self.status
                    .send_replace(Status::Away { cause, again_after });
            }
            Happening::Back { welcome } => {
                self.status.send_replace(connected(&welcome));
                self.look_over();
            }
        }
    }

    fn answered(&mut self, id: u64, result: Result<Frame, CommandError>) {
        let Some(call) = self.calls.answered(id) else {
            return;
        };
        if let Err(error) = &result
            && call.is_to_be_repeated(error)
        {
            return self.repeats.push(call);
        }
        match (call.asker, result) {
            (Asker::Caller(answer), result) => calls::tell(answer, result),
            (Asker::Join(options), Ok(frame)) => self.joined(&options.topic, &frame),
            (Asker::Join(options), Err(error)) => self.not_joined(&options.topic, error.into()),
            // Where it was not left in order, the next session does not ask for it.
            (Asker::Leave(topic), _) => self.left(&topic),
            (Asker::Page(topic), Ok(frame)) => self.page(&topic, &frame),
            (Asker::Page(topic), Err(error)) => self.page_refused(&topic, Some(&error)),
        }
    }

    /// Leaves what was dropped, and resumes what has room again.
    fn look_over(&mut self) {
        let is_dropped = |topic: &Topic| topic.queue.is_closed() && topic.stay != Stay::Joining;
        for name in self.names(is_dropped) {
            let Some(topic) = self.topics.remove(&name) else {
                continue;
            };
            if self.is_by_itself(&name) {
                self.detach(&name, &topic);
            } else if !matches!(topic.stay, Stay::Held { .. }) {
                self.leave(&name);
            }
        }
        // Otherwise they are looked at when the connection is back.
        if self.connection.is_open() {
            for name in self.names(Topic::is_ready) {
                self.resume(&name);
            }
        }
    }

    fn names(&self, is_meant: impl Fn(&Topic) -> bool) -> Vec<String> {
        let topics = self.topics.iter();
        let meant = topics.filter(|(_, topic)| is_meant(topic));
        meant.map(|(name, _)| name.clone()).collect()
    }

    /// Leaves a topic; returns whether there is an answer to wait for.
    fn leave(&mut self, name: &str) -> bool {
        self.connection.forget(name);
        if !self.connection.is_open() {
            return false;
        }
        self.leaving.entry(name.to_owned()).or_default();
        let topic = name.to_owned();
        let command = Command::Unsubscribe { topic };
        self.send(Call::new(command, Asker::Leave(name.to_owned())));
        true
    }

    fn left(&mut self, name: &str) {
        for call in self.leaving.remove(name).unwrap_or_default() {
            self.calls.push(call);
        }
        if let Some(topic) = self.topics.get_mut(name)
            && topic.stay == (Stay::Held { is_left: false })
        {
            topic.enter(Stay::Held { is_left: true });
            self.ends.wake.notify_one();
        }
    }

    fn hold(&mut self, name: &str) {
        let is_left = self.is_by_itself(name) || !self.leave(name);
        if let Some(topic) = self.topics.get_mut(name) {
            topic.enter(Stay::Held { is_left });
        }
        // The reader may have taken all before it could see that it must wake this task.
        self.ends.wake.notify_one();
    }

    /// Goes on with a topic that was held.
    fn resume(&mut self, name: &str) {
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        topic.overflows += 1;
        let times = topic.overflows;
        // There is room, or no reader.
        topic.queue(Item::Overflowed { times }, 0);
        if name.starts_with('@') {
            return self.read_on(name);
        }
        topic.enter(Stay::Rejoining);
        let position = topic.position.clone();
        self.connection
            .rejoin(&topic.options, position, topic.is_unplaced);
    }

    /// A topic goes on, after a break or a hold; what was missed has been told.
    fn resumed(&mut self, name: &str) {
        if self.is_by_itself(name) {
            return;
        }
        let position = self.connection.position(name);
        if let Some(topic) = self.topics.get_mut(name)
            && matches!(topic.stay, Stay::Live | Stay::Rejoining)
        {
            topic.go_on(position);
        }
    }

    fn said(&mut self, frame: Frame) {
        let name = frame.head.topic.clone().unwrap_or_default();
        if frame.head.kind == "unsubscribed" {
            return self.made(&frame.says());
        }
        let Some(topic) = self.topics.get_mut(&name) else {
            let inbox = self.inbox.as_mut().filter(|inbox| inbox.topic == name);
            if let Some(inbox) = inbox
                && frame.head.kind == "message"
            {
                inbox.passed_over += 1;
            }
            return;
        };
        match topic.stay {
            Stay::Live => {
                if topic.deal(&frame) == Queueing::Full {
                    topic.pass_over(&frame);
                    self.hold(&name);
                }
            }
            Stay::Reading => topic.keep(frame),
            Stay::Held { .. } | Stay::Rejoining => topic.pass_over(&frame),
            // Of a stay before.
            Stay::Joining => {}
        }
    }

    /// Takes an event that the client itself has made, or that ends a subscription.
    fn made(&mut self, event: &Value) {
        let name = event["topic"].as_str().unwrap_or_default();
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        if event["type"] == "unsubscribed" {
            if matches!(topic.stay, Stay::Joining | Stay::Held { .. }) {
                return;
            }
            let field = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            let (code, message) = (field("code"), field("message"));
            // Nobody else sets it while the topic is in the map.
            let _ = topic
                .shared
                .ended
                .set(Ended::Unsubscribed { code, message });
            self.topics.remove(name);
        } else if let Some(gap) = topic::gap_of(event)
            && matches!(topic.stay, Stay::Live | Stay::Rejoining)
            && topic.tell_gap(gap) == Queueing::Full
        {
            self.hold(name);
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn connected(welcome: &Value) -> Status {
    let node = welcome["node"].as_str().unwrap_or_default().to_owned();
    Status::Connected { node }
}
