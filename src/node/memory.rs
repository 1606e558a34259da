//! Looks after the node's resident memory and tells the door when it is short.
//!
//! In: what the operating system says of this process, twice a second. Out: a flag in
//! [`Admission`], and one line in the log for each change. Bound: `admission.memory_bytes_max`; what
//! a node takes in between two looks is a few megabytes. Where the system does not tell the number,
//! nobody is refused.

use std::sync::Arc;
use std::time::Duration;

use crate::ingress::admission::Admission;
use crate::tasks;
use crate::telemetry::process;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Looks until the process ends.
pub(super) fn watch(admission: Arc<Admission>, bytes_max: u64) {
    tasks::spawn("memory", async move {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let mut is_short = false;
        loop {
            looks.tick().await;
            let Some(bytes) = process::resident_bytes() else {
                continue;
            };
            let was_short = is_short;
            is_short = short(was_short, bytes, bytes_max);
            if is_short && !was_short {
                tracing::warn!(
                    event = "memory_exhausted",
                    bytes,
                    bytes_max,
                    "memory is short; nobody is let in"
                );
            } else if was_short && !is_short {
                tracing::info!(event = "memory_recovered", bytes, "there is memory again");
            }
            admission.set_memory_short(is_short);
        }
    });
}

/// Short above the limit, and until a twentieth below it, so that the door does not flap.
fn short(was_short: bool, bytes: u64, bytes_max: u64) -> bool {
    let limit = if was_short {
        bytes_max - bytes_max / 20
    } else {
        bytes_max
    };
    bytes > limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_above_the_limit_until_it_is_well_below() {
        assert!(!short(false, 1_000, 1_000));
        assert!(short(false, 1_001, 1_000));
        assert!(short(true, 951, 1_000));
        assert!(!short(true, 950, 1_000));
    }
}
