//! What the log says of a session: that it opened, that it ended, and that a command took long.
//!
//! In: the session, and the time of a command. Out: lines of the log: of each session with
//! `log.sessions`, of commands above `log.slow_ms`. Owner of nothing. Bounds: those of the log.

use std::rc::Rc;
use std::time::Duration;

use fanfare_protocol::close::CloseReason;
use fanfare_protocol::ids::SessionId;

use super::{Read, Session};
use crate::telemetry::family::Label as _;
use crate::worker::Worker;

impl Session {
    pub(super) fn user(&self) -> Option<&str> {
        self.machine.identity().user.as_ref().map(|u| u.as_str())
    }

    /// `welcome` is on its way.
    pub(super) fn tell_opened(&self) {
        let services = &self.calls.services;
        if services.config.log.sessions {
            let (session, app) = (self.calls.session, self.machine.app().as_str());
            let (user, device) = (self.user(), self.device.as_deref());
            let duration_ms = in_ms(self.begun_at.elapsed());
            tracing::info!(event = "session_opened", %session, app, user, device, duration_ms, "session opened");
        }
    }

    /// One line a session. What its client or its network did is of interest when asked for;
    /// what this node did is told.
    pub(super) fn tell_closed(&self, reason: CloseReason, bytes_written: u64) {
        let services = &self.calls.services;
        let (session, app) = (self.calls.session, self.machine.app().as_str());
        let (user, device) = (self.user(), self.device.as_deref());
        let (code, label, bytes_read) = (reason.code(), reason.label(), self.bytes_read);
        let duration_ms = in_ms(self.begun_at.elapsed());
        if matches!(reason, CloseReason::Internal) {
            tracing::error!(event = "session_closed", %session, app, user, device, reason = label, code, duration_ms, bytes_read, bytes_written, "session closed");
        } else if services.config.log.sessions {
            tracing::info!(event = "session_closed", %session, app, user, device, reason = label, code, duration_ms, bytes_read, bytes_written, "session closed");
        } else {
            tracing::debug!(event = "session_closed", %session, app, user, device, reason = label, code, duration_ms, bytes_read, bytes_written, "session closed");
        }
    }
}

/// A command that is being worked on. Its time is counted once, and told where it is long, also where
/// the session ends meanwhile: then this is dropped with it.
pub(super) struct Timing {
    pub(super) worker: Rc<Worker>,
    pub(super) session: SessionId,
    /// What takes longer is told; zero: nothing is.
    pub(super) slow: Duration,
    pub(super) read: Read,
}

impl Drop for Timing {
    fn drop(&mut self) {
        let took = self.read.watch.took();
        let metrics = self.worker.metrics();
        metrics.command_seconds.of(self.read.kind).count_owned(took);
        metrics.longest.note(took);
        if !self.slow.is_zero() && took > self.slow {
            let (session, command) = (self.session, self.read.kind.word());
            let duration_ms = in_ms(took);
            tracing::warn!(event = "command_slowed", %session, command, duration_ms, "a command took long");
        }
    }
}

fn in_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
