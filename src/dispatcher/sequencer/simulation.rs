//! The link against a feed that loses, doubles, delays and reorders, and a broker that forgets:
//! ten thousand seeds in each weather, each run judged from outside.
//!
//! In: a seed. Out: nothing, or the first thing that a session would have noticed, with the seed.
//! [`world`] plays the broker, the feed and the dispatcher; [`checker`] knows what was published and
//! judges every delivery and gap; [`judge`] is the link, or the link with one of its rules taken
//! out, by which the checker shows that it would notice.

use crate::config::Retention;
use crate::seeds;

mod checker;
mod judge;
mod world;

use judge::{Judge, Without};
use world::{Report, Weather, World};

fn with_history() -> Weather {
    Weather::default()
}

fn without_history() -> Weather {
    Weather {
        history: false,
        reorders: false,
        ..Weather::default()
    }
}

fn only_doubles(weather: Weather) -> Weather {
    Weather {
        calm: true,
        doubles: true,
        ..weather
    }
}

fn run(seed: u64, weather: Weather, without: Option<Without>) -> Result<Report, String> {
    World::new(seed, weather, |last, retention: Retention| {
        Judge::new(last, retention, without)
    })
    .run()
}

/// Every seed must pass. Returns what the runs saw together, unless one was to run alone.
fn all(weather: Weather) -> Option<Report> {
    let mut seen = Report::default();
    let were_all = seeds::each(seeds::COUNT, |seed| {
        seen.add(&run(seed, weather, None)?);
        Ok(())
    });
    were_all.then_some(seen)
}

#[test]
fn with_history_nothing_is_lost_doubled_reordered_or_falsely_told() {
    let Some(seen) = all(with_history()) else {
        return;
    };
    // The weather was bad enough to mean something.
    assert!(seen.delivered > 100_000, "{seen:?}");
    assert!(seen.lost_on_the_feed > 10_000, "{seen:?}");
    assert!(seen.duplicates > 10_000, "{seen:?}");
    assert!(seen.overflows > 100, "{seen:?}");
    assert!(seen.gaps > 100, "{seen:?}");
    assert!(seen.unanswered > 1_000, "{seen:?}");
}

#[test]
fn with_history_a_loss_without_a_break_is_found_by_the_next_check() {
    all(Weather {
        breaks: false,
        ..with_history()
    });
}

#[test]
fn without_history_every_loss_is_told_and_nothing_else() {
    if let Some(seen) = all(without_history()) {
        assert!(seen.delivered > 100_000, "{seen:?}");
        assert!(seen.gaps > 10_000, "{seen:?}");
    }
    for (breaks, reorders) in [(false, false), (true, true)] {
        all(Weather {
            breaks,
            reorders,
            ..without_history()
        });
    }
}

#[test]
fn a_calm_feed_needs_no_question_and_tells_no_gap() {
    for weather in [with_history(), without_history()] {
        all(Weather {
            calm: true,
            ..weather
        });
    }
}

/// Without its memory the link would lose nothing here, but ask the stream about every one.
#[test]
fn what_comes_once_more_needs_no_question() {
    for weather in [with_history(), without_history()] {
        if let Some(seen) = all(only_doubles(weather)) {
            assert!(seen.duplicates > 10_000, "{seen:?}");
        }
    }
}

#[test]
fn a_failover_with_history_is_told_and_what_survived_is_delivered() {
    let weather = Weather {
        failovers: true,
        ..with_history()
    };
    if let Some(seen) = all(weather) {
        assert!(seen.failovers > 3_000, "{seen:?}");
        assert!(seen.failover_gaps > 1_000, "{seen:?}");
    }
}

#[test]
fn a_failover_without_history_is_told() {
    let weather = Weather {
        failovers: true,
        ..without_history()
    };
    if let Some(seen) = all(weather) {
        assert!(seen.failovers > 3_000, "{seen:?}");
        assert!(seen.failover_gaps > 1_000, "{seen:?}");
    }
}

#[test]
fn the_simulation_notices_ids_that_count_on_behind_the_clock() {
    for weather in [with_history(), without_history()] {
        let weather = Weather {
            failovers: true,
            counts_on: true,
            ..weather
        };
        let failed = seeds::first_failure(|seed| run(seed, weather, None).map(|_| ()));
        assert!(failed.is_some(), "ids that count on are not missed");
    }
}

#[test]
fn the_simulation_notices_when_a_rule_is_missing() {
    let failovers = Weather {
        failovers: true,
        ..with_history()
    };
    for (weather, without) in [
        (with_history(), Without::Questions),
        (without_history(), Without::Questions),
        (with_history(), Without::Duplicates),
        (without_history(), Without::Duplicates),
        (with_history(), Without::Held),
        (with_history(), Without::Breaks),
        (with_history(), Without::SecondDoubts),
        (with_history(), Without::Gaps),
        (without_history(), Without::Gaps),
        (failovers, Without::Memory),
        (only_doubles(with_history()), Without::Memory),
        (only_doubles(without_history()), Without::Memory),
        (failovers, Without::Gaps),
    ] {
        let failed = seeds::first_failure(|seed| run(seed, weather, Some(without)).map(|_| ()));
        assert!(failed.is_some(), "{without:?} is not missed in {weather:?}");
    }
}
