//! The seeds of the simulations: all of them, or the one that failed.
//!
//! In: a run that a seed decides. Out: nothing, or a panic that names the first seed that failed
//! and the command that runs it alone: the environment variable `FANFARE_SEED` takes the place of
//! all the others. Only in builds for tests; owns nothing. Bound: [`COUNT`] runs of a suite.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Seeds of one suite.
pub(crate) const COUNT: u64 = 10_000;
/// The environment variable that asks for one seed.
const ALONE: &str = "FANFARE_SEED";

/// What a run says: nothing, or which promise was broken.
pub(crate) type Verdict = Result<(), String>;

/// Runs so many seeds, or the one that is asked for; each must pass. Returns whether it was all
/// of them, so that it means something how often a thing was met.
pub(crate) fn each(count: u64, mut run: impl FnMut(u64) -> Verdict) -> bool {
    let asked_for = asked_for();
    for seed in asked_for.map_or(0..count, |seed| seed..seed + 1) {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(Ok(())) => {}
            Ok(Err(what)) => panic!("seed {seed}: {what}\n{}", alone(seed)),
            Err(panic) => {
                eprintln!("seed {seed} panicked\n{}", alone(seed));
                resume_unwind(panic);
            }
        }
    }
    asked_for.is_none()
}

/// The first of all seeds that fails, with what it says: for a world in which a rule is missing.
pub(crate) fn first_failure(mut run: impl FnMut(u64) -> Verdict) -> Option<(u64, String)> {
    (0..COUNT).find_map(|seed| {
        let verdict = catch_unwind(AssertUnwindSafe(|| run(seed)));
        match verdict.unwrap_or_else(|_| Err("it panicked".into())) {
            Ok(()) => None,
            Err(what) => Some((seed, what)),
        }
    })
}

fn asked_for() -> Option<u64> {
    let text = std::env::var(ALONE).ok()?;
    Some(text.parse().expect("FANFARE_SEED is a number"))
}

/// How to run this seed alone. The thread of a test has the test's name.
fn alone(seed: u64) -> String {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    format!("alone: {ALONE}={seed} cargo test --lib -- --exact {test}")
}
