//! How a subscription begins: its place among the others, its `subscribe`, and what comes of it.
//!
//! In: what a caller wants, the answer to `subscribe`. Out: the reader's side of the subscription.
//! Part of the client's task.

use std::sync::Arc;

use fanfare_protocol::command::{Command, Subscribe};
use tokio::sync::{mpsc, oneshot};

use super::calls::{Asker, Call};
use super::topic::{Stay, Topic};
use super::{ClientError, CommandError, Driver, Frame, Joined};
use crate::subscription::{Gap, ITEMS_MAX};

impl Driver {
    /// Begins a subscription; gives the answer back where it cannot be.
    pub(super) fn begin_join(
        &mut self,
        what: Option<Subscribe>,
        answer: oneshot::Sender<Result<Joined, ClientError>>,
    ) -> Result<(), (ClientError, oneshot::Sender<Result<Joined, ClientError>>)> {
        let inbox = self.inbox.as_ref().map(|inbox| inbox.topic.as_str());
        let mut options = match (what, inbox) {
            (Some(what), _) => what,
            (None, Some(inbox)) => Subscribe::from(inbox),
            (None, None) => return Err((ClientError::NoInbox, answer)),
        };
        if self.topics.contains_key(&options.topic) {
            return Err((already_subscribed().into(), answer));
        }
        if let Some(position) = self.positions.remove(&options.topic)
            && options.since.is_none()
            && options.rewind.is_none()
        {
            options.since = position.parse().ok();
        }
        let (queue, taken) = mpsc::channel(ITEMS_MAX);
        let name = options.topic.clone();
        let joined = Joined {
            topic: name.clone(),
            queue: taken,
            shared: Arc::default(),
        };
        let topic = Topic::new(options.clone(), queue, Arc::clone(&joined.shared));
        self.topics.insert(name.clone(), topic);
        if name == "@" || inbox == Some(name.as_str()) {
            self.attach(&name);
            self.hand_over(joined, answer);
            return Ok(());
        }
        self.joining.insert(name.clone(), (joined, answer));
        let call = Call::new(Command::Subscribe(options.clone()), Asker::Join(options));
        match self.leaving.get_mut(&name) {
            Some(after) => after.push(call),
            None => self.calls.push(call),
        }
        Ok(())
    }

    fn hand_over(&self, joined: Joined, answer: oneshot::Sender<Result<Joined, ClientError>>) {
        // One that nobody takes is dropped with its queue, and left at the next look.
        if let Err(_gone) = answer.send(Ok(joined)) {
            self.ends.wake.notify_one();
        }
    }

    pub(super) fn joined(&mut self, name: &str, frame: &Frame) {
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        let answer = frame.says();
        let parsed = |position: Option<&str>| position?.parse().ok();
        let position = frame.head.position.as_deref();
        topic.enter(Stay::Live);
        if answer["recovered"] == false {
            let reason = answer["gap_reason"].as_str().unwrap_or("retention");
            // There is room: the queue is new.
            topic.tell_gap(Gap {
                of: None,
                from: parsed(topic.position.as_deref()),
                to: parsed(position),
                reason: reason.to_owned(),
                dropped: None,
            });
        }
        topic.position = position.map(str::to_owned);
        if let Some((joined, answer)) = self.joining.remove(name) {
            self.hand_over(joined, answer);
        }
    }

    pub(super) fn not_joined(&mut self, name: &str, error: ClientError) {
        self.topics.remove(name);
        if let Some((_, answer)) = self.joining.remove(name) {
            // Whoever asked may have gone.
            let _ = answer.send(Err(error));
        }
    }
}

fn already_subscribed() -> CommandError {
    CommandError::Refused {
        code: "already_subscribed".to_owned(),
        message: "this client has a subscription of the topic; drop that one first".to_owned(),
        retry: false,
        retry_after: None,
    }
}
