//! The end of a session: what is still owed, the close frame, the last bytes, the trace it leaves.
//!
//! In: the one reason. Out: replies and close frame written as far as the client takes them, its
//! answer awaited (`close_handshake.rs`), every membership given back. Bounds: `drain.commands` for
//! commands at the broker, `session.close_timeout` for the rest.

use std::future::poll_fn;
use std::io;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;

use crate::tasks;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::frame;

use super::{Session, close_handshake};

impl Session {
    /// The client said goodbye: its own code goes back (RFC 6455, section 5.5.1).
    pub(super) fn closed_by_client(&mut self, code: Option<u16>) {
        self.push_last(close_handshake::answer_to(code));
        self.end(CloseReason::Client);
    }

    fn push_last(&self, frame: Bytes) {
        self.calls.worker.push_last(self.calls.key, frame);
    }

    /// Ends the session.
    pub(super) async fn finish(&mut self, reason: CloseReason) {
        let config = self.calls.services.config.clone();
        if matches!(reason, CloseReason::Draining | CloseReason::Rebalanced) {
            self.await_commands(config.drain.commands).await;
        }
        self.leave_everything();
        if reason != CloseReason::Lost {
            if reason == CloseReason::SlowConsumer {
                self.calls.worker.drop_backlog(self.calls.key);
            }
            if let (Some(code), false) = (reason.code(), reason == CloseReason::Client) {
                self.push_last(frame::close(code, reason.text()));
            }
            // A client that takes nothing is left alone when time is up.
            let _ =
                tokio::time::timeout(config.session.close_timeout, self.close_socket(reason)).await;
        }
        self.give_back(reason);
    }

    /// The task broke off: nothing of the session may stay behind. Who is still there is told as far
    /// as one write can.
    fn abandon(&mut self) {
        let reason = CloseReason::Internal;
        self.leave_everything();
        if let Some(code) = reason.code() {
            self.push_last(frame::close(code, reason.text()));
        }
        self.calls.worker.flush(self.calls.key);
        self.give_back(reason);
    }

    /// The worker's part of it, and the traces.
    fn give_back(&mut self, reason: CloseReason) {
        self.is_over = true;
        let worker = &self.calls.worker;
        let written = worker.written_bytes(self.calls.key);
        worker.remove(self.calls.key);
        worker.metrics().ends.of(reason).add_owned(1);
        self.tell_closed(reason, written);
    }

    /// Commands that are at the broker get their answers before the close frame.
    async fn await_commands(&mut self, deadline: Duration) {
        let all = async {
            while let Some(busy) = &mut self.busy
                && let Some(done) = busy.next().await
            {
                self.done(done);
            }
        };
        // What has no answer by then is, for the client, a lost answer.
        let _ = tokio::time::timeout(deadline, all).await;
    }

    fn leave_everything(&mut self) {
        (self.busy, self.late) = (None, None);
        self.calls.worker.leave_all(self.calls.key);
        let services = &self.calls.services;
        for topic in self.machine.memberships() {
            services.presence.leave(topic.clone(), self.calls.session);
        }
        for topic in self.counted.drain(..) {
            services.registry.leave(&topic);
        }
    }

    /// Writes what is left, and ends the connection.
    async fn close_socket(&mut self, reason: CloseReason) {
        let (worker, key) = (self.calls.worker.clone(), self.calls.key);
        let stream = Rc::clone(&self.stream);
        let written = async {
            worker.flush(key);
            while !worker.is_flushed(key) {
                poll_fn(|cx| stream.poll_write_ready(cx)).await?;
                worker.flush(key);
                if !worker.is_blocked(key) && !worker.is_flushed(key) {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
            Ok(())
        };
        let reader = close_handshake::is_answered(reason).then_some(&mut self.socket);
        close_handshake::close(&self.stream, &self.scratch, reader, written).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let abandoned = std::panic::catch_unwind(AssertUnwindSafe(|| self.abandon()));
        if abandoned.is_err() {
            // Then it is the worker that is broken, and with it all of its sessions.
            tasks::fail(
                "worker",
                Err("a session could not be given back".to_owned()),
            );
        }
    }
}
