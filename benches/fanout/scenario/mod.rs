//! What is measured: one file for each kind of question, one function for each scenario.
//!
//! In: the [`Effort`]. Out: rows of the report. Each scenario starts a node of its own, which
//! ends with it.

pub(crate) mod connect;
pub(crate) mod fan;
pub(crate) mod idle;
pub(crate) mod inbox;
pub(crate) mod lanes;
pub(crate) mod slow;

use crate::stage::Engine;

/// How thorough a run of the bench is.
#[derive(Debug)]
pub(crate) struct Effort {
    /// How often each figure is taken.
    pub(crate) runs: usize,
    /// Only to see that everything works: less of everything.
    pub(crate) quick: bool,
    /// Over what: at least one.
    pub(crate) engines: Vec<Engine>,
}

impl Effort {
    /// So many, or with `--quick` a part of it.
    pub(crate) fn count(&self, whole: u64, quick: u64) -> u64 {
        if self.quick { quick } else { whole }
    }

    /// The engine for what does not depend on it: the embedded one, unless another is named.
    pub(crate) fn engine(&self) -> Engine {
        self.engines[0]
    }
}
