//! How a resuming connection comes to a session, takes what it says, and loses it.
//!
//! In: tries to connect, frames, breaks. Out: [`Happening`]s. Part of [`super::ResumingConnection`].

use super::*;

impl ResumingConnection {
    /// Waits for its time and tries to connect once.
    ///
    /// # Cancel safety
    /// Safe: the try goes on at the next call.
    pub(super) async fn reopen(&mut self) -> Result<(), ConnectionError> {
        sleep_until(self.again_at).await;
        match self.open().await {
            Ok(()) => Ok(()),
            Err(cause) => self.break_off(cause),
        }
    }

    /// Connects, says `connect` with as many topics as fit, and takes the `welcome`.
    pub(super) async fn open(&mut self) -> Result<(), ConnectionError> {
        if self.opening.is_none() {
            let hello = self.hello();
            self.opening = Some(Opening::begin(
                self.addresses[self.address_index].clone(),
                self.credential.source(),
                hello,
                self.frame_bytes_max,
            ));
        }
        let Some(opening) = &mut self.opening else {
            return Ok(());
        };
        let Tried { presented, opened } = opening.end().await;
        self.opening = None;
        self.is_token_fresh = presented.as_ref().is_some_and(|token| token.is_fresh);
        if let Some(presented) = &presented {
            self.credential.presented(presented);
        }
        let (mut connection, welcome) = opened.inspect_err(|cause| self.shorten_hello(cause))?;
        let ping_ms = welcome["ping_ms"].as_u64().unwrap_or(0);
        connection.expect_pings(crate::reconnect::asked(ping_ms), self.own_ping);
        self.is_token_fresh = false;
        self.connection = Some(connection);
        let is_first = self.welcome.is_null();
        self.welcome = welcome.clone();
        if !is_first {
            let welcome = welcome.clone();
            self.waiting.push(Happening::Back { welcome });
        }
        self.take_welcome(&welcome, is_first);
        Ok(())
    }

    /// The text of `connect`. What does not fit in is asked for afterwards.
    fn hello(&mut self) -> String {
        let id = self.next_id();
        let now = Instant::now();
        let mut left = self.hello_bytes_max;
        let mut topics = Vec::new();
        // Inbox and `@`, which stand first in their order, cannot be joined otherwise.
        for (topic, joined) in &mut self.joined {
            let entry = joined.entry(topic);
            let bytes = entry
                .as_ref()
                .map_or(0, |entry| entry.to_string().len() + 1);
            joined.stage = match entry {
                Some(entry) if bytes <= left || topic.starts_with('@') => {
                    left = left.saturating_sub(bytes);
                    topics.push(entry);
                    Stage::Asked(id)
                }
                Some(_) => Stage::Due(now),
                None => Stage::Here,
            };
        }
        let mut hello = json!({"type": "connect", "id": id});
        if !topics.is_empty() {
            hello["topics"] = json!(topics);
        }
        hello.to_string()
    }

    /// A node may take less at once than this client thinks.
    fn shorten_hello(&mut self, cause: &ConnectionError) {
        let is_of_length = match cause {
            ConnectionError::Closed { code, .. } => *code == 1009,
            ConnectionError::Refused { code, .. } => code == "limit_exceeded",
            _ => false,
        };
        if is_of_length {
            self.hello_bytes_max /= 2;
        }
    }

    /// Takes what `welcome` says about inbox and topics.
    fn take_welcome(&mut self, welcome: &Value, is_first: bool) {
        if let Some(inbox) = welcome["inbox"]["topic"].as_str() {
            self.attend(inbox);
            if let Some(joined) = self.joined.get_mut(inbox) {
                let cursor = || text(&welcome["inbox"]["position"]);
                joined.position.get_or_insert_with(cursor);
                joined.stage = Stage::Here;
            }
        }
        // Not asked for with a place, so that the server cannot tell what was missed of it.
        let everyone = self.joined.get("@").map(|joined| joined.stage);
        let is_lost = !is_first && everyone == Some(Stage::Here);
        let topics = welcome["topics"].as_object().into_iter().flatten();
        for (topic, answer) in topics {
            let joined = self.joined.get(topic);
            if joined.is_some_and(|joined| matches!(joined.stage, Stage::Asked(_))) {
                self.resumed(topic, answer);
            } else if !topic.starts_with('@') && answer["error"].is_null() {
                // It was left while the connection was made.
                let id = self.next_id();
                let command = json!({"type": "unsubscribe", "id": id, "topic": topic});
                self.ask(id, command.to_string(), Asker::Client(Memory::Nothing));
            }
        }
        if let Some(joined) = self.joined.get_mut("@").filter(|_| is_lost) {
            joined.is_unplaced = false;
            joined.position = None;
            let gap = json!({"type": "gap", "topic": "@", "reason": "lost"});
            self.waiting.push(Happening::Made(gap));
        }
        for joined in self.joined.values_mut() {
            // By the contract `welcome` names each topic.
            if matches!(joined.stage, Stage::Asked(_)) {
                joined.stage = Stage::Here;
            }
        }
    }

