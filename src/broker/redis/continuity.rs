//! Whether a server still has what it was told, as far as that can be known from outside.
//!
//! In: what the server says of itself on each new connection for commands. Out: a number, which is
//! another one once the server may have lost something: it was restarted, another one took its
//! address, or it followed a master for a while. That a connection broke and the same server is
//! there again is nothing; nor is what happens to the feed. Owner: the master. One text is kept.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::RedisBroker;
use crate::broker::{Moves, Place};
use fanfare_protocol::ids::Topic;

/// See the module.
#[derive(Debug)]
pub struct Continuity {
    /// What the server said last; `None`: it was never reached.
    known: Mutex<Option<String>>,
    number: AtomicU64,
    /// Told with each change, so that topics are looked at again.
    moves: Arc<watch::Sender<Moves>>,
}

impl Continuity {
    /// Of a server that was not reached yet.
    #[must_use]
    pub fn new(moves: Arc<watch::Sender<Moves>>) -> Self {
        Self {
            known: Mutex::new(None),
            number: AtomicU64::new(0),
            moves,
        }
    }

    /// The number of now.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// A new connection is open, to a server that says this of itself (`INFO server` and
    /// `INFO replication`). One that does not say who it is may be any. Called before commands are
    /// let through.
    pub fn connected(&self, info: Option<&str>) {
        let identity = info.and_then(identity_of);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = known.is_none() || (identity.is_some() && *known == identity);
        *known = Some(identity.unwrap_or_default());
        if !is_same {
            self.number.fetch_add(1, Ordering::AcqRel);
            self.moves.send_modify(|moves| moves.add(true));
        }
    }
}

/// The process, and the history of writes that it has: a replica that takes over begins another.
fn identity_of(info: &str) -> Option<String> {
    let field = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name));
    let (process, history) = (field("run_id:")?, field("master_replid:")?);
    Some(format!("{process} {history}"))
}

impl RedisBroker {
    /// As [`crate::broker::Broker::place_of`].
    #[must_use]
    pub fn place_of(&self, topic: &Topic) -> Option<Place> {
        let master = self.masters.find_topic(topic).ok()?.master;
        Some(Place {
            feed: master.number,
            continuity: master.shared.continuity.number(),
        })
    }

    /// As [`crate::broker::Broker::moves`].
    #[must_use]
    pub fn moves(&self) -> watch::Receiver<Moves> {
        self.moves.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_or_history_is_another_number_and_a_mere_reconnect_is_not() {
        let moves = Arc::new(watch::Sender::new(Moves::default()));
        let told = moves.subscribe();
        let continuity = Continuity::new(moves);
        let info = |run: &str, history: &str| {
            format!("# Server\r\nrun_id:{run}\r\n# Replication\r\nmaster_replid:{history}\r\n")
        };
        let after = |text: Option<&str>| {
            continuity.connected(text);
            continuity.number()
        };
        assert_eq!(
            after(Some(&info("a", "x"))),
            0,
            "nothing was told to it before"
        );
        assert_eq!(after(Some(&info("a", "x"))), 0);
        assert_eq!(after(Some(&info("b", "x"))), 1, "restarted");
        assert_eq!(
            after(Some(&info("b", "y"))),
            2,
            "it was a replica meanwhile"
        );
        assert_eq!(after(Some(&info("b", "y"))), 2);
        assert_eq!(after(None), 3, "it does not say");
        assert_eq!(after(None), 4);
        assert_eq!(after(Some(&info("b", "y"))), 5);
        assert_eq!(told.borrow().losses_count, 5);
    }
}
