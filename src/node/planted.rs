//! Faults that tests of whole nodes plant in them.

use std::time::Duration;

use crate::revocation::planted::{self, Planted};
use crate::tasks::{self, Fault};

use super::millis;

/// With `--dev` a part can be made to panic or to hang, for tests of whole nodes:
/// `PLANTED_PANIC=PART@MS`, `PLANTED_HANG=PART@MS+MS`; and revocation to miss its doorbells, for so
/// long out of twice as long, and never to read without one: `PLANTED_DEAF=MS`, `PLANTED_NEVER_POLLS=1`.
pub(super) fn plant() {
    plant_in_revocation();
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

fn plant_in_revocation() {
    let of = |name| std::env::var(name).ok();
    let deaf = of("PLANTED_DEAF").and_then(|ms| ms.parse().ok());
    let never_polls = of("PLANTED_NEVER_POLLS").is_some();
    if deaf.is_none() && !never_polls {
        return;
    }
    tracing::warn!(
        event = "deafness_planted",
        deaf_ms = deaf.unwrap_or(0),
        never_polls,
        "revocation will miss doorbells"
    );
    planted::plant(Planted {
        deaf: deaf.map(Duration::from_millis),
        never_polls,
    });
}
