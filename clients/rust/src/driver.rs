//! The task behind a client: it alone reads and writes the connection, and deals what comes to the
//! subscriptions.
//!
//! In: [`Request`]s of the client's copies; events of a [`ResumingConnection`]. Out: answers, and
//! items in the queues of subscriptions. A queue that is full holds up nobody: its topic is left,
//! or for what cannot be left (`@…`) passed over, and later resumed behind the last item that found
//! room. Owner: nobody; it ends with the last [`Request`] sender, and tells why in [`Status`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fanfare_protocol::client::{Heard, decode_event};
use fanfare_protocol::command::{Command, Subscribe};
use fanfare_protocol::event::Event as Said;
use fanfare_protocol::form::Encoding;
use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::client_error::ClientError;
use crate::error::ConnectionError;
use crate::resuming::{CommandError, Event, ResumingConnection, place_after};
use crate::status::Status;
use crate::subscription::{Ended, Gap, ITEMS_MAX, Item, ROOM_TO_RESUME, Shared};

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
    /// The end.
    Close { done: oneshot::Sender<()> },
}

/// The reader's side of a subscription.
pub(crate) struct Joined {
    pub(crate) topic: String,
    pub(crate) queue: mpsc::Receiver<Item>,
    pub(crate) shared: Arc<Shared>,
}

/// The task's side of it.
struct Topic {
    /// As it was joined.
    options: Subscribe,
    queue: mpsc::Sender<Item>,
    shared: Arc<Shared>,
    /// Behind the last item that found room.
    position: Option<String>,
    overflows: u64,
}

impl Topic {
    fn is_held(&self) -> bool {
        self.shared.is_held.load(Ordering::SeqCst)
    }

    fn hold(&self, is_held: bool) {
        self.shared.is_held.store(is_held, Ordering::SeqCst);
    }
}

/// See the module.
pub(crate) struct Driver {
    connection: ResumingConnection,
    requests: mpsc::Receiver<Request>,
    wake: Arc<Notify>,
    status: watch::Sender<Status>,
    topics: BTreeMap<String, Topic>,
    inbox: Option<Inbox>,
}

/// The own inbox, which begins with the session and not with its subscription.
struct Inbox {
    topic: String,
    /// Where its next subscription is to begin.
    position: String,
    /// Messages came that nobody took.
    is_missed: bool,
}

impl Driver {
    /// Takes over a connection that is open.
    pub(crate) fn new(
        connection: ResumingConnection,
        requests: mpsc::Receiver<Request>,
        wake: Arc<Notify>,
    ) -> (Self, watch::Receiver<Status>) {
        let (status, told) = watch::channel(connected(connection.welcome()));
        let inbox = connection.welcome()["inbox"]["topic"].as_str();
        let inbox = inbox.map(|topic| Inbox {
            topic: topic.to_owned(),
            position: connection.position(topic).unwrap_or("0-0").to_owned(),
            is_missed: false,
        });
        let driver = Self {
            connection,
            requests,
            wake,
            status,
            topics: BTreeMap::new(),
            inbox,
        };
        (driver, told)
    }

    /// Works until the end.
    pub(crate) async fn run(mut self) {
        let ended = loop {
            let worked = tokio::select! {
                request = self.requests.recv() => match request {
                    Some(Request::Command { command, answer }) => self.command(command, answer).await,
                    Some(Request::Join { what, answer }) => self.answer_join(what, answer).await,
                    Some(Request::Close { done }) => break (Ended::Closed, Some(done)),
                    None => break (Ended::Closed, None),
                },
                () = self.wake.notified() => self.look_over().await,
                event = self.connection.next_event() => match event {
                    Ok(event) => {
                        let text = self.connection.last_text().map(str::to_owned);
                        self.deliver(event, text).await
                    }
                    Err(cause) => Err(cause),
                },
            };
            if let Err(cause) = worked {
                break (Ended::SentAway(Arc::new(cause)), None);
            }
        };
        let (ended, done) = ended;
        for topic in self.topics.into_values() {
            // Nobody else sets it while the topic is in the map.
            let _ = topic.shared.ended.set(ended.clone());
        }
        self.status.send_replace(Status::Ended(ended));
        self.connection.close().await;
        // The caller of `close` may have gone.
        let _ = done.map(|done| done.send(()));
    }

    /// Sends a command. The outer error is the client's end.
    async fn ask(
        &mut self,
        command: &Command,
    ) -> Result<Result<Value, CommandError>, ConnectionError> {
        let command = serde_json::to_value(command)
            .expect("a command is a map of text, numbers and checked data");
        match self.connection.command(command).await {
            Err(CommandError::Ended(cause)) => Err(cause),
            result => Ok(result),
        }
    }

    async fn command(
        &mut self,
        command: Command,
        answer: oneshot::Sender<Result<String, ClientError>>,
    ) -> Result<(), ConnectionError> {
        let result = self.ask(&command).await?;
        // Whoever asked may have gone.
        let _ = answer.send(result.map(|ok| ok.to_string()).map_err(Into::into));
        Ok(())
    }

