//! How full the memory of a master of Redis is, as it says itself.
//!
//! In: a link that answers, every [`LOOK_EVERY`]. Out: the part of `maxmemory` that is used, in percent,
//! by which entries of the queue are refused before Redis refuses all writes. A server without a bound,
//! or that refuses to tell, has none. One a master; looked at by the supervisor of its urgent link
//! alone.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::redis::RedisLink;

/// How often it is read. INFO takes Redis some 20 microseconds.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub struct Fullness(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    percent: Option<u8>,
    looked_at: Option<Instant>,
}

impl Fullness {
    /// Percent of `maxmemory` in use, at most 100; `None`: it has no bound, or is not known.
    #[must_use]
    pub fn percent(&self) -> Option<u8> {
        self.lock().percent
    }

    /// Reads it where it is time to. `is_new`: nothing was asked of this connection yet.
    pub async fn look(&self, link: &RedisLink, is_new: bool) {
        if !self.is_due(is_new, Instant::now()) {
            return;
        }
        let answer = link.command("INFO", "memory", &[]).await;
        let text = answer.ok().and_then(|answer| answer.as_string());
        self.lock().percent = text.as_deref().and_then(percent_of);
    }

    fn is_due(&self, is_new: bool, now: Instant) -> bool {
        let mut state = self.lock();
        let is_over = |at: Instant| now.saturating_duration_since(at) >= LOOK_EVERY;
        let is_due = is_new || state.looked_at.is_none_or(is_over);
        if is_due {
            state.looked_at = Some(now);
        }
        is_due
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `INFO memory` says.
fn percent_of(info: &str) -> Option<u8> {
    let number = |name: &str| -> Option<u64> {
        let line = info.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    let (used, most) = (number("used_memory:")?, number("maxmemory:")?);
    let percent = used.saturating_mul(100).checked_div(most)?;
    Some(u8::try_from(percent.min(100)).unwrap_or(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_in_use_is_read_where_there_is_a_bound() {
        let info = |used, most| {
            format!(
                "# Memory\r\nused_memory:{used}\r\nused_memory_human:1M\r\nmaxmemory:{most}\r\n"
            )
        };
        assert_eq!(percent_of(&info(850, 1_000)), Some(85));
        assert_eq!(percent_of(&info(2_000, 1_000)), Some(100));
        assert_eq!(percent_of(&info(850, 0)), None);
        assert_eq!(percent_of("# Memory\r\n"), None);
    }
}
