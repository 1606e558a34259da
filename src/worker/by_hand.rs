//! A worker whose sessions have no sockets, moved by hand: for simulations of what stands around it.
//!
//! In: what the dispatcher has queued, taken when the simulation says so. Out: what waits for a
//! session's client, as many bytes as the simulation takes. The one socket that all sessions name is
//! never written to. Owner of the worker; only in builds for tests. Bounds: the worker's own. Its own
//! tests have real sockets (`tests/rig.rs`).

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::handle::{Inbound, WorkerHandle};
use super::hub::{Mode, SessionKey};
use super::outbox::Bound;
use super::stream::Stream;
use super::{State, Worker, WorkerInterest};
use fanfare_protocol::event::{Event, Ok as Answer};
use fanfare_protocol::form::{Encoding, WireForm};
use fanfare_protocol::ids::{Position, SessionId};

/// See the module.
pub(crate) struct ByHand {
    pub(crate) worker: Rc<Worker>,
    inbound: mpsc::Receiver<Inbound>,
    sessions: u128,
}

impl ByHand {
    /// A worker with this number, and the way into it, which holds `queue_max` messages.
    pub(crate) fn new(
        index: usize,
        bound: Bound,
        recent_bytes_max: usize,
        queue_max: usize,
        interest: &Arc<WorkerInterest>,
    ) -> (Self, WorkerHandle) {
        let (handle, inbound) = WorkerHandle::bounded(Arc::default(), queue_max);
        let interest = Arc::clone(interest);
        let worker = Worker::new(index, bound, recent_bytes_max, interest, Arc::default());
        let by_hand = Self {
            worker,
            inbound,
            sessions: 0,
        };
        (by_hand, handle)
    }

    /// A session whose socket takes nothing by itself.
    pub(crate) fn session(&mut self, socket: &Rc<Stream>) -> SessionKey {
        self.sessions += 1;
        let id = SessionId(self.sessions);
        let key = self
            .worker
            .add(id, WireForm::websocket(Encoding::Json), Rc::clone(socket));
        self.worker.state.borrow_mut().sessions[key].blocked = true;
        key
    }

    /// Takes so many messages of the dispatcher, if there are as many.
    pub(crate) fn turn(&mut self, count: usize) {
        for _ in 0..count {
            let Ok(message) = self.inbound.try_recv() else {
                break;
            };
            self.worker.handle(message);
        }
        self.worker.flush_dirty(usize::MAX);
    }

    /// Whether the dispatcher has nothing more for it.
    pub(crate) fn is_idle(&self) -> bool {
        self.inbound.is_empty()
    }

    /// The session's client reads so many bytes of what waits for it.
    pub(crate) fn read(&self, key: SessionKey, bytes_max: usize, into: &mut Vec<u8>) {
        let state = &mut *self.worker.state.borrow_mut();
        let State {
            sessions, spares, ..
        } = state;
        let mut left = bytes_max;
        let written = sessions[key].outbox.write(spares, |slices| {
            let before = left;
            for slice in slices {
                let count = slice.len().min(left);
                into.extend_from_slice(&slice[..count]);
                left -= count;
            }
            match before - left {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                count => Ok(count),
            }
        });
        written.expect("nothing here fails");
    }

    /// Whether the session waits for pages.
    pub(crate) fn is_catching_up(&self, key: SessionKey) -> bool {
        self.worker.state.borrow().sessions[key].catching_up
    }

    /// A frame by which a simulation finds its place again.
    pub(crate) fn mark(&self, key: SessionKey, id: u64) {
        let answer = Answer {
            id: Some(id),
            ..Answer::default()
        };
        self.worker.reply(key, &Event::Ok(answer));
    }

    /// Takes out the rule that live messages at or below what a page brought are skipped.
    pub(crate) fn forget_pages(&self, key: SessionKey) {
        self.bend(key, |mode| {
            if let Mode::Push { after } = mode {
                *after = Position::ZERO;
            }
        });
    }

    /// Takes out the rule that a session goes live only when its pages have reached what the
    /// worker has seen.
    pub(crate) fn go_live_early(&self, key: SessionKey) {
        self.bend(key, |mode| {
            if let Mode::Pull { at, .. } = *mode {
                *mode = Mode::Push { after: at };
            }
        });
    }

    fn bend(&self, key: SessionKey, bend: impl Fn(&mut Mode)) {
        let state = &mut *self.worker.state.borrow_mut();
        for reference in &state.sessions[key].references {
            bend(&mut state.hub.member_mut(*reference).mode);
        }
    }
}
