//! Writes the performance history, and judges by it what is wrong.
//!
//! In: the instruments, once a second. Out: the history ([`History`]); every `health.interval_s` how each
//! alert stands, and one line of the log where one is raised or cleared. Owner of the recorder and of
//! the judge: a thread of its own, because a runtime may be what is slow. Bound: those of the history,
//! and one cell for each alert.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::tasks::{self, turns};
use crate::telemetry::alerts::judge::{Judge, Judgement};
use crate::telemetry::alerts::seen::{Known, Seen};
use crate::telemetry::alerts::{Alert, Thresholds};
use crate::telemetry::family::Label as _;
use crate::telemetry::history::growth::Verdict;
use crate::telemetry::history::reading::Reading;
use crate::telemetry::history::{History, Recorder};
use crate::telemetry::metrics::Metrics;

const SECOND: Duration = Duration::from_secs(1);
/// So long the longest piece of work stands for what is in work: longer than from one scrape to the next.
const LONGEST_STANDS: Duration = Duration::from_secs(60);
/// How often it is looked whether memory grows, of which nothing new is known sooner.
const GROWTH_EVERY: Duration = Duration::from_secs(60);

/// Starts the thread; it runs as long as the process.
///
/// # Errors
/// What the operating system says when it has no thread to give.
pub(super) fn start(
    config: &Config,
    metrics: &Arc<Metrics>,
    history: &Arc<History>,
    recorder: Recorder,
) -> io::Result<()> {
    let thresholds = Thresholds::of(&config.alerts);
    let mut watch = Watch {
        metrics: Arc::clone(metrics),
        history: Arc::clone(history),
        recorder,
        growth_max: thresholds.get(Alert::MemoryGrowing),
        growth_percent: None,
        growth_due_at: Instant::now() + GROWTH_EVERY,
        longest: (Duration::ZERO, Instant::now()),
        judge: Judge::new(thresholds),
    };
    let interval = config.health.interval;
    let run = move || watch.run(interval);
    tasks::vital_thread("performance".to_owned(), run).map(drop)
}

/// See the module.
struct Watch {
    metrics: Arc<Metrics>,
    history: Arc<History>,
    recorder: Recorder,
    growth_max: Option<f64>,
    /// By how much memory grows, where that was suspected to be a leak.
    growth_percent: Option<f64>,
    growth_due_at: Instant,
    /// The longest piece of work, and when it was seen.
    longest: (Duration, Instant),
    judge: Judge,
}

impl Watch {
    fn run(&mut self, interval: Duration) {
        let mut tick_at = Instant::now();
        let mut look_at = tick_at + interval;
        let mut before = (Reading::take(&self.metrics, tick_at), tick_at);
        loop {
            let now = Instant::now();
            // What was missed is not made up for: the next point is longer.
            tick_at = (tick_at + SECOND).max(now);
            std::thread::sleep(tick_at - now);
            let now = Instant::now();
            let reading = Reading::take(&self.metrics, now);
            let (begun_ms, ended_ms) = (self.history.ms(before.1), self.history.ms(now));
            self.recorder
                .record(&reading.since(&before.0, begun_ms, ended_ms));
            before = (reading, now);
            if now >= look_at {
                look_at = now + interval;
                self.look(now);
            }
        }
    }

    fn look(&mut self, now: Instant) {
        if let Some(percent_max) = self.growth_max
            && now >= self.growth_due_at
        {
            self.growth_due_at = now + GROWTH_EVERY;
            let growth = self.history.growth(percent_max);
            let is_suspected = growth.verdict == Verdict::Suspected;
            self.growth_percent = is_suspected.then_some(growth.percent);
        }
        let known = Known {
            memory_bytes_max: self.metrics.facts().memory_bytes_max,
            queue_oldest: self.metrics.queue.oldest(),
            growth_percent: self.growth_percent,
            longest: self.longest(now),
        };
        let seen = Seen::of(&self.history, known, now);
        for judgement in self.judge.look(&seen) {
            let Judgement { alert, value, .. } = judgement;
            self.metrics
                .alerts
                .of(alert)
                .set(judgement.is_raised, value);
            if judgement.is_news {
                tell(&judgement);
            }
        }
    }

    /// The longest of what ended in the last minute, and of parts that do not turn.
    fn longest(&mut self, now: Instant) -> Duration {
        let newest = self.newest_longest();
        self.longest = longer(self.longest, newest, now);
        self.longest.0
    }

    /// The longest of what ended since the last look, and of parts that do not turn.
    fn newest_longest(&self) -> Duration {
        let metrics = &self.metrics;
        let commands = metrics.workers.iter().map(|worker| worker.longest.take());
        let others = [metrics.api.longest.take(), metrics.queue.longest.take()];
        let hanging = turns::silences().into_iter().map(|silence| silence.lasts);
        let all = commands.chain(others).chain(hanging);
        all.max().unwrap_or_default()
    }
}

/// What stands as the longest after a look that found this.
fn longer(stands: (Duration, Instant), found: Duration, now: Instant) -> (Duration, Instant) {
    let is_over = now.saturating_duration_since(stands.1) >= LONGEST_STANDS;
    if is_over || found >= stands.0 {
        (found, now)
    } else {
        stands
    }
}

fn tell(judgement: &Judgement) {
    let Judgement {
        alert,
        is_raised,
        value,
        threshold,
        ..
    } = *judgement;
    let (alert, unit) = (alert.word(), alert.unit());
    if is_raised {
        tracing::warn!(
            event = "alert_raised",
            alert,
            value,
            threshold,
            unit,
            "something is above its limit (alerts)"
        );
    } else {
        tracing::info!(
            event = "alert_cleared",
            alert,
            value,
            threshold,
            unit,
            "it is well below its limit again"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_long_stands_for_a_minute() {
        let (begun, second) = (Instant::now(), Duration::from_secs(1));
        let mut stands = (Duration::ZERO, begun);
        let mut look = |found_s: u32, at_s: u32| {
            stands = longer(stands, found_s * second, begun + at_s * second);
            stands.0.as_secs()
        };
        assert_eq!(look(1, 10), 1);
        assert_eq!(look(40, 20), 40);
        assert_eq!((look(0, 30), look(2, 79)), (40, 40));
        assert_eq!(look(3, 80), 3);
    }
}
