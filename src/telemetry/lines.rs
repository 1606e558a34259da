//! Lines on their way to stderr: a bounded queue, and the thread that empties it.
//!
//! In: whole lines from any thread ([`LineQueue::push`], which never waits for the reader of the
//! log). Out: stderr, line by line, by one thread ([`LineQueue::write_to`]). Owner: the process,
//! once ([`queue`]). Bounds: [`LINES_MAX`] lines and [`BYTES_MAX`] bytes; a line that finds no room
//! is dropped and counted, and how many were is logged as soon as half the queue is free.
//! Where stderr does not block and is full, the thread waits, and the line is written whole. A write
//! that fails is counted, its line is gone, how many were is logged as soon as a line can be
//! written, and nothing ends by it. At its end the process waits a moment for the lines that are left
//! ([`LineQueue::flush`]).

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::metrics::LogCounters;

/// Most lines that wait.
pub const LINES_MAX: usize = 8_192;
/// Most bytes that wait.
pub const BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// For how long the end of the process waits for lines that are not written yet.
pub const FLUSH: Duration = Duration::from_secs(1);
/// How long the thread waits for room in a stderr that does not block.
const FULL_REST: Duration = Duration::from_millis(10);

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
    /// Dropped since that was last logged.
    dropped: u64,
    /// Not written since that was last logged.
    failed: u64,
    /// The last line that was written has no end.
    is_torn: bool,
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
        // Without its end, the line before would take this one with it.
        let end = if self.lock().is_torn { "\n" } else { "" };
        let written = write_whole(out, &[end.as_bytes(), &line].concat());
        let mut waiting = self.lock();
        let failed = match written {
            Ok(()) => {
                waiting.is_torn = false;
                std::mem::take(&mut waiting.failed)
            }
            Err(Unwritten { is_torn }) => {
                self.counters.failed.add(1);
                waiting.failed += 1;
                waiting.is_torn |= is_torn;
                0
            }
        };
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
        if failed > 0 {
            tracing::warn!(
                event = "log_writes_failed",
                count = failed,
                total = self.counters.failed.get(),
                "lines of the log could not be written"
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
        queue().push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

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
        assert_eq!(queue.lock().failed, 1);
        queue.write_next(&mut out);
        assert_eq!(queue.counters.failed.get(), 1);
        assert_eq!(queue.lock().failed, 0, "it is told");
        assert_eq!(out, b"kept\n");
        queue.flush(Duration::from_secs(60));
    }

    /// Takes so many bytes, then refuses.
    struct Filling(Vec<u8>, usize);

    impl Write for Filling {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let count = bytes.len().min(self.1 - self.0.len());
            self.0.extend(&bytes[..count]);
            match count {
                0 => Err(ErrorKind::StorageFull.into()),
                _ => Ok(count),
            }
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_torn_line_does_not_take_the_next_one_with_it() {
        let queue = LineQueue::default();
        queue.push(b"torn\n");
        queue.push(b"kept\n");
        let mut out = Filling(Vec::new(), 3);
        queue.write_next(&mut out);
        out.1 = 100;
        queue.write_next(&mut out);
        assert_eq!(out.0, b"tor\nkept\n");
    }

    /// A pipe that does not block; tells when it is full.
    struct Shared(UnixStream, mpsc::Sender<()>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let written = self.0.write(bytes);
            if written.is_err() {
                let _ = self.1.send(());
            }
            written
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_wait_for_room_where_stderr_does_not_block() {
        const COUNT: usize = 4_000;
        let queue = LineQueue::default();
        let line = [vec![b'a'; 499], b"\n".to_vec()].concat();
        (0..COUNT).for_each(|_| queue.push(&line));
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let (is_full, full) = mpsc::channel();
        let mut read = Vec::new();
        std::thread::scope(|scope| {
            let queue = &queue;
            scope.spawn(move || {
                let mut out = Shared(near, is_full);
                (0..COUNT).for_each(|_| queue.write_next(&mut out));
            });
            full.recv().unwrap();
            far.read_to_end(&mut read).unwrap();
        });
        assert_eq!(queue.counters.failed.get(), 0);
        assert!(read.chunks(line.len()).all(|chunk| chunk == line));
        assert_eq!(read.len(), COUNT * line.len());
    }
}
