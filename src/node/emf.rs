//! Writes a line for CloudWatch on standard output once a minute, where `telemetry.emf_namespace` is set.
//!
//! In: all that is counted. Out: lines ([`crate::telemetry::emf`]). Owner: a thread of its own, so that a
//! reader who is slow holds nobody up. What standard output does not take at once is tried again every second,
//! and a line of which nothing went is replaced by the next one: so each line is whole, and no two minutes
//! are in one. That it takes nothing is told once, and once when it takes lines again. Bound: two lines.

use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::millis;
use crate::config::Config;
use crate::tasks;
use crate::telemetry::emf::Frame;
use crate::telemetry::metrics::Metrics;

/// CloudWatch keeps metrics by the minute.
const EVERY: Duration = Duration::from_secs(60);
/// How long after a part that was not taken the rest is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the first line waits for the node to be ready: a service that has just started is scaled by
/// it, and is not to be told that it is not ready because a probe has not come back yet.
const START: Duration = Duration::from_secs(15);
/// How often it is looked whether it is.
const LOOK: Duration = Duration::from_millis(50);

/// Starts the thread, where lines are wanted. The first line comes as soon as the node is ready, or after
/// [`START`].
///
/// # Errors
/// What the operating system says when it has no thread to give.
pub(super) fn start(config: &Config, metrics: &Arc<Metrics>) -> io::Result<()> {
    let Some(frame) = Frame::of(&config.telemetry, config.server.node_id.as_str()) else {
        return Ok(());
    };
    let metrics = Arc::clone(metrics);
    let run = move || {
        let began = Instant::now();
        while metrics.control.ready.get() == 0 && began.elapsed() < START {
            std::thread::sleep(LOOK);
        }
        let mut lines = Lines::default();
        loop {
            let next = Instant::now() + EVERY;
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            lines.put(&frame.line(&metrics.families(), now.map_or(0, millis)));
            while !lines.write(&mut Stdout) && Instant::now() + AGAIN < next {
                std::thread::sleep(AGAIN);
            }
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    };
    tasks::contained_thread("emf", run).map(drop)
}

/// Standard output without the buffer of the standard library, which would keep the begin of a line that is
/// not taken, and not tell how much went.
struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stdout = io::stdout().lock();
        Ok(rustix::io::write(stdout.as_fd(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is still to be written.
#[derive(Debug, Default)]
struct Lines {
    /// The rest of a line of which something went.
    begun: Vec<u8>,
    /// A line of which nothing went.
    whole: Vec<u8>,
    is_told: bool,
}

impl Lines {
    fn put(&mut self, line: &str) {
        self.whole.clear();
        self.whole.extend_from_slice(line.as_bytes());
        self.whole.push(b'\n');
    }

    /// Writes what is taken, and returns whether that is all.
    fn write(&mut self, out: &mut impl Write) -> bool {
        match self.push(out) {
            Ok(()) => {
                if std::mem::take(&mut self.is_told) {
                    let text = "standard output takes lines for CloudWatch again";
                    tracing::info!(event = "emf_recovered", "{text}");
                }
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_told, true) {
                    tracing::warn!(
                        event = "emf_failed",
                        error = &error as &(dyn std::error::Error + 'static),
                        "standard output takes no lines for CloudWatch; it is tried again every second"
                    );
                }
                false
            }
        }
    }

    fn push(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.end_begun(out)?;
        if self.whole.is_empty() {
            return Ok(());
        }
        let count = write_some(out, &self.whole)?;
        self.begun.extend_from_slice(&self.whole[count..]);
        self.whole.clear();
        self.end_begun(out)
    }

    fn end_begun(&mut self, out: &mut impl Write) -> io::Result<()> {
        while !self.begun.is_empty() {
            let count = write_some(out, &self.begun)?;
            self.begun.drain(..count);
        }
        Ok(())
    }
}

/// Writes at least one byte, or errs.
fn write_some(out: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes and no more.
    struct Narrow {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= count;
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_has_begun_is_ended_and_one_that_has_not_is_replaced() {
        let mut out = Narrow {
            taken: Vec::new(),
            room: 3,
        };
        let mut lines = Lines::default();
        for (line, room, is_all) in [
            ("first", 0, false),
            ("second", 0, false),
            ("third", 3, false),
            ("fourth", 0, false),
            ("fifth", 100, true),
            ("sixth", 100, true),
        ] {
            out.room += room;
            lines.put(line);
            assert_eq!(lines.write(&mut out), is_all, "{line}");
        }
        let text = String::from_utf8(out.taken).unwrap();
        assert_eq!(text, "first\nfifth\nsixth\n");
    }
}
