//! Tests of the queue of lines, over writers that stall, refuse and tear.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, Sender};

use super::*;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn queue_to(out: impl Write + Send + 'static) -> LineQueue {
    LineQueue::new(Arc::default(), out)
}

/// Keeps what is written, where the test sees it.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn text(&self) -> String {
        let kept = self.0.lock().expect("no panic before");
        String::from_utf8(kept.clone()).expect("UTF-8")
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic before").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Nobody reads it, until the test does.
struct Stalled {
    began: Sender<()>,
    goes_on: Receiver<()>,
    kept: Kept,
}

impl Write for Stalled {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.began.send(());
        // The other end is dropped when it may go on.
        let _ = self.goes_on.recv();
        self.kept.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A queue whose thread is held in its first line, what lets it go on, and what it writes.
fn stalled() -> (LineQueue, Sender<()>, Kept) {
    let (began, has_begun) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    let kept = Kept::default();
    let queue = queue_to(Stalled {
        began,
        goes_on,
        kept: kept.clone(),
    });
    queue.push(b"first\n");
    has_begun.recv().expect("the thread writes");
    (queue, go_on, kept)
}

#[test]
fn lines_without_room_are_dropped_and_counted() {
    let (queue, go_on, kept) = stalled();
    for _ in 0..LINES_MAX + 2 {
        queue.push(b"a\n");
    }
    assert_eq!(queue.room.counters.dropped.get(), 3);
    queue.push_last_word(b"why\n");
    assert_eq!(queue.room.counters.dropped.get(), 3);
    queue.flush(Duration::ZERO);
    assert_eq!(
        queue.room.lock().dropped,
        3,
        "not told while there is no room"
    );
    drop(go_on);
    queue.flush(PATIENCE);
    let text = kept.text();
    assert_eq!(text.lines().count(), LINES_MAX + 1);
    assert!(text.ends_with("a\nwhy\n"));
    let waiting = queue.room.lock();
    assert_eq!((waiting.lines, waiting.bytes, waiting.dropped), (0, 0, 0));
}

#[test]
fn bytes_have_a_bound_as_lines_have() {
    let (queue, go_on, kept) = stalled();
    queue.push(&vec![b'a'; BYTES_MAX]);
    assert_eq!(
        queue.room.counters.dropped.get(),
        1,
        "the first line waits too"
    );
    queue.push(&vec![b'a'; BYTES_MAX - b"first\n".len()]);
    assert_eq!(queue.room.counters.dropped.get(), 1);
    queue.push(b"\n");
    assert_eq!(queue.room.counters.dropped.get(), 2);
    queue.push_last_word(b"why\n");
    drop(go_on);
    queue.flush(PATIENCE);
    assert_eq!(kept.text().len(), BYTES_MAX + b"why\n".len());
}

#[test]
fn as_many_last_words_as_have_room_are_none_too_many_for_the_crate() {
    let (queue, go_on, kept) = stalled();
    (1..LINES_MAX).for_each(|_| queue.push(b"a\n"));
    (0..LAST_LINES_MAX).for_each(|_| queue.push_last_word(b"why\n"));
    assert_eq!(queue.room.counters.dropped.get(), 0);
    queue.push_last_word(b"why\n");
    assert_eq!(queue.room.counters.dropped.get(), 1);
    assert_eq!(queue.lines.error_counter().dropped_lines(), 0);
    drop(go_on);
    queue.flush(PATIENCE);
    assert_eq!(kept.text().lines().count(), LINES_MAX + LAST_LINES_MAX);
}

/// Takes so many bytes, refuses once, and takes the rest.
struct Filling {
    kept: Kept,
    room: Option<usize>,
}

impl Write for Filling {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let Some(room) = &mut self.room else {
            return self.kept.write(bytes);
        };
        let count = bytes.len().min(*room);
        *room -= count;
        if count == 0 {
            self.room = None;
            return Err(ErrorKind::StorageFull.into());
        }
        self.kept.write(&bytes[..count])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_write_that_fails_is_counted_and_ends_nothing() {
    let kept = Kept::default();
    let queue = queue_to(Filling {
        kept: kept.clone(),
        room: Some(0),
    });
    queue.push(b"lost\n");
    queue.push(b"kept\n");
    queue.flush(PATIENCE);
    assert_eq!(queue.room.counters.failed.get(), 1);
    assert_eq!(kept.text(), "kept\n");
}

#[test]
fn a_torn_line_does_not_take_the_next_one_with_it() {
    let kept = Kept::default();
    let queue = queue_to(Filling {
        kept: kept.clone(),
        room: Some(3),
    });
    queue.push(b"torn\n");
    queue.push(b"kept\n");
    queue.flush(PATIENCE);
    assert_eq!(kept.text(), "tor\nkept\n");
}

/// A pipe that does not block; tells when it is full.
struct Shared(UnixStream, Sender<()>);

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
    let line = [vec![b'a'; 499], b"\n".to_vec()].concat();
    let (near, mut far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let (is_full, full) = mpsc::channel();
    let queue = queue_to(Shared(near, is_full));
    (0..COUNT).for_each(|_| queue.push(&line));
    full.recv().unwrap();
    let mut read = vec![0; COUNT * line.len()];
    far.read_exact(&mut read).unwrap();
    queue.flush(PATIENCE);
    assert_eq!(queue.room.counters.failed.get(), 0);
    assert!(read.chunks(line.len()).all(|chunk| chunk == line));
}
