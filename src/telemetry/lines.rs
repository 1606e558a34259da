//! Lines on their way to stderr, by `tracing-appender`: a bounded queue, and the thread that empties it.
//!
//! In: whole lines from any thread ([`LineQueue::push`], which never waits for the reader of the
//! log). Out: stderr, line by line, by one thread. Owner: the process, once ([`start`]). Bounds:
//! [`LINES_MAX`] lines and [`BYTES_MAX`] bytes, that of the line that is being written among them; a
//! line that finds no room is dropped and counted, and how many were is logged as soon as half the
//! queue is free. The crate bounds lines alone, so room is given out here ([`Room`]), and its own
//! bound, which has place for the last words too, is never met.
//! Where stderr does not block and is full, the thread waits, and the line is written whole. A write
//! that fails is counted, its line is gone, how many were is logged as soon as a line can be
//! written, and nothing ends by it. At its end the process waits a moment for the lines that are left
//! ([`LineQueue::flush`]). The crate's own way to wait, dropping its guard, says on stdout where it
//! was in vain, so the guard of the process is kept.

use std::io::{ErrorKind, Write};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

use super::metrics::LogCounters;

/// Most lines that wait.
pub const LINES_MAX: usize = 8_192;
/// Most bytes that wait.
pub const BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// Room that only the last words of the process have.
const LAST_LINES_MAX: usize = 16;
const LAST_BYTES_MAX: usize = 64 * 1_024;
/// For how long the end of the process waits for lines that are not written yet.
pub const FLUSH: Duration = Duration::from_secs(1);
/// How long the thread waits for room in a stderr that does not block.
const FULL_REST: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Debug)]
pub struct LineQueue {
    room: Arc<Room>,
    lines: NonBlocking,
    _guard: WorkerGuard,
}

/// What waits, and what is counted of it.
#[derive(Debug, Default)]
pub struct Room {
    waiting: Mutex<Waiting>,
    /// Told when all is written.
    idle: Condvar,
    /// What is counted of the log.
    pub counters: LogCounters,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Not written yet.
    lines: usize,
    bytes: usize,
    /// Dropped since that was last logged.
    dropped: u64,
}

/// The room for lines of this process.
pub fn room() -> &'static Arc<Room> {
    static ROOM: LazyLock<Arc<Room>> = LazyLock::new(Arc::default);
    &ROOM
}

static QUEUE: OnceLock<LineQueue> = OnceLock::new();

/// The operating system gives no thread.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gives no thread for the log")]
pub struct NoThread;

/// Starts the queue of this process, to stderr.
///
/// # Errors
/// [`NoThread`].
pub fn start() -> Result<(), NoThread> {
    if QUEUE.get().is_none() {
        // The crate panics where it gets no thread.
        let start = || LineQueue::new(Arc::clone(room()), std::io::stderr());
        let started = std::panic::catch_unwind(start).map_err(|_| NoThread)?;
        // Only one start of a process is the first.
        let _ = QUEUE.set(started);
    }
    Ok(())
}

/// The queue of this process, where it was started.
pub fn queue() -> Option<&'static LineQueue> {
    QUEUE.get()
}

