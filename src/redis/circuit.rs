//! The circuit breaker of one command link: whether commands are sent to Redis at all.
//!
//! In: what the link's supervisor finds out. Out: the phase, which every command asks first, and
//! which health and metrics show. Owner of the phase: the supervisor alone turns it. Bounds: none
//! needed; while it is not closed every command is refused at once as surely not done, so nothing
//! piles up behind a Redis that does not answer.
//!
//! ```text
//!             connection lost, probe failed
//!   closed ─────────────────────────────────▶ open ◀─────────────┐
//!      ▲                                        │ connected      │ probe failed
//!      └──────────── probe answered ──────── half-open ──────────┘
//! ```

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::RedisError;
use super::refusal::Refusal;
use crate::telemetry::metrics::{Counter, Metrics};

/// The state of a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Commands are sent.
    Closed,
    /// There is a connection, and only the supervisor's probe may use it.
    HalfOpen,
    /// Redis cannot be used.
    Open,
}

impl Phase {
    /// The word for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// Why commands are not sent.
#[derive(Debug, Clone)]
pub struct Away {
    /// For people.
    pub reason: Arc<str>,
    /// In which word the server refuses, if it is that.
    pub refusal: Option<&'static Refusal>,
}

/// See the module.
#[derive(Debug)]
pub struct Circuit {
    /// The phase, and why it is not closed.
    state: RwLock<(Phase, Away)>,
    metrics: Arc<Metrics>,
}

impl Circuit {
    /// Open, because nothing was reached yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        metrics.control.circuits_open.add(1);
        Self {
            state: RwLock::new((Phase::Open, away("Redis is not reached yet", None))),
            metrics,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state().0
    }

    /// Why no command may be sent, while none may.
    #[must_use]
    pub fn reason(&self) -> Option<Arc<str>> {
        match &*self.state() {
            (Phase::Closed, _) => None,
            (_, why) => Some(Arc::clone(&why.reason)),
        }
    }

    /// Whether a command may be sent.
    ///
    /// # Errors
    /// [`RedisError::Circuit`] with the reason, while it may not.
    pub fn pass(&self) -> Result<(), RedisError> {
        match &*self.state() {
            (Phase::Closed, _) => Ok(()),
            (_, why) => Err(RedisError::Circuit(why.clone())),
        }
    }

    /// The probe was answered.
    pub fn close(&self) {
        self.turn(Phase::Closed, None);
    }

    /// There is a connection to be probed. Why it was open stays known.
    pub fn half_open(&self) {
        self.turn(Phase::HalfOpen, None);
    }

    /// Redis cannot be used, and why.
    pub fn open(&self, reason: &str, refusal: Option<&'static Refusal>) {
        self.turn(Phase::Open, Some(away(reason, refusal)));
    }

    /// It still cannot be used, for the reason reported before.
    pub fn reopen(&self) {
        self.turn(Phase::Open, None);
    }

    fn turn(&self, to: Phase, why: Option<Away>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let from = std::mem::replace(&mut state.0, to);
        if let Some(why) = why {
            state.1 = why;
        }
        if from != to {
            self.gauge(from).sub(1);
            self.gauge(to).add(1);
            let control = &self.metrics.control;
            match to {
                Phase::Closed => &control.circuits_closed_total,
                Phase::HalfOpen => &control.circuits_half_opened_total,
                Phase::Open => &control.circuits_opened_total,
            }
            .add(1);
        }
    }

    fn gauge(&self, phase: Phase) -> &Counter {
        let control = &self.metrics.control;
        match phase {
            Phase::Closed => &control.circuits_closed,
            Phase::HalfOpen => &control.circuits_half_open,
            Phase::Open => &control.circuits_open,
        }
    }

    fn state(&self) -> RwLockReadGuard<'_, (Phase, Away)> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn away(reason: &str, refusal: Option<&'static Refusal>) -> Away {
    Away {
        reason: reason.into(),
        refusal,
    }
}

impl Drop for Circuit {
    fn drop(&mut self) {
        self.gauge(self.phase()).sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(metrics: &Metrics) -> [u64; 3] {
        let control = &metrics.control;
        [
            control.circuits_closed.get(),
            control.circuits_half_open.get(),
            control.circuits_open.get(),
        ]
    }

    #[test]
    fn only_a_closed_circuit_lets_commands_through_and_the_others_say_why() {
        let circuit = Circuit::new(Arc::new(Metrics::new(0)));
        let refusal = |circuit: &Circuit| circuit.pass().unwrap_err().to_string();
        assert_eq!(refusal(&circuit), "not done: Redis is not reached yet");
        circuit.half_open();
        assert_eq!(refusal(&circuit), "not done: Redis is not reached yet");
        circuit.close();
        assert!(circuit.pass().is_ok());
        assert_eq!(circuit.reason(), None);
        circuit.open("it hangs", None);
        circuit.half_open();
        circuit.reopen();
        assert_eq!(refusal(&circuit), "not done: it hangs");
        assert!(circuit.pass().unwrap_err().is_not_done());
    }

    #[test]
    fn each_circuit_counts_once_and_each_turn_once() {
        let metrics = Arc::new(Metrics::new(0));
        let [first, second] = [(); 2].map(|()| Circuit::new(Arc::clone(&metrics)));
        assert_eq!(counts(&metrics), [0, 0, 2]);
        first.half_open();
        first.close();
        first.close();
        second.open("still away", None);
        assert_eq!(counts(&metrics), [1, 0, 1]);
        let control = &metrics.control;
        let turns = [
            control.circuits_closed_total.get(),
            control.circuits_half_opened_total.get(),
            control.circuits_opened_total.get(),
        ];
        assert_eq!(turns, [1, 1, 0]);
        drop(second);
        assert_eq!(counts(&metrics), [1, 0, 0]);
    }
}