    /// Takes the answer to a resume.
    fn resumed(&mut self, topic: &str, answer: &Value) {
        let Some(joined) = self.joined.get_mut(topic) else {
            return;
        };
        if topic == "@" && answer["error"].is_object() {
            // It is joined as soon as it can be, and a gap says what was missed.
            joined.stage = Stage::Here;
            return;
        }
        match joined.resumed(topic, answer) {
            Outcome::Resumed(gaps) => {
                for gap in gaps {
                    self.waiting.push(Happening::Made(gap));
                }
                self.waiting.push(Happening::Resumed(topic.to_owned()));
            }
            Outcome::Later => {}
            Outcome::Ended(event) => {
                self.joined.remove(topic);
                self.waiting.push(Happening::Made(event));
            }
        }
    }

    /// Drops the connection and plans the next; an error when there is none.
    pub(super) fn break_off(&mut self, cause: ConnectionError) -> Result<(), ConnectionError> {
        if let Some(connection) = self.connection.take() {
            if connection.age() >= SETTLED_AFTER {
                self.pace.settled();
            }
            if cause.close_code() == Some(4201) {
                self.own_ping = (self.own_ping / 2).max(OWN_PING_MIN);
            }
        }
        self.credential.stop_renewing();
        self.renew_at = None;
        let again = if cause.is_of_token() && self.credential.refused(self.is_token_fresh) {
            Again::AtOnce
        } else {
            cause.again()
        };
        let Some(again_after) = self.pace.wait(again, rand::random()) else {
            return Err(cause);
        };
        self.again_at = Instant::now() + again_after;
        self.address_index = (self.address_index + 1) % self.addresses.len();
        self.lose_pending(&cause);
        self.waiting.push(Happening::Away { cause, again_after });
        Ok(())
    }

    /// Tells everybody who waits for an answer that none comes.
    fn lose_pending(&mut self, cause: &ConnectionError) {
        let lost = || CommandError::Lost {
            has_user: self.welcome["user"].is_string(),
            close_code: cause.close_code(),
            cause: cause.to_string(),
        };
        for (id, pending) in std::mem::take(&mut self.pending) {
            match pending.asker {
                Asker::Caller(_) => self.answer = Some(Err(lost())),
                Asker::Client(_) => {
                    let result = Err(lost());
                    self.waiting.push(Happening::Answered { id, result });
                }
                // Asked again by the next session.
                Asker::Resume(_) | Asker::Refresh => {}
            }
        }
    }

    /// Sorts a frame: an answer goes to whoever asked, an event is followed and waits.
    pub(super) fn sort(&mut self, frame: Frame) {
        if let Some(id) = frame.head.id {
            // An answer that nobody waits for any more is let go.
            if let Some(pending) = self.pending.remove(&id) {
                self.answered(id, pending.asker, frame);
            }
            return;
        }
        self.follow(&frame);
        self.waiting.push(Happening::Said(frame));
    }

    fn answered(&mut self, id: u64, asker: Asker, frame: Frame) {
        let is_refused = frame.head.kind == "error";
        match asker {
            Asker::Resume(topic) => {
                let stage = self.joined.get(&topic).map(|joined| joined.stage);
                // Another one is under way, or it was left meanwhile.
                if stage == Some(Stage::Asked(id)) {
                    let says = frame.says();
                    let answer = if is_refused {
                        json!({"error": says})
                    } else {
                        says
                    };
                    self.resumed(&topic, &answer);
                }
            }
            Asker::Refresh if is_refused => {
                // The session ends with its token, and the next one fetches another.
                self.credential.refused(false);
            }
            Asker::Refresh => {}
            Asker::Caller(memory) => self.answer = Some(self.result(memory, frame)),
            Asker::Client(memory) => {
                let result = self.result(memory, frame);
                self.waiting.push(Happening::Answered { id, result });
            }
        }
    }

    fn result(&mut self, memory: Memory, frame: Frame) -> Result<Frame, CommandError> {
        if frame.head.kind == "error" {
            let says = frame.says();
            return Err(CommandError::Refused {
                code: text(&says["code"]),
                message: text(&says["message"]),
                retry: says["retry"] == true,
                retry_after: says["retry_after_ms"].as_u64().map(crate::reconnect::asked),
            });
        }
        self.remember(memory, frame.head.position.clone());
        Ok(frame)
    }

    /// Remembers what a command that succeeded has joined or left.
    fn remember(&mut self, memory: Memory, position: Option<String>) {
        match memory {
            Memory::Nothing => {}
            Memory::Leave(topic) => {
                self.joined.remove(&topic);
            }
            Memory::Join(topic, options) => match (self.joined.get_mut(&topic), position) {
                // It goes on where it was.
                (Some(joined), None) => joined.amend(options),
                (_, position) => {
                    let joined = Joined::new(options, position, Stage::Here);
                    self.joined.insert(topic, joined);
                }
            },
        }
    }

    /// Follows what an event says about positions, joined topics and tokens.
    fn follow(&mut self, frame: &Frame) {
        let head = &frame.head;
        let Some(topic) = &head.topic else {
            if head.kind == "expiring" {
                self.credential.renew();
            }
            return;
        };
        if head.kind == "unsubscribed" {
            self.joined.remove(topic);
            return;
        }
        let place = head.place_after();
        if topic.starts_with('@') && (place.is_some() || head.is_unplaced()) {
            self.attend(topic);
        }
        let joined = self.joined.get_mut(topic);
        let Some(joined) = joined.filter(|joined| joined.stage == Stage::Here) else {
            return;
        };
        if let Some(place) = place {
            joined.position = Some(place.to_owned());
            joined.is_unplaced = false;
        } else if head.is_unplaced() {
            joined.is_unplaced = true;
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
