//! What the log says of publications that are gone: one line a second, however many topics lost.
//!
//! In: each gap that no repair can close. Out: the line `publications_lost` with how many there
//! were since the last one, and the first of them as an example; each single one is told to the
//! sessions that it concerns, and counted. Owned by the dispatcher. Bound: one example.

use std::time::{Duration, Instant};

use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::{Position, Topic};

/// Least time between two lines.
const APART: Duration = Duration::from_secs(1);

/// Gaps since the last line.
#[derive(Debug, Default)]
pub(super) struct Losses {
    gaps: u64,
    first: Option<(Topic, Position, Position, GapReason)>,
    told_at: Option<Instant>,
}

impl Losses {
    /// Takes one gap.
    pub(super) fn add(&mut self, topic: &Topic, from: Position, to: Position, reason: GapReason) {
        self.gaps += 1;
        self.first
            .get_or_insert_with(|| (topic.clone(), from, to, reason));
    }

    /// Whether there are any that no line speaks of.
    pub(super) fn are_untold(&self) -> bool {
        self.first.is_some()
    }

    /// Tells what came since the last line, if that is long enough ago. Returns how many gaps the
    /// line speaks of.
    pub(super) fn tell(&mut self, now: Instant) -> u64 {
        let is_soon = |at: Instant| now.saturating_duration_since(at) < APART;
        if self.told_at.is_some_and(is_soon) {
            return 0;
        }
        let Some((topic, from, to, reason)) = self.first.take() else {
            return 0;
        };
        let gaps = std::mem::take(&mut self.gaps);
        self.told_at = Some(now);
        tracing::warn!(
            event = "publications_lost",
            gaps,
            %topic,
            %from,
            %to,
            reason = reason.name(),
            "publications are gone; the topic is that of the first gap"
        );
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanfare_protocol::ids::App;

    #[test]
    fn gaps_of_one_second_are_one_line() {
        let mut losses = Losses::default();
        let start = Instant::now();
        let lose = |losses: &mut Losses| {
            for n in 0..2_000 {
                let topic = Topic::new(&App::default_app(), &format!("t{n}")).expect("a name");
                let at = Position::default();
                losses.add(&topic, at, at, GapReason::Retention);
            }
        };
        lose(&mut losses);
        assert_eq!(losses.tell(start), 2_000);
        lose(&mut losses);
        assert_eq!(losses.tell(start + APART / 2), 0);
        lose(&mut losses);
        assert_eq!(losses.tell(start + APART), 4_000);
        assert_eq!(losses.tell(start + APART * 3), 0);
    }
}
