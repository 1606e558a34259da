//! What a scenario runs with: target, meter, progress.
//!
//! In: the shared flags. Out: a [`Bench`]. Bounds: more sessions than files may be open are refused
//! before anything is opened.

use std::time::{Duration, Instant};

use super::error::BenchError;
use super::meter::Meter;
use super::options::Flags;
use super::progress::Progress;
use super::provided::Provided;
use super::report::Report;
use super::target::Target;

/// Files that a load opens beside its sessions: publishers, `/proc`, the runtime.
const FILES_BESIDE: u64 = 200;

/// What a scenario runs with.
pub struct Bench {
    /// What the load is run against.
    pub target: Target,
    /// What watches the cost.
    pub meter: Meter,
    /// What a person sees meanwhile.
    pub progress: Progress,
    /// How many sessions connect at the same time.
    pub at_once: usize,
    /// How long nothing may come before the rest counts as missing.
    pub patience: Duration,
    /// From when on times are counted.
    pub begin: Instant,
}

impl Bench {
    /// Reads the flags, checks what can be checked, and begins to watch.
    ///
    /// # Errors
    /// [`BenchError`] for flags that do not fit this machine or each other.
    pub async fn new(
        flags: Flags<'_>,
        sessions: usize,
        provided: Provided,
    ) -> Result<Self, BenchError> {
        let limit = provided.files_max;
        let needed = (sessions as u64).saturating_add(FILES_BESIDE);
        if needed > limit {
            return Err(BenchError::Files {
                sessions,
                needed,
                limit,
            });
        }
        let common = flags.common;
        Ok(Self {
            target: Target::new(&common.target, flags.users, flags.protocol, provided).await?,
            meter: Meter::start(&common.pids)?,
            progress: Progress::on_terminal(),
            at_once: common.at_once,
            patience: common.patience,
            begin: Instant::now(),
        })
    }

    /// A report of this target, without figures.
    #[must_use]
    pub fn report(&self, scenario: &'static str, sessions: usize) -> Report {
        let mut report = Report::new(scenario, &self.target.protocol, &self.target.url);
        report.setting("sessions", sessions);
        report
    }
}
