//! Raises and clears alerts, each once.
//!
//! In: the values of each look. Out: which alerts change. Pure. An alert is raised at the first look
//! whose value is the limit or more: what cannot be more than 100 % can reach it. It is cleared after [`CALM_LOOKS`] looks in a row with a value below
//! [`CALM_PART`] of the limit, or with none: what wavers about the limit is told once.
//!
//! ```text
//!           the limit or more
//!   cleared ─────────────────▶ raised
//!      ▲                          │ below nine tenths of it, or nothing to judge by,
//!      └──────────────────────────┘ three looks in a row
//! ```

use super::seen::Seen;
use super::{ALERTS, Alert, Thresholds};
use crate::telemetry::family::Label as _;

/// So many looks in a row must be calm.
const CALM_LOOKS: u32 = 3;
/// Below this part of the limit a look is calm.
const CALM_PART: f64 = 0.9;

/// An alert as it was judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// Which.
    pub alert: Alert,
    /// Whether it is raised.
    pub is_raised: bool,
    /// Whether that is news.
    pub is_news: bool,
    /// By which value; 0 where there was too little to judge by.
    pub value: f64,
    /// The limit.
    pub threshold: f64,
}

/// See the module.
#[derive(Debug)]
pub struct Judge {
    thresholds: Thresholds,
    states: [State; ALERTS],
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    is_raised: bool,
    calm_looks: u32,
}

impl State {
    /// Whether the state is another one now.
    fn look(&mut self, value: Option<f64>, threshold: f64) -> bool {
        let was_raised = self.is_raised;
        let is_calm = value.is_none_or(|value| value < threshold * CALM_PART);
        self.calm_looks = if is_calm { self.calm_looks + 1 } else { 0 };
        if value.is_some_and(|value| value >= threshold) {
            self.is_raised = true;
        } else if self.calm_looks >= CALM_LOOKS {
            self.is_raised = false;
        }
        self.is_raised != was_raised
    }
}

impl Judge {
    /// Nothing is raised.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            states: [State::default(); ALERTS],
        }
    }

    /// Judges all that are on.
    pub fn look(&mut self, seen: &Seen) -> Vec<Judgement> {
        let mut judged = Vec::with_capacity(ALERTS);
        for (alert, state) in Alert::ALL.iter().zip(&mut self.states) {
            let Some(threshold) = self.thresholds.get(*alert) else {
                continue;
            };
            let value = seen.value(*alert);
            let is_news = state.look(value, threshold);
            judged.push(Judgement {
                alert: *alert,
                is_raised: state.is_raised,
                is_news,
                value: value.unwrap_or(0.0),
                threshold,
            });
        }
        judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which looks raise (+) or clear (-), and which change nothing.
    fn told(values: &[Option<f64>]) -> String {
        let mut state = State::default();
        let look = |value: &Option<f64>| match (state.look(*value, 10.0), state.is_raised) {
            (false, _) => '.',
            (true, true) => '+',
            (true, false) => '-',
        };
        values.iter().map(look).collect()
    }

    #[test]
    fn an_alert_is_raised_once_and_cleared_once_when_it_is_calm_for_some_looks() {
        let of = |values: &[f64]| told(&values.iter().copied().map(Some).collect::<Vec<_>>());
        assert_eq!(of(&[9.0, 9.9, 10.0, 50.0, 1.0, 1.0, 1.0, 1.0]), "..+...-.");
        assert_eq!(of(&[11.0, 9.5, 9.5, 9.5, 9.5]), "+....", "not well below");
        assert_eq!(of(&[11.0, 1.0, 1.0, 9.5, 1.0, 1.0, 1.0]), "+.....-");
        assert_eq!(of(&[11.0, 9.9, 11.0, 9.9, 11.0]), "+....", "it wavers");
        assert_eq!(of(&[11.0, 1.0, 1.0, 1.0, 11.0]), "+..-+", "again");
    }

    #[test]
    fn with_nothing_to_judge_by_nothing_is_raised_and_what_is_gets_cleared() {
        assert_eq!(told(&[None, None, Some(11.0), None, None, None]), "..+..-");
    }

    #[test]
    fn what_is_off_is_not_judged() {
        let mut config = crate::config::load::defaults().alerts;
        config.error = None;
        let mut judge = Judge::new(Thresholds::of(&config));
        let judged = judge.look(&Seen::default());
        let alerts: Vec<_> = judged.iter().map(|judged| judged.alert).collect();
        assert_eq!(alerts, Alert::ALL[1..]);
        assert!(judged.iter().all(|judged| !judged.is_raised));
    }
}
