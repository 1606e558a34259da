//! Faults that tests of whole nodes plant in them.

use std::time::Duration;

use crate::tasks::{self, Fault};

use super::millis;

/// With `--dev` a part can be made to panic or to hang, for tests of whole nodes:
/// `PLANTED_PANIC=PART@MS`, `PLANTED_HANG=PART@MS+MS`.
pub(super) fn plant() {
    let planted = |name| {
        let planted = std::env::var(name).ok()?;
        let (part, times) = planted.split_once('@')?;
        let (after, lasts) = times.split_once('+').unwrap_or((times, "0"));
        let ms = |text: &str| text.parse().ok().map(Duration::from_millis);
        Some((part.to_owned(), ms(after)?, ms(lasts)?))
    };
    if let Some((part, after, _)) = planted("PLANTED_PANIC") {
        let ms = millis(after);
        tracing::warn!(event = "panic_planted", part, ms, "a part will panic");
        tasks::plant(part, Fault::Panic, after);
    } else if let Some((part, after, lasts)) = planted("PLANTED_HANG") {
        let (ms, lasts_ms) = (millis(after), millis(lasts));
        tracing::warn!(
            event = "hang_planted",
            part,
            ms,
            lasts_ms,
            "a part will hang"
        );
        tasks::plant(part, Fault::Hang(lasts), after);
    }
}
