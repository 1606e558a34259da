//! Writes a line for CloudWatch on standard output once a minute, where `telemetry.emf_namespace` is set.
//!
//! In: all that is counted. Out: lines ([`crate::telemetry::emf`]). Owner: a thread of its own, so that a
//! reader who is slow holds nobody up. A line that cannot be written is told once, and no other follows:
//! whoever took them has gone.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::millis;
use crate::config::Config;
use crate::tasks;
use crate::telemetry::emf::Frame;
use crate::telemetry::metrics::Metrics;

/// CloudWatch keeps metrics by the minute.
const EVERY: Duration = Duration::from_secs(60);

/// Starts the thread, where lines are wanted. The first line comes at once, so that a service that has
/// just started is scaled by it.
///
/// # Errors
/// What the operating system says when it has no thread to give.
pub(super) fn start(config: &Config, metrics: &Arc<Metrics>) -> io::Result<()> {
    let Some(frame) = Frame::of(&config.telemetry, config.server.node_id.as_str()) else {
        return Ok(());
    };
    let metrics = Arc::clone(metrics);
    let run = move || {
        loop {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let line = frame.line(&metrics.families(), now.map_or(0, millis));
            if let Err(error) = write(&line) {
                tracing::warn!(
                    event = "emf_failed",
                    error = &error as &(dyn std::error::Error + 'static),
                    "standard output takes no lines for CloudWatch; no more are written"
                );
                return;
            }
            std::thread::sleep(EVERY);
        }
    };
    tasks::contained_thread("emf", run).map(drop)
}

fn write(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
