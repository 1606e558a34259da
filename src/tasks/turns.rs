//! Which parts of the node still take turns, and for how long the others have not.
//!
//! In: stamps, one in each turn of a part's loop ([`Stamp::turned`]); what idles turns by a timer, at
//! least once in [`IDLE_TURN`]. Out: reasons for readiness ([`missed`]) and liveness ([`lost`]), the
//! age of each stamp for the details of health ([`silences`]), and a line in the log for each
//! change. Owner: a part has its [`Stamp`], and is not judged any more when that is dropped; a thread
//! of its own judges ([`start`]), because a runtime may be what hangs. Bound: one entry a part, that
//! is workers, masters of Redis and some ten more.
//!
//! Time counts only as the judge has seen it pass ([`super::running`]): of what lies between two of its
//! looks, at most a second. So a process that was stopped, or a machine that was paused, finds none of its parts
//! late when it goes on.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::MissedTickBehavior;

use super::running::CLOCK;
use crate::telemetry::process;

/// How often what has nothing to do turns all the same.
pub const IDLE_TURN: Duration = Duration::from_secs(1);
/// After so long without a turn of one of its parts a node is not ready. Five turns of an idle part: a
/// machine that is busy leaves out one or two.
pub const MISSED_AFTER: Duration = Duration::from_secs(5);
/// A part is late that has left out a turn.
const LATE_AFTER: Duration = Duration::from_secs(2);
/// How often the judge looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The parts of this process.
static TURNS: LazyLock<Turns> = LazyLock::new(Turns::default);

/// How long a part has not turned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// Which.
    pub part: String,
    /// As the judge has seen it: to [`LOOK_EVERY`].
    pub lasts: Duration,
}

impl Silence {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        format!(
            "{} has not turned for {} s",
            self.part,
            self.lasts.as_secs()
        )
    }

    /// Whether the node is not ready by it.
    #[must_use]
    pub fn is_missed(&self) -> bool {
        self.lasts >= MISSED_AFTER
    }
}

/// What a part stamps its turns with.
#[derive(Debug)]
pub struct Stamp(Arc<Part>);

#[derive(Debug)]
struct Part {
    name: String,
    /// Its turns so far. The part alone writes it.
    turns_count: AtomicU64,
    /// The same at the last look.
    seen_count: AtomicU64,
    /// Since when there is no other number, in milliseconds. The judge alone writes both.
    silent_ms: AtomicU64,
}

impl Stamp {
    /// Says that the part takes a turn. HOT: a load and a store, and no clock.
    pub fn turned(&self) {
        let count = self.0.turns_count.load(Relaxed);
        self.0.turns_count.store(count.wrapping_add(1), Relaxed);
    }
}

impl Part {
    fn silence(&self) -> Silence {
        Silence {
            part: self.name.clone(),
            lasts: Duration::from_millis(self.silent_ms.load(Relaxed)),
        }
    }

    fn look(&self, passed: Duration) {
        let count = self.turns_count.load(Relaxed);
        let silent_ms = match self.seen_count.swap(count, Relaxed) == count {
            true => self.silent_ms.load(Relaxed) + millis(passed),
            false => 0,
        };
        self.silent_ms.store(silent_ms, Relaxed);
    }
}

/// The parts of a process.
#[derive(Debug, Default)]
struct Turns {
    parts: Mutex<Vec<Weak<Part>>>,
    /// See [`start`]; 0: never.
    stuck_ms: AtomicU64,
}

impl Turns {
    fn parts(&self) -> MutexGuard<'_, Vec<Weak<Part>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stamp(&self, name: String) -> Stamp {
        let part = Arc::new(Part {
            name,
            turns_count: AtomicU64::new(0),
            seen_count: AtomicU64::new(0),
            silent_ms: AtomicU64::new(0),
        });
        let mut parts = self.parts();
        parts.retain(|part| part.strong_count() > 0);
        parts.push(Arc::downgrade(&part));
        Stamp(part)
    }

    fn look(&self, passed: Duration) {
        for part in self.parts().iter().filter_map(Weak::upgrade) {
            part.look(passed);
        }
    }

    fn silences(&self) -> Vec<Silence> {
        let parts = self.parts();
        let parts = parts.iter().filter_map(Weak::upgrade);
        parts.map(|part| part.silence()).collect()
    }

    fn is_lost(&self, silence: &Silence) -> bool {
        let stuck_ms = self.stuck_ms.load(Relaxed);
        stuck_ms > 0 && millis(silence.lasts) >= stuck_ms
    }
}

/// Begins to judge a part of this name; whoever holds the stamp is to turn from now on.
#[must_use]
pub fn stamp(name: String) -> Stamp {
    TURNS.stamp(name)
}

/// Turns with each poll of a task, and polls it at least once in [`IDLE_TURN`]: for a part that waits for
/// many things, and hangs only where it keeps its thread.
pub async fn polled<F: Future>(name: &'static str, task: F) -> F::Output {
    let stamp = stamp(name.to_owned());
    let (mut task, mut idle) = (pin!(task), tokio::time::interval(IDLE_TURN));
    idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
    poll_fn(|cx| {
        stamp.turned();
        // Polled until it has registered whom to wake.
        while idle.poll_tick(cx).is_ready() {}
        task.as_mut().poll(cx)
    })
    .await
}

/// How long each part has not turned, in the order in which they began.
#[must_use]
pub fn silences() -> Vec<Silence> {
    TURNS.silences()
}

/// Why the node is not ready, for people.
#[must_use]
pub fn missed() -> Vec<String> {
    let silences = silences().into_iter().filter(Silence::is_missed);
    silences.map(|silence| silence.text()).collect()
}

