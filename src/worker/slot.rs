//! One session as its worker sees it, and what it is told to look at.
//!
//! Owned by the worker. What a delivery touches of a session is here.

use std::rc::Rc;
use std::task::Waker;

use crate::revocation::news::Marks;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::form::WireForm;
use fanfare_protocol::ids::SessionId;

use super::hub::{Member, Mode, Reference};
use super::outbox::Outbox;
use super::outgoing::Outgoing;
use super::stream::Stream;

/// What a session must look at. Several things may have happened since it last looked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionSignals {
    /// Its next deadline may have come.
    pub due: bool,
    /// The socket takes more again, or a topic fell behind: a catch-up may go on.
    pub room: bool,
    /// It must end, for this reason.
    pub end: Option<CloseReason>,
    /// The node is leaving.
    pub drain: bool,
    /// The node has more than its share, and this session is to go.
    pub shed: bool,
    /// Something was revoked that may be its token.
    pub revoked: bool,
    /// What its app sets has changed, or the app is gone.
    pub app_changed: bool,
}

/// One session as its worker sees it.
pub(super) struct SessionSlot {
    pub(super) id: SessionId,
    /// The sessions of this worker are numbered as they come.
    pub(super) number: u64,
    pub(super) form: WireForm,
    pub(super) stream: Rc<Stream>,
    pub(super) outbox: Outbox,
    pub(super) references: Vec<Reference>,
    /// At least one membership may be in [`super::hub::Mode::Pull`].
    pub(super) catching_up: bool,
    /// Where the next search for such a membership begins, so that topics take turns.
    pub(super) next_pull: usize,
    /// Pages asked for so far; the newest has this number.
    pub(super) pulls: u32,
    /// What its socket has taken so far.
    pub(super) written_bytes: u64,
    pub(super) waker: Option<Waker>,
    pub(super) notices: SessionSignals,
    pub(super) dirty: bool,
    pub(super) blocked: bool,
    /// It was told to go, because the node has more than its share.
    pub(super) is_told_to_move: bool,
    /// By what it is found where tokens are revoked or its app changes.
    pub(super) marks: Marks,
}

impl SessionSlot {
    pub(super) fn notify(&mut self, change: impl FnOnce(&mut SessionSignals)) {
        change(&mut self.notices);
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// A membership needs pages: the session is to look for it.
    pub(super) fn catch_up(&mut self) {
        self.catching_up = true;
        self.notify(|n| n.room = true);
    }

    /// Whether a member takes this delivery live. One that catches up notes how urgent it is.
    pub(super) fn takes(
        &mut self,
        member: &mut Member,
        outgoing: &Outgoing,
        has_history: bool,
    ) -> bool {
        match &mut member.mode {
            Mode::Starting { .. } => false,
            Mode::Push { after }
                if has_history && outgoing.prev < *after && *after < outgoing.position =>
            {
                // A page had brought it `after`, and the stream went on without that: the broker lost
                // it. The next page says so.
                member.mode = Mode::pull(*after, outgoing.priority());
                self.catch_up();
                false
            }
            Mode::Push { after } => {
                outgoing.position > *after && outgoing.exclude() != Some(self.id)
            }
            Mode::Pull { urgency, .. } => {
                if outgoing.priority() > *urgency {
                    *urgency = outgoing.priority();
                    self.catch_up();
                }
                false
            }
        }
    }

    pub(super) fn end(&mut self, reason: CloseReason) {
        self.notify(|n| n.end = n.end.or(Some(reason)));
    }
}
