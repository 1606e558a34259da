//! What the node tells systemd, where systemd has started it: that it is ready, that it stops, that it lives.
//!
//! In: `NOTIFY_SOCKET` and `WATCHDOG_USEC`, which systemd sets; and what health judges. Out: datagrams by
//! `sd-notify`; none elsewhere. `READY=1` says that every listener is open: a node whose Redis is away is
//! started, and its readiness is told by `/health/ready`. `WATCHDOG=1` is sent three times in the time
//! that systemd waits for it, and not while the node is not live (`/health/live`): then systemd ends the
//! process and starts it anew. Owner: a thread of its own, because a runtime may be what hangs.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::tasks::{self, turns};

/// How often the watchdog is fed in the time that it waits.
const FEEDS: u32 = 3;
/// However short that is.
const FEED_MIN: Duration = Duration::from_millis(10);

/// Says that the node has started.
pub(super) fn ready() {
    tell("READY", NotifyState::Ready);
}

/// Says that the node has begun to stop.
pub(super) fn stopping() {
    tell("STOPPING", NotifyState::Stopping);
}

/// Starts to say that the node lives, where systemd watches that.
///
/// # Errors
/// What the operating system says when it has no thread to give.
pub(super) fn feed_watchdog() -> io::Result<()> {
    let Some(patience) = sd_notify::watchdog_enabled().filter(|time| !time.is_zero()) else {
        return Ok(());
    };
    let pause = (patience / FEEDS).max(FEED_MIN);
    let feed = move || {
        loop {
            if turns::lost().is_empty() {
                tell("WATCHDOG", NotifyState::Watchdog);
            }
            std::thread::sleep(pause);
        }
    };
    tasks::thread("watchdog".to_owned(), feed).map(drop)
}

fn tell(what: &str, state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(
            event = "systemd_notice_failed",
            what,
            error = &error as &(dyn std::error::Error + 'static),
            "systemd could not be told; it may end this process when it waits for that"
        );
    }
}