/// Why the node is not live, for people.
#[must_use]
pub fn lost() -> Vec<String> {
    let silences = silences().into_iter();
    let lost = silences.filter(|silence| TURNS.is_lost(silence));
    lost.map(|silence| silence.text()).collect()
}

/// Starts the thread that judges. A node is not live after so long without a turn of one of its parts;
/// `None`: whatever hangs.
///
/// It also wakes the runtime of the control side while a part is late. Where a task hangs on one of its
/// threads, that may be the one which looked after timers and sockets, and the others sleep until they
/// are woken from outside: then one of them does it, and only what hangs is missed.
///
/// # Errors
/// What the operating system says when it has no thread to give.
pub fn start(stuck: Option<Duration>, control: Handle) -> io::Result<()> {
    TURNS.stuck_ms.store(stuck.map_or(0, millis), Relaxed);
    let run = move || {
        let mut told = Told::default();
        CLOCK.look(Instant::now());
        loop {
            std::thread::sleep(LOOK_EVERY);
            let passed = CLOCK.look(Instant::now());
            process::stalled(CLOCK.stood_up_to_look());
            TURNS.look(passed);
            let silences = TURNS.silences();
            if silences.iter().any(|silence| silence.lasts >= LATE_AFTER) {
                drop(control.spawn(async {}));
            }
            told.tell(&silences, |silence| TURNS.is_lost(silence));
        }
    };
    super::vital_thread("turns".to_owned(), run).map(drop)
}

/// What the log was told.
#[derive(Debug, Default)]
struct Told {
    /// Parts that do not turn, and for how long they have not.
    missed: BTreeMap<String, Duration>,
    is_lost: bool,
}

impl Told {
    fn tell(&mut self, silences: &[Silence], is_lost: impl Fn(&Silence) -> bool) {
        let mut resumed = std::mem::take(&mut self.missed);
        for silence in silences.iter().filter(|silence| silence.is_missed()) {
            let Silence { part, lasts } = silence.clone();
            if resumed.remove(&part).is_none() && !self.missed.contains_key(&part) {
                let text = "a part does not turn; the node is not ready";
                tracing::warn!(event = "turns_missed", part, "{text}");
            }
            self.missed.insert(part, lasts);
        }
        for (part, lasted) in resumed {
            let silent_s = lasted.as_secs();
            let text = "a part turns again, or has ended";
            tracing::info!(event = "turns_resumed", part, silent_s, "{text}");
        }
        let lost: Vec<_> = silences.iter().filter(|silence| is_lost(silence)).collect();
        let was_lost = std::mem::replace(&mut self.is_lost, !lost.is_empty());
        match (was_lost, lost.first()) {
            (false, Some(silence)) => {
                let (part, silent_s) = (&silence.part, silence.lasts.as_secs());
                let text = "a part hangs, and the node is not live: it should be started anew";
                tracing::error!(event = "liveness_lost", part, silent_s, "{text}");
            }
            (true, None) => tracing::info!(event = "liveness_recovered", "the node is live again"),
            _ => {}
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::running::Clock;

    const S: Duration = Duration::from_secs(1);

    fn texts(turns: &Turns, is_it: impl Fn(&Silence) -> bool) -> Vec<String> {
        let silences = turns.silences().into_iter();
        silences.filter(is_it).map(|s| s.text()).collect()
    }

    #[test]
    fn a_part_that_does_not_turn_is_missed_and_then_lost_and_no_other_is() {
        let turns = Turns::default();
        turns.stuck_ms.store(30_000, Relaxed);
        let (hangs, turning) = (turns.stamp("worker 0".into()), turns.stamp("feed".into()));
        for second in 0..40 {
            let missed = texts(&turns, Silence::is_missed);
            let lost = texts(&turns, |silence| turns.is_lost(silence));
            let told = vec![format!("worker 0 has not turned for {second} s")];
            let of = |from| {
                if second < from {
                    Vec::new()
                } else {
                    told.clone()
                }
            };
            assert_eq!((missed, lost), (of(5), of(30)), "{second}");
            turning.turned();
            turns.look(S);
        }
        turns.stuck_ms.store(0, Relaxed);
        assert!(texts(&turns, |silence| turns.is_lost(silence)).is_empty());
        hangs.turned();
        turns.look(S);
        assert!(texts(&turns, Silence::is_missed).is_empty());
    }

    #[test]
    fn a_process_that_stood_still_finds_no_part_late() {
        let turns = Turns::default();
        turns.stuck_ms.store(5_000, Relaxed);
        let part = turns.stamp("worker 0".into());
        let mut now = Instant::now();
        let clock = Clock::new(now);
        clock.look(now);
        for _ in 0..3 {
            now += 600 * S;
            turns.look(clock.look(now));
            assert!(texts(&turns, Silence::is_missed).is_empty());
            now += LOOK_EVERY;
            part.turned();
            turns.look(clock.look(now));
        }
        // What hangs while the judge runs is found all the same.
        for _ in 0..20 {
            now += LOOK_EVERY;
            turns.look(clock.look(now));
        }
        assert_eq!(texts(&turns, |s| turns.is_lost(s)).len(), 1);
    }

    #[test]
    fn what_ended_is_judged_no_more() {
        let turns = Turns::default();
        let (ended, _stays) = (turns.stamp("a".into()), turns.stamp("b".into()));
        drop(ended);
        turns.look(S);
        let names = |turns: &Turns| turns.silences().into_iter().map(|s| s.part);
        assert_eq!(names(&turns).collect::<Vec<_>>(), ["b"]);
        drop(turns.stamp("c".into()));
        let _d = turns.stamp("d".into());
        assert_eq!(turns.parts().len(), 2, "nothing is kept of it");
    }
}
