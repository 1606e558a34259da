//! What is measured: one file for each kind of question, one function for each scenario.
//!
//! In: the [`Effort`]. Out: rows of the report. Each scenario starts a node of its own, which
//! ends with it.

pub(crate) mod connect;
pub(crate) mod fan;
pub(crate) mod idle;
pub(crate) mod inbox;
pub(crate) mod lanes;
pub(crate) mod redis;
pub(crate) mod slow;
pub(crate) mod unicast;

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use crate::stage::{Engine, Stage};

/// How thorough a run of the bench is.
#[derive(Debug)]
pub(crate) struct Effort {
    /// The numbers of the runs; each figure is taken once in each.
    pub(crate) runs: Range<usize>,
    /// Only to see that everything works: less of everything.
    pub(crate) quick: bool,
    /// Over what: at least one.
    pub(crate) engines: Vec<Engine>,
    /// How long the backlog is kept up.
    pub(crate) backlog: Duration,
    /// Where the node tells of itself, if anywhere.
    pub(crate) collector: Option<String>,
    /// The node's program, where it is not the one of this build.
    pub(crate) program: Option<PathBuf>,
}

impl Effort {
    /// So many, or with `--quick` a part of it.
    pub(crate) fn count(&self, whole: u64, quick: u64) -> u64 {
        if self.quick { quick } else { whole }
    }

    /// A node over this engine.
    pub(crate) async fn stage(&self, engine: Engine) -> Stage {
        Stage::start(engine, self.program.as_deref(), self.collector.as_deref()).await
    }

    /// The engine for what does not depend on it: the embedded one, unless another is named.
    pub(crate) fn engine(&self) -> Engine {
        self.engines[0]
    }
}