    async fn answer_join(
        &mut self,
        what: Option<Subscribe>,
        answer: oneshot::Sender<Result<Joined, ClientError>>,
    ) -> Result<(), ConnectionError> {
        // A subscription of the same topic may just have been dropped.
        self.look_over().await?;
        let joined = self.join(what).await?;
        // One that nobody takes is dropped with its queue, and left at the next look.
        if let Err(_gone) = answer.send(joined) {
            self.wake.notify_one();
        }
        Ok(())
    }

    async fn join(
        &mut self,
        what: Option<Subscribe>,
    ) -> Result<Result<Joined, ClientError>, ConnectionError> {
        let inbox = self.inbox.as_ref().map(|inbox| inbox.topic.as_str());
        let options = match (what, inbox) {
            (Some(what), _) => what,
            (None, Some(inbox)) => Subscribe::from(inbox),
            (None, None) => return Ok(Err(ClientError::NoInbox)),
        };
        if self.topics.contains_key(&options.topic) {
            return Ok(Err(already_subscribed().into()));
        }
        let (queue, taken) = mpsc::channel(ITEMS_MAX);
        let joined = Joined {
            topic: options.topic.clone(),
            queue: taken,
            shared: Arc::default(),
        };
        let mut topic = Topic {
            queue,
            shared: Arc::clone(&joined.shared),
            position: options.since.map(|since| since.to_string()),
            overflows: 0,
            options,
        };
        if topic.options.topic == "@" || self.is_inbox(&topic.options.topic) {
            self.attach(&mut topic)?;
        } else if let Err(refused) = self.subscribe(&mut topic).await? {
            return Ok(Err(refused.into()));
        }
        self.topics.insert(joined.topic.clone(), topic);
        Ok(Ok(joined))
    }

    fn is_inbox(&self, topic: &str) -> bool {
        self.inbox
            .as_ref()
            .is_some_and(|inbox| inbox.topic == topic)
    }

    /// Takes a topic that the session has by itself.
    fn attach(&mut self, topic: &mut Topic) -> Result<(), ConnectionError> {
        let name = &topic.options.topic;
        let inbox = self.inbox.as_mut().filter(|inbox| inbox.topic == *name);
        let missed = inbox
            .and_then(|inbox| std::mem::take(&mut inbox.is_missed).then(|| inbox.position.clone()));
        if let Some(position) = topic.position.clone().or(missed) {
            self.connection.go_back(name, &position)?;
            topic.position = Some(position);
        } else {
            topic.position = self.connection.position(name).map(str::to_owned);
        }
        Ok(())
    }

    /// Joins a topic at its position, as often as the connection breaks meanwhile. What is missing
    /// is the first item.
    async fn subscribe(
        &mut self,
        topic: &mut Topic,
    ) -> Result<Result<(), CommandError>, ConnectionError> {
        let mut options = topic.options.clone();
        if let Some(position) = &topic.position {
            options.since = position.parse().ok();
            options.rewind = None;
        }
        let command = Command::Subscribe(options);
        let answer = loop {
            match self.ask(&command).await? {
                Err(CommandError::Lost { .. }) => {}
                Err(refused) => return Ok(Err(refused)),
                Ok(answer) => break answer,
            }
        };
        let position = answer["position"].as_str().map(str::to_owned);
        if answer["recovered"] == false {
            let parsed = |position: &Option<String>| position.as_ref()?.parse().ok();
            let gap = Gap {
                of: None,
                from: parsed(&topic.position),
                to: parsed(&position),
                reason: answer["gap_reason"]
                    .as_str()
                    .unwrap_or("retention")
                    .to_owned(),
                dropped: None,
            };
            // There is room: the queue is new, or half empty. Without a reader nobody is to know.
            let _ = topic.queue.try_send(Item::Gap(gap));
        }
        topic.position = position;
        Ok(Ok(()))
    }

    /// Leaves what was dropped, and resumes what has room again.
    async fn look_over(&mut self) -> Result<(), ConnectionError> {
        let dropped = self.names(|topic| topic.queue.is_closed());
        for name in dropped {
            let Some(topic) = self.topics.remove(&name) else {
                continue;
            };
            if let Some(inbox) = self.inbox.as_mut().filter(|inbox| inbox.topic == name) {
                inbox.is_missed = topic.is_held();
                inbox.position = topic.position.unwrap_or_else(|| inbox.position.clone());
            }
            if !topic.shared.is_held.load(Ordering::SeqCst) {
                self.leave(&name).await?;
            }
        }
        let ready = |topic: &Topic| topic.is_held() && topic.queue.capacity() >= ROOM_TO_RESUME;
        for name in self.names(ready) {
            self.resume(&name).await?;
        }
        Ok(())
    }

    fn names(&self, is_meant: impl Fn(&Topic) -> bool) -> Vec<String> {
        let topics = self.topics.iter();
        let meant = topics.filter(|(_, topic)| is_meant(topic));
        meant.map(|(name, _)| name.clone()).collect()
    }

