//! How bad a run is, and what all runs have met.
//!
//! In: a seed's first draws. Out: chances and bounds. In one run of five or more everything is fair:
//! nothing is lost, doubled, reordered or cut off, and there is room everywhere.

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::client::Told;
use super::feed::Fate;

/// How often what was met.
#[derive(Debug, Default)]
pub(super) struct Met {
    pub(super) told: Told,
    pub(super) replayed: u64,
    pub(super) repaired: u64,
    pub(super) duplicates: u64,
    pub(super) owed: u64,
    pub(super) taken_back: u64,
    pub(super) fair_runs: u64,
}

impl Met {
    pub(super) fn counts(&self) -> [(&'static str, u64); 9] {
        [
            ("messages", self.told.messages),
            ("gaps", self.told.gaps),
            ("stays", self.told.stays),
            ("replayed messages", self.replayed),
            ("repaired messages", self.repaired),
            ("doubled messages", self.duplicates),
            ("full queues", self.owed),
            ("messages taken back", self.taken_back),
            ("runs in fair weather", self.fair_runs),
        ]
    }
}

/// How bad this run is, in chances of 1.
#[derive(Debug)]
pub(super) struct Weather {
    lose: f64,
    double: f64,
    pub(super) reorder: f64,
    pub(super) silence: f64,
    pub(super) cut: f64,
    pub(super) queue_max: usize,
    pub(super) messages_max: usize,
}

impl Weather {
    pub(super) fn new(rng: &mut StdRng) -> Self {
        let is_fair = rng.random_bool(0.2);
        let mut upto = |most: f64| match !is_fair && rng.random_bool(0.5) {
            true => rng.random_range(0.0..most),
            false => 0.0,
        };
        let (lose, double, reorder) = (upto(0.2), upto(0.3), upto(0.3));
        let (silence, cut) = (upto(0.3), upto(0.03));
        let narrow = |is_narrow: f64, narrow: usize| match is_narrow > 0.0 {
            true => narrow,
            false => 1_000,
        };
        Self {
            lose,
            double,
            reorder,
            silence,
            cut,
            queue_max: narrow(upto(1.0), 3),
            messages_max: narrow(upto(1.0), 4),
        }
    }

    /// Nothing on the way of a message goes wrong.
    pub(super) fn is_fair(&self) -> bool {
        self.lose + self.double + self.reorder + self.cut == 0.0
            && self.queue_max.min(self.messages_max) == 1_000
    }

    /// What becomes of the next message on the connection.
    pub(super) fn fate(&self, rng: &mut StdRng) -> Fate {
        match rng.random_range(0.0..1.0) {
            n if n < self.lose => Fate::Lost,
            n if n < self.lose + self.double => Fate::Doubled,
            _ => Fate::Arrives,
        }
    }
}
