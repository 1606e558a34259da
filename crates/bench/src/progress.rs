//! The line that tells a person on a terminal how far a load is.
//!
//! In: a sentence, made anew a few times a second. Out: one line on stderr that is overwritten,
//! and gone at the end. Where stderr is no terminal nothing is written.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

/// How often the line is written.
const EVERY: Duration = Duration::from_millis(250);

/// A line on stderr.
#[derive(Debug)]
pub struct Progress {
    is_on: bool,
}

impl Progress {
    /// On a terminal.
    #[must_use]
    pub fn on_terminal() -> Self {
        Self {
            is_on: std::io::stderr().is_terminal(),
        }
    }

    /// Shows `line` until `work` is done.
    pub async fn during<T>(&self, line: impl Fn() -> String, work: impl Future<Output = T>) -> T {
        if !self.is_on {
            return work.await;
        }
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        tokio::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => {
                    write("");
                    return result;
                }
                _ = ticks.tick() => write(&line()),
            }
        }
    }
}

/// Overwrites the line. Nobody can be told when that fails.
fn write(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
}
