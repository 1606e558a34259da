//! What the node tells systemd, where systemd has started it: that it is ready, that it stops, that it lives.
//!
//! In: `NOTIFY_SOCKET` and `WATCHDOG_USEC`, which systemd sets; and what health judges. Out: datagrams in
//! the words of `sd-notify`; none elsewhere. `READY=1` says that every listener is open: a node whose Redis is away is
//! started, and its readiness is told by `/health/ready`. `WATCHDOG=1` is sent three times in the time
//! that systemd waits for it, and not while the node is not live (`/health/live`): then systemd ends the
//! process and starts it anew. Owner: a thread of its own, because a runtime may be what hangs.
//!
//! Nobody waits for systemd, not even that thread: a datagram for which its socket has no room is not sent.
//! `sd-notify` would wait for room, for ever where nobody reads, and takes an abstract socket for a path. So
//! datagrams are sent from here. `READY` and `STOPPING` are tried again until they went.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::tasks::{self, turns};

/// How often the watchdog is fed in the time that it waits.
const FEEDS: u32 = 3;
/// However short that is.
const FEED_MIN: Duration = Duration::from_millis(10);
/// How long after one that did not go a notice is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// The node has begun to stop: what it wanted to say before is not true any more.
static IS_STOPPING: AtomicBool = AtomicBool::new(false);

/// A kind of notice, and whether it was told to the log that one of them did not go.
struct Notice {
    what: &'static str,
    state: NotifyState<'static>,
    is_told: AtomicBool,
}

static READY: Notice = Notice::new("READY", NotifyState::Ready);
static STOPPING: Notice = Notice::new("STOPPING", NotifyState::Stopping);
static WATCHDOG: Notice = Notice::new("WATCHDOG", NotifyState::Watchdog);

/// Says that the node has started. Does not wait.
pub(super) fn ready() {
    READY.insist(|| IS_STOPPING.load(Ordering::Relaxed));
}

/// Says that the node has begun to stop. Does not wait.
pub(super) fn stopping() {
    IS_STOPPING.store(true, Ordering::Relaxed);
    STOPPING.insist(|| false);
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
                WATCHDOG.tell();
            }
            std::thread::sleep(pause);
        }
    };
    tasks::thread("watchdog".to_owned(), feed).map(drop)
}

impl Notice {
    const fn new(what: &'static str, state: NotifyState<'static>) -> Self {
        Self {
            what,
            state,
            is_told: AtomicBool::new(false),
        }
    }

    /// Sends it now, or from a thread of its own as soon as it goes, unless it is not true any more.
    fn insist(&'static self, is_over: fn() -> bool) {
        if self.tell() {
            return;
        }
        let again = move || {
            loop {
                std::thread::sleep(AGAIN);
                if is_over() || self.tell() {
                    return;
                }
            }
        };
        if let Err(error) = tasks::contained_thread("systemd", again) {
            self.failed(&error);
        }
    }

    /// Sends it, if it goes at once, and returns whether it went. One that does not is told to the log,
    /// the first after any that did.
    fn tell(&self) -> bool {
        let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
            return true;
        };
        match send(&socket, &self.state.to_string()) {
            Ok(()) => {
                self.is_told.store(false, Ordering::Relaxed);
                true
            }
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    fn failed(&self, error: &io::Error) {
        if self.is_told.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::warn!(
            event = "systemd_notice_failed",
            what = self.what,
            error = error as &(dyn std::error::Error + 'static),
            "systemd could not be told; it may end this process when it waits for that"
        );
    }
}

/// Sends a datagram to a path, or to the abstract socket whose name follows an `@`. Does not wait.
fn send(socket: &OsStr, text: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let own = UnixDatagram::unbound()?;
    own.set_nonblocking(true)?;
    // A datagram goes whole or not at all.
    own.send_to_addr(text.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_nobody_reads_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let full = (0..100_000).find_map(|_| send(path.as_os_str(), "WATCHDOG=1").err());
        assert_eq!(full.expect("an end").kind(), io::ErrorKind::WouldBlock);
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"WATCHDOG=1");
        send(path.as_os_str(), "READY=1").expect("there is room again");
    }

    #[test]
    fn an_abstract_socket_is_no_path() {
        let name = format!(
            "fanfare-test-{}-{}",
            std::process::id(),
            rand::random::<u64>()
        );
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), "READY=1").unwrap();
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
    }
}
