//! Judges what became of entries of the durable queue: lost, doubled, reordered, invented.
//!
//! In: a history. Out: wrongs in the verdict, and [`Moves`]. Pure. The truth is what the targets
//! retain at the end, as every node tells it. What Redis lost in a failover is excused where a
//! publication would be, and what a writer put there by `XADD` wherever Redis may lose anything: no
//! replica confirmed it.

use std::collections::BTreeMap;
use std::time::Duration;

use fanfare_protocol::ids::Position;
use rustc_hash::FxHashMap;

use super::app::App;
use super::checker::{Allowed, Verdict, Wrong};
use super::history::{EntryName, Event, History, Taken};

/// Lanes from here on are of delayed entries, which keep no order.
pub(crate) const DELAYED_FROM: u8 = 4;

/// What the queue took and moved.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    /// Handed over and taken.
    pub(crate) accepted: u64,
    /// Neither surely taken nor surely not.
    pub(crate) unknown: u64,
    /// Surely not taken.
    pub(crate) failed: u64,
    /// Taken and lost by Redis, where that is allowed.
    pub(crate) redis_lost: u64,
    /// Standing in their targets.
    pub(crate) published: u64,
    /// How long accepted entries waited, in milliseconds of Redis' clock, in order of length.
    pub(crate) waits_ms: Vec<u64>,
    /// From the first that was handed over to the last.
    pub(crate) lasted: Duration,
}

/// An entry that was handed over.
#[derive(Debug, Clone, Copy)]
struct Handed {
    begun: Duration,
    is_raw: bool,
    ended: Option<(Duration, Taken)>,
}

/// All of them, by name.
type All = BTreeMap<EntryName, Handed>;

/// Where each entry stands first.
type Places = FxHashMap<EntryName, Position>;

/// Judges the queue of a history.
pub(crate) fn check(history: &History, allowed: Allowed, verdict: &mut Verdict) {
    let all = handed(history);
    let begun = || all.values().map(|entry| entry.begun);
    let (first, last) = (begun().min(), begun().max());
    verdict.queue.lasted = last.unwrap_or_default() - first.unwrap_or_default();
    let places = places(history, &all, verdict);
    for (name, entry) in &all {
        one(name, entry, &places, allowed, verdict);
    }
    verdict.queue.waits_ms.sort_unstable();
    orders(&all, &places, verdict);
}

fn handed(history: &History) -> All {
    let mut all = All::new();
    for step in &history.entries {
        match step.event {
            Event::EntryBegun { entry, is_raw } => {
                let handed = Handed {
                    begun: step.at,
                    is_raw,
                    ended: None,
                };
                all.insert(entry, handed);
            }
            Event::EntryEnded { entry, taken } => {
                if let Some(handed) = all.get_mut(&entry) {
                    handed.ended = Some((step.at, taken));
                }
            }
            _ => {}
        }
    }
    all
}

/// Where every entry stands, by the node that is named first for each target; the others say the
/// same, each entry stands once, and somebody handed it over.
fn places(history: &History, all: &All, verdict: &mut Verdict) -> Places {
    let mut places = Places::default();
    let mut truths: FxHashMap<u16, &Vec<_>> = FxHashMap::default();
    for step in &history.entries {
        let Event::Moved {
            node,
            target,
            entries,
        } = &step.event
        else {
            continue;
        };
        if let Some(truth) = truths.get(target) {
            if *truth != entries {
                let what = format!("{node} tells another history of target {target} than another");
                verdict.found(Wrong::QueueReordered, what);
            }
            continue;
        }
        truths.insert(*target, entries);
        for (position, name) in entries {
            verdict.queue.published += 1;
            let known = all.get(name);
            let is_refused = known.is_some_and(|e| matches!(e.ended, Some((_, Taken::Fail))));
            if App::of_target(name.target) != App::of_target(*target) {
                let what = format!("{name} stands in target {target}, which is of the other app");
                verdict.found(Wrong::BetweenApps, what);
                continue;
            }
            if known.is_none() || is_refused || name.target != *target {
                let what = format!("{name} stands in target {target}, handed over: {known:?}");
                verdict.found(Wrong::QueuePhantom, what);
            }
            if let Some(before) = places.get(name) {
                let what = format!("{name} stands at {before} and at {position}");
                verdict.found(Wrong::QueueDoubled, what);
            } else {
                places.insert(*name, *position);
            }
        }
    }
    places
}

/// What was accepted is there.
fn one(name: &EntryName, entry: &Handed, places: &Places, allowed: Allowed, verdict: &mut Verdict) {
    let moves = &mut verdict.queue;
    let since_ms = match entry.ended {
        Some((_, Taken::Ok(since_ms))) => since_ms,
        Some((_, Taken::Fail)) => {
            moves.failed += 1;
            return;
        }
        Some((_, Taken::Unknown)) | None => {
            moves.unknown += 1;
            return;
        }
    };
    moves.accepted += 1;
    match (places.get(name), since_ms) {
        (Some(position), Some(since_ms)) => {
            moves.waits_ms.push(position.ms.saturating_sub(since_ms));
        }
        (Some(_), None) => {}
        (None, _) if allowed.redis_may_lose && (allowed.also_accepted || entry.is_raw) => {
            moves.redis_lost += 1;
        }
        (None, _) => {
            let what = format!("{name} was accepted and its target has it not: {entry:?}");
            verdict.found(Wrong::QueueLost, what);
        }
    }
}

/// What was accepted before another entry of its target and lane was handed over stands before it,
/// and what one writer handed over stands in the order of its numbers. What Redis lost has no place.
fn orders(all: &All, places: &Places, verdict: &mut Verdict) {
    let mut lanes: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (name, entry) in all.iter().filter(|(name, _)| name.lane < DELAYED_FROM) {
        if let (Some((ended, Taken::Ok(_))), Some(position)) = (entry.ended, places.get(name)) {
            let lane = lanes.entry((name.target, name.lane)).or_default();
            lane.push((*name, entry.begun, ended, *position));
        }
    }
    for lane in lanes.values() {
        // In order of writer and number.
        for pair in lane.windows(2) {
            let ((one, .., before), (other, .., after)) = (pair[0], pair[1]);
            if one.writer == other.writer && before >= after {
                let what = format!("{one} stands at {before}, and {other} at {after}");
                verdict.found(Wrong::QueueReordered, what);
            }
        }
        between_writers(lane, verdict);
    }
}

fn between_writers(lane: &[(EntryName, Duration, Duration, Position)], verdict: &mut Verdict) {
    let mut begun: Vec<_> = lane.iter().map(|(n, at, _, p)| (*at, *p, *n)).collect();
    let mut ended: Vec<_> = lane.iter().map(|(n, _, at, p)| (*at, *p, *n)).collect();
    begun.sort();
    ended.sort();
    let mut ended = ended.into_iter().peekable();
    let mut highest: Option<(Position, EntryName)> = None;
    for (begun, position, name) in begun {
        while let Some((_, position, name)) = ended.next_if(|(at, ..)| *at < begun) {
            highest = highest.max(Some((position, name)));
        }
        let before =
            highest.filter(|(before, other)| *before >= position && other.writer != name.writer);
        if let Some((before, other)) = before {
            let what = format!(
                "{name} at {position} was handed over after {other} was accepted, which stands at {before}"
            );
            verdict.found(Wrong::QueueReordered, what);
        }
    }
}
