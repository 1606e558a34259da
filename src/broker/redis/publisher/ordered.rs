//! Publications as they go over a connection of our own, with many in flight.
//!
//! In: the queue of [`publisher`], answers to what was sent. Out: commands on the connection that it is
//! given, answers to callers, and what an answer says of the server. Owner of the order. It waits for
//! nothing itself: `redis/publications.rs` has the connection and calls. Bounds: [`IN_FLIGHT_MAX`].
//!
//! [`publisher`]: super

use fred::error::{Error, ErrorKind};
use fred::types::Value;

use super::{IN_FLIGHT_MAX, Job, Publications};
use crate::broker::BrokerError;
use crate::redis::RedisError;
use crate::redis::wire::Connection;
use crate::redis::wire::command::Prepared;

/// What a connection carries.
#[derive(Debug)]
pub enum Sent<Q> {
    /// A publication.
    Publication(Job<Prepared>),
    /// Their script.
    Script,
    /// A question of the link's own.
    Check(Q),
}

/// What an answer says of the server, beside its publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Nothing new.
    None,
    /// The topic, or the master, is somewhere else now.
    Misplaced,
    /// It may be no master any more.
    NotMaster,
    /// It takes no writes.
    ReadOnly,
}

/// See the module.
#[derive(Debug)]
pub struct Ordered {
    publications: Publications<Prepared>,
    /// Taken from the queue and not looked at yet.
    taken: Vec<Job<Prepared>>,
    in_flight: usize,
}

impl Ordered {
    /// Nothing is in flight yet.
    #[must_use]
    pub fn new(publications: Publications<Prepared>) -> Self {
        Self {
            publications,
            taken: Vec::new(),
            in_flight: 0,
        }
    }

    /// No more is taken into the queue.
    pub fn close(&mut self) {
        self.publications.queue.close();
    }

    /// Whether that is so.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.publications.queue.is_closed()
    }

    /// Waits for publications, as many as there is room for. Returns whether there may be more.
    /// Cancel safety: safe.
    pub async fn wait(&mut self) -> bool {
        let room = IN_FLIGHT_MAX.saturating_sub(self.in_flight);
        if room == 0 || !self.publications.again.is_empty() {
            return std::future::pending().await;
        }
        let queue = &mut self.publications.queue;
        queue.recv_many(&mut self.taken, room).await > 0
    }

    /// Sends what was waited for. What is refused at once is answered.
    pub fn send<Q>(&mut self, connection: &mut Connection<Sent<Q>>) {
        let mut taken = std::mem::take(&mut self.taken);
        for job in taken.drain(..) {
            self.send_one(connection, job);
        }
        self.taken = taken;
    }

    /// Refuses what was waited for, while there is no connection.
    pub fn refuse(&mut self) {
        for job in std::mem::take(&mut self.taken) {
            let refused = self.publications.shared.publications.pass();
            let why = refused.err().unwrap_or_else(unconnected);
            self.publications.answer(job, Err(why.into()));
        }
    }

    fn send_one<Q>(&mut self, connection: &mut Connection<Sent<Q>>, mut job: Job<Prepared>) {
        if let Err(refused) = self.publications.shared.publications.pass() {
            return self.publications.answer(job, Err(refused.into()));
        }
        job.sends_count += 1;
        let (command, context) = (job.command.clone(), self.publications.context(&job));
        let count = command.count() + usize::from(context.is_some());
        let sent = connection.send(Sent::Publication(job), count, |arguments| {
            arguments.prepared(&command);
            if let Some(context) = &context {
                arguments.bytes(context);
            }
        });
        match sent {
            Ok(()) => self.in_flight += 1,
            Err((Sent::Publication(job), refused)) => {
                self.publications.answer(job, Err(refused.into()));
            }
            Err(_) => {}
        }
    }

    /// Loads the script, if there is room. Only while no publication is in flight: see the head of
    /// [`super`].
    pub fn load<Q>(&self, connection: &mut Connection<Sent<Q>>, token: Sent<Q>) -> bool {
        debug_assert_eq!(
            self.in_flight, 0,
            "what was sent before might succeed later"
        );
        let source = self.publications.script.source();
        let sent = connection.send(token, 3, |arguments| {
            arguments.bytes(b"SCRIPT").bytes(b"LOAD");
            arguments.bytes(source.as_bytes());
        });
        sent.is_ok()
    }

    /// Takes the answer to a publication: to its caller, or it is to be sent again.
    pub fn land(&mut self, job: Job<Prepared>, result: Result<Value, RedisError>) -> Sign {
        self.in_flight -= 1;
        let publications = &mut self.publications;
        let server = || publications.shared.server();
        let result = result.map_err(|error| error.of_server(server));
        if publications.is_to_be_repeated(&job, &result) {
            publications.again.push(job);
            return Sign::None;
        }
        let sign = match &result {
            Err(RedisError::NotMaster(_)) => Sign::NotMaster,
            Err(RedisError::ReadOnly(_)) => Sign::ReadOnly,
            Err(error) if error.is_misplaced() => Sign::Misplaced,
            _ => Sign::None,
        };
        publications.overtake(job.topic.as_ref(), &result);
        publications.answer(job, result.map_err(BrokerError::from));
        sign
    }

    /// Sends again what was not done for want of the script, when all is answered, and the script
    /// before it.
    pub fn repeat<Q>(&mut self, connection: &mut Connection<Sent<Q>>) {
        if self.in_flight > 0 || self.publications.again.is_empty() {
            return;
        }
        let again = std::mem::take(&mut self.publications.again);
        tracing::debug!(
            event = "script_lost",
            count = again.len(),
            "Redis does not know the script, what was not done is sent again behind it"
        );
        // Where there is no room for it, there is none for them either, and they are refused.
        let _ = self.load(connection, Sent::Script);
        for job in again {
            self.send_one(connection, job);
        }
    }

    /// The connection has ended: what was in flight is told so, and what was to be sent again was not
    /// done.
    pub fn end<Q>(&mut self, unanswered: impl Iterator<Item = (Sent<Q>, RedisError)>) {
        for (sent, error) in unanswered {
            if let Sent::Publication(job) = sent {
                self.land(job, Err(error));
            }
        }
        for job in std::mem::take(&mut self.publications.again) {
            // The script was not there, so nothing was done.
            let refused = unconnected();
            self.publications.answer(job, Err(refused.into()));
        }
    }

    /// Whether all is answered.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.in_flight == 0 && self.publications.again.is_empty()
    }
}

/// Nothing was sent, and so nothing was done.
fn unconnected() -> RedisError {
    let why = "there is no connection for publications";
    RedisError::NotDone(Error::new(ErrorKind::IO, why))
}