impl LineQueue {
    fn new(room: Arc<Room>, out: impl Write + Send + 'static) -> Self {
        let written = Written {
            out,
            room: Arc::clone(&room),
            is_torn: false,
            failed: 0,
        };
        let (lines, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(LINES_MAX + LAST_LINES_MAX)
            .thread_name("log")
            .finish(written);
        Self {
            room,
            lines,
            _guard: guard,
        }
    }

    /// Appends a line, or drops and counts it where there is no room.
    pub fn push(&self, line: &[u8]) {
        self.append(line, LINES_MAX, BYTES_MAX);
    }

    /// Appends one of the few lines that tell why the process ends. For these there is room of
    /// their own, so a full queue does not drop them.
    pub fn push_last_word(&self, line: &[u8]) {
        let lines_max = LINES_MAX + LAST_LINES_MAX;
        self.append(line, lines_max, BYTES_MAX + LAST_BYTES_MAX);
    }

    fn append(&self, line: &[u8], lines_max: usize, bytes_max: usize) {
        if self.room.takes(line.len(), lines_max, bytes_max) {
            // Its queue has a place for each line that has room.
            let _ = self.lines.clone().write_all(line);
        }
    }

    /// Waits until all lines are written, at most so long.
    pub fn flush(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let mut waiting = self.room.lock();
        while waiting.lines > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let idle = self.room.idle.wait_timeout(waiting, left);
            waiting = idle.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Room {
    fn takes(&self, bytes: usize, lines_max: usize, bytes_max: usize) -> bool {
        let mut waiting = self.lock();
        if waiting.lines >= lines_max || waiting.bytes + bytes > bytes_max {
            waiting.dropped += 1;
            self.counters.dropped.add(1);
            return false;
        }
        waiting.lines += 1;
        waiting.bytes += bytes;
        true
    }

    /// A line does not wait any more. Returns how many were dropped, once there is room again.
    fn left(&self, bytes: usize) -> u64 {
        let mut waiting = self.lock();
        waiting.lines -= 1;
        waiting.bytes -= bytes;
        if waiting.lines == 0 {
            self.idle.notify_all();
        }
        match waiting.lines <= LINES_MAX / 2 && waiting.bytes <= BYTES_MAX / 2 {
            true => std::mem::take(&mut waiting.dropped),
            false => 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the thread of `tracing-appender` writes: each `write_all` is one line.
struct Written<W> {
    out: W,
    room: Arc<Room>,
    /// The last line that was written has no end.
    is_torn: bool,
    /// Not written since that was last logged.
    failed: u64,
}

impl<W: Write> Written<W> {
    fn line(&mut self, line: &[u8]) {
        // Without its end, the line before would take this one with it.
        let end = if self.is_torn { "\n" } else { "" };
        let failed = match write_whole(&mut self.out, &[end.as_bytes(), line].concat()) {
            Ok(()) => {
                self.is_torn = false;
                std::mem::take(&mut self.failed)
            }
            Err(Unwritten { is_torn }) => {
                self.room.counters.failed.add(1);
                self.failed += 1;
                self.is_torn |= is_torn;
                0
            }
        };
        let dropped = self.room.left(line.len());
        let counters = &self.room.counters;
        if dropped > 0 {
            tracing::warn!(
                event = "log_lines_dropped",
                count = dropped,
                total = counters.dropped.get(),
                "lines of the log found no room, because nobody reads it or it is read slowly"
            );
        }
        if failed > 0 {
            tracing::warn!(
                event = "log_writes_failed",
                count = failed,
                total = counters.failed.get(),
                "lines of the log could not be written"
            );
        }
    }
}

impl<W: Write> Write for Written<W> {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.line(line);
        Ok(line.len())
    }

    fn write_all(&mut self, line: &[u8]) -> std::io::Result<()> {
        self.line(line);
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// A line that could not be written.
struct Unwritten {
    /// A part of it was.
    is_torn: bool,
}

/// Writes all of a line, and waits for room where the system says that there is none now: a pipe
/// that does not block may come from a parent that shares it.
fn write_whole(out: &mut impl Write, line: &[u8]) -> Result<(), Unwritten> {
    let mut left = line;
    while !left.is_empty() {
        let written = out.write(left);
        match written.map_err(|error| error.kind()) {
            Ok(count) if count > 0 => left = &left[count..],
            Err(ErrorKind::Interrupted) => {}
            Err(ErrorKind::WouldBlock) => std::thread::sleep(FULL_REST),
            Ok(_) | Err(_) => {
                let is_torn = left.len() < line.len();
                return Err(Unwritten { is_torn });
            }
        }
    }
    Ok(())
}

/// Hands what a log formats to the queue: one call is one line.
#[derive(Debug, Clone, Copy)]
pub struct IntoQueue;

impl Write for IntoQueue {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if let Some(queue) = queue() {
            queue.push(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
