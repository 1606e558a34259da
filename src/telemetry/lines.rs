//! Lines on their way to stderr: a bounded queue, and the thread that empties it.
//!
//! In: whole lines from any thread ([`LineQueue::push`], which never waits for the reader of the
//! log). Out: stderr, line by line, by one thread ([`LineQueue::write_to`]). Owner: the process,
//! once ([`queue`]). Bounds: [`LINES_MAX`] lines and [`BYTES_MAX`] bytes; a line that finds no room
//! is dropped and counted, and how many were is told by a line as soon as half the queue is free. A
//! write that fails is counted, its line is gone, and nothing ends by it. At its end the process
//! waits a moment for the lines that are left ([`LineQueue::flush`]).

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::metrics::LogCounters;

/// Most lines that wait.
pub const LINES_MAX: usize = 8_192;
/// Most bytes that wait.
pub const BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// For how long the end of the process waits for lines that are not written yet.
pub const FLUSH: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub struct LineQueue {
    waiting: Mutex<Waiting>,
    /// Told when there is a line.
    more: Condvar,
    /// Told when all is written.
    idle: Condvar,
    /// What is counted of the log.
    pub counters: LogCounters,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// One line is taken out and not written yet.
    is_writing: bool,
    /// Dropped since that was last told.
    dropped: u64,
}

/// The queue of this process.
pub fn queue() -> &'static LineQueue {
    static QUEUE: LazyLock<LineQueue> = LazyLock::new(LineQueue::default);
    &QUEUE
}

impl LineQueue {
    /// Appends a line, or drops and counts it where there is no room.
    pub fn push(&self, line: &[u8]) {
        self.append(line, LINES_MAX, BYTES_MAX);
    }

    /// Appends one of the few lines that tell why the process ends. For these there is room of
    /// their own, so a full queue does not drop them.
    pub fn push_last_word(&self, line: &[u8]) {
        self.append(line, LINES_MAX + 16, BYTES_MAX + 64 * 1_024);
    }

    fn append(&self, line: &[u8], lines_max: usize, bytes_max: usize) {
        let mut waiting = self.lock();
        if waiting.lines.len() >= lines_max || waiting.bytes + line.len() > bytes_max {
            waiting.dropped += 1;
            self.counters.dropped.add(1);
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line.to_vec());
        self.more.notify_one();
    }

    /// Writes lines as they come, for ever. Called by one thread.
    pub fn write_to(&self, mut out: impl Write) -> ! {
        loop {
            self.write_next(&mut out);
        }
    }

    fn write_next(&self, out: &mut impl Write) {
        let (line, dropped) = self.take();
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            self.counters.failed.add(1);
        }
        let mut waiting = self.lock();
        waiting.is_writing = false;
        if waiting.lines.is_empty() {
            self.idle.notify_all();
        }
        drop(waiting);
        if dropped > 0 {
            let total = self.counters.dropped.get();
            tracing::warn!(
                event = "log_lines_dropped",
                count = dropped,
                total,
                "lines of the log found no room, because nobody reads it or it is read slowly"
            );
        }
    }

    /// Waits for a line. With it comes how many were dropped, once there is room again.
    fn take(&self) -> (Vec<u8>, u64) {
        let mut waiting = self.lock();
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                waiting.bytes -= line.len();
                waiting.is_writing = true;
                let has_room =
                    waiting.lines.len() <= LINES_MAX / 2 && waiting.bytes <= BYTES_MAX / 2;
                let dropped = match has_room {
                    true => std::mem::take(&mut waiting.dropped),
                    false => 0,
                };
                return (line, dropped);
            }
            let more = self.more.wait(waiting);
            waiting = more.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until all lines are written, at most so long.
    pub fn flush(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let mut waiting = self.lock();
        while !waiting.lines.is_empty() || waiting.is_writing {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let idle = self.idle.wait_timeout(waiting, left);
            waiting = idle.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands what a log formats to the queue: one call is one line.
#[derive(Debug, Clone, Copy)]
pub struct IntoQueue;

impl Write for IntoQueue {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        queue().push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refuses everything, as a full disk.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_without_room_are_dropped_and_counted() {
        let queue = LineQueue::default();
        for _ in 0..LINES_MAX + 3 {
            queue.push(b"a\n");
        }
        assert_eq!(queue.counters.dropped.get(), 3);
        queue.push_last_word(b"why\n");
        assert_eq!(queue.counters.dropped.get(), 3);
        let mut told = 0;
        for _ in 0..=LINES_MAX {
            let (_, dropped) = queue.take();
            told += dropped;
        }
        assert_eq!((told, queue.lock().bytes), (3, 0));
        queue.push(&vec![b'a'; BYTES_MAX + 1]);
        assert_eq!(queue.counters.dropped.get(), 4);
    }

    #[test]
    fn a_write_that_fails_is_counted_and_ends_nothing() {
        let queue = LineQueue::default();
        queue.push(b"lost\n");
        queue.push(b"kept\n");
        queue.write_next(&mut Full);
        let mut out = Vec::new();
        queue.write_next(&mut out);
        assert_eq!(queue.counters.failed.get(), 1);
        assert_eq!(out, b"kept\n");
        queue.flush(Duration::from_secs(60));
    }
}