    async fn leave(&mut self, name: &str) -> Result<(), ConnectionError> {
        if name.starts_with('@') {
            return Ok(());
        }
        let topic = name.to_owned();
        let left = self.ask(&Command::Unsubscribe { topic }).await?;
        if left.is_err() {
            // The next session does not ask for it.
            self.connection.forget(name);
        }
        Ok(())
    }

    /// Goes on with a topic that was held.
    async fn resume(&mut self, name: &str) -> Result<(), ConnectionError> {
        // What came before it was left is passed over while it is held, and comes again.
        while let Some((event, text)) = self.connection.take_waiting() {
            self.deliver(event, text).await?;
        }
        let Some(mut topic) = self.topics.remove(name) else {
            return Ok(());
        };
        topic.overflows += 1;
        let times = topic.overflows;
        // There is room, or no reader.
        let _ = topic.queue.try_send(Item::Overflowed { times });
        if name.starts_with('@') {
            if let Some(position) = &topic.position {
                self.connection.go_back(name, position)?;
            }
        } else if let Err(refused) = self.subscribe(&mut topic).await? {
            let _ = topic.shared.ended.set(unsubscribed(&refused));
            return Ok(());
        }
        topic.hold(false);
        self.topics.insert(name.to_owned(), topic);
        Ok(())
    }

    /// Deals an event.
    async fn deliver(&mut self, event: Event, text: Option<String>) -> Result<(), ConnectionError> {
        let event = match event {
            Event::Server(event) => event,
            Event::Disconnected { cause, again_after } => {
                let cause = cause.to_string();
                self.status
                    .send_replace(Status::Away { cause, again_after });
                return Ok(());
            }
            Event::Reconnected { welcome } => {
                self.status.send_replace(connected(&welcome));
                return Ok(());
            }
        };
        let name = event["topic"].as_str().unwrap_or_default();
        let Some(topic) = self.topics.get_mut(name) else {
            if event["type"] == "message"
                && let Some(inbox) = self.inbox.as_mut().filter(|inbox| inbox.topic == name)
            {
                inbox.is_missed = true;
            }
            return Ok(());
        };
        if event["type"] == "unsubscribed" {
            let field = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            let (code, message) = (field("code"), field("message"));
            let _ = topic
                .shared
                .ended
                .set(Ended::Unsubscribed { code, message });
            self.topics.remove(name);
            return Ok(());
        }
        if topic.is_held() {
            return Ok(());
        }
        let Some(item) = item(&event, text.as_deref(), topic) else {
            return Ok(());
        };
        match topic.queue.try_send(item) {
            Ok(()) => {
                if let Some(position) = place_after(&event) {
                    topic.position = Some(position.to_owned());
                }
                Ok(())
            }
            // Its reader has gone, and has said so.
            Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => self.hold(name).await,
        }
    }

    async fn hold(&mut self, name: &str) -> Result<(), ConnectionError> {
        if let Some(topic) = self.topics.get(name) {
            topic.hold(true);
        }
        self.leave(name).await?;
        // The reader may have taken all before it could see that it must wake this task.
        self.wake.notify_one();
        Ok(())
    }
}

fn connected(welcome: &Value) -> Status {
    let node = welcome["node"].as_str().unwrap_or_default().to_owned();
    Status::Connected { node }
}

fn already_subscribed() -> CommandError {
    CommandError::Refused {
        code: "already_subscribed".to_owned(),
        message: "this client has a subscription of the topic; drop that one first".to_owned(),
        retry: false,
        retry_after: None,
    }
}

fn unsubscribed(refused: &CommandError) -> Ended {
    let (code, message) = match refused {
        CommandError::Refused { code, message, .. } => (code.clone(), message.clone()),
        other => ("internal".to_owned(), other.to_string()),
    };
    Ended::Unsubscribed { code, message }
}

/// An event as an item; `None` where it is not for subscriptions. A message that cannot be read is
/// a gap.
fn item(event: &Value, text: Option<&str>, topic: &Topic) -> Option<Item> {
    let kind = event["type"].as_str()?;
    if kind == "gap" {
        return serde_json::from_value(event.clone()).ok().map(Item::Gap);
    }
    if kind != "message" && kind != "presence" {
        return None;
    }
    match decode_event(Encoding::Json, text?.as_bytes()) {
        Ok(Heard::Event(Said::Message(message))) => Some(Item::Message(message)),
        Ok(Heard::Event(Said::Presence(presence))) => Some(Item::Presence(presence)),
        _ => {
            let position = |value: Option<&str>| value?.parse().ok();
            Some(Item::Gap(Gap {
                of: (kind == "presence").then(|| kind.to_owned()),
                from: position(topic.position.as_deref()),
                to: position(event["position"].as_str()),
                reason: "unreadable".to_owned(),
                dropped: Some(1),
            }))
        }
    }
}
