//! The store of a node without Redis, with the same answers as the scripts.
//!
//! In: what is added, and the number after which changes are asked for. Out: as `store`. Owner of the
//! entries, under a lock that is held for one call. [`Held`] is pure: the clock and chance are given.
//! Bound: [`super::ENTRIES_MAX`] entries.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustc_hash::FxHashMap;

use super::adding::{Added, Adding, Mended, Mending};
use super::reader::{PAGE, Page};
use super::{AHEAD_MAX_S, ANY_TIME, Mark, PRINTS, Row, print_of};

/// Entries that have ended and are forgotten by one call, at least.
const FORGOTTEN: usize = 1_000;

/// For so long the longest that a node said holds for all.
const SAID_FOR_MS: u64 = 3_600_000;

/// Most times that are remembered at which entries began to be kept for less long.
const FALLS_MAX: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryStore {
    held: Mutex<Held>,
}

impl MemoryStore {
    /// As [`super::store::Store::add`].
    pub fn add(&self, adding: &Adding) -> Added {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.add(adding, unix_ms(), rand::random::<u64>() % 1_024)
    }

    /// As [`super::store::Store::read`].
    pub fn read(&self, since: u64) -> Page {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.read(since, unix_ms())
    }

    /// As [`super::store::Store::mend`].
    pub fn mend(&self, mending: &Mending) -> Mended {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.mend(mending, unix_ms())
    }
}

fn unix_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let since_1970 = since_1970.unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// From when an entry is kept that asks for this, unix milliseconds; 0: it asks for no time.
fn from_ms(issued_before: u64) -> u64 {
    match issued_before {
        ..ANY_TIME => issued_before * 1_000,
        ANY_TIME.. => 0,
    }
}

/// What a store holds.
#[derive(Debug, Clone, Default)]
pub struct Held {
    rows: FxHashMap<Box<str>, (Mark, u64)>,
    by_change: BTreeMap<u64, Box<str>>,
    sum: u64,
    last: u64,
    forgot_ms: u64,
    /// For how long entries are kept, and when a node said so last.
    kept_ms: u64,
    said_ms: u64,
    /// For how long they were kept before that fell, and the last number then; the longest first.
    falls: Vec<(u64, u64)>,
}

impl Held {
    /// Adds all, or none where they are too many. `chance` is below 1,024.
    pub fn add(&mut self, adding: &Adding, now_ms: u64, chance: u64) -> Added {
        self.forget(now_ms);
        let is_over = now_ms.saturating_sub(self.said_ms) > SAID_FOR_MS;
        let mine = adding.kept_ms;
        if self.kept_ms == 0 || mine == self.kept_ms || (mine < self.kept_ms && is_over) {
            if mine < self.kept_ms {
                self.falls.retain(|(long_ms, _)| *long_ms > self.kept_ms);
                self.falls.push((self.kept_ms, self.last));
                self.falls
                    .drain(..self.falls.len().saturating_sub(FALLS_MAX));
            }
            (self.kept_ms, self.said_ms) = (mine, now_ms);
        }
        let kept_ms = mine.max(self.kept_ms);
        let asked = adding.asked.iter();
        let new = asked.filter(|asked| !self.rows.contains_key(&asked.name));
        let new = new.count();
        if new > 0 && self.rows.len() + new > adding.most {
            return Added::Full(self.rows.len() as u64);
        }
        let lowest = [now_ms * 1_024 + chance, self.last + 1, adding.above + 1];
        let mut number = lowest.into_iter().max().unwrap_or_default();
        let mut least = None;
        for asked in &adding.asked {
            let clock_s = (now_ms / 1_000)
                .min(adding.clock_s + AHEAD_MAX_S)
                .max(adding.clock_s);
            let so_far = clock_s + 1 + adding.leeway_s;
            let issued_before = asked.issued_before.unwrap_or(so_far);
            let usual_ms = now_ms.max(from_ms(issued_before)) + kept_ms;
            let until_ms = asked.until_ms.unwrap_or(usual_ms).max(self.forgot_ms + 1);
            let mark = Mark {
                issued_before,
                until_ms,
            };
            number += u64::from(self.put(&asked.name, mark, number));
            let held = self
                .rows
                .get(&asked.name)
                .map(|(mark, _)| mark.issued_before);
            least = least.min(held).or(held);
        }
        Added::Stored(least.unwrap_or_default())
    }

    /// Lengthens what was made to be kept for less long than the caller keeps entries. Nothing else can be
    /// wrong here.
    pub fn mend(&mut self, mending: &Mending, now_ms: u64) -> Mended {
        let mine = mending.kept_ms;
        if self.kept_ms > 0 && mine > self.kept_ms {
            let rows: Vec<_> = self
                .rows
                .iter()
                .map(|(name, (mark, at))| (name.clone(), *mark, mine - self.kept_of(*at).min(mine)))
                .collect();
            let mut number = (now_ms * 1_024).max(self.last + 1);
            for (name, mark, longer_ms) in rows {
                let most_ms = now_ms.max(from_ms(mark.issued_before)) + mine;
                let until_ms = (mark.until_ms + longer_ms).min(most_ms);
                number += u64::from(self.put(&name, Mark { until_ms, ..mark }, number));
            }
            self.falls.retain(|(long_ms, _)| *long_ms > mine);
        }
        (self.kept_ms, self.said_ms) = (self.kept_ms.max(mine), now_ms);
        Mended::Done(0, Vec::new())
    }

    /// For how long an entry is kept whose last change has this number.
    fn kept_of(&self, number: u64) -> u64 {
        let falls = self.falls.iter().filter(|(_, last)| number <= *last);
        let longest = falls.map(|(long_ms, _)| *long_ms).max();
        longest.unwrap_or_default().max(self.kept_ms)
    }

    /// Returns whether that changed anything.
    fn put(&mut self, name: &str, mark: Mark, number: u64) -> bool {
        let old = self.rows.get(name).copied();
        let mark = old.map_or(mark, |(old, _)| old.and(mark));
        if old.is_some_and(|(old, _)| old == mark) {
            return false;
        }
        if let Some((old, at)) = old {
            self.sum = (self.sum + PRINTS - print_of(name, old)) % PRINTS;
            self.by_change.remove(&at);
        }
        self.sum = (self.sum + print_of(name, mark)) % PRINTS;
        self.rows.insert(name.into(), (mark, number));
        self.by_change.insert(number, name.into());
        self.last = number;
        true
    }

    fn forget(&mut self, now_ms: u64) {
        let ends = self.rows.values().map(|(mark, _)| mark.until_ms);
        let mut over: Vec<_> = ends.filter(|until_ms| *until_ms <= now_ms).collect();
        over.sort_unstable();
        let Some(up_to) = over.get(FORGOTTEN - 1).or(over.last()).copied() else {
            return;
        };
        let (sum, by_change) = (&mut self.sum, &mut self.by_change);
        self.rows.retain(|name, (mark, at)| {
            let stays = mark.until_ms > up_to;
            if !stays {
                *sum = (*sum + PRINTS - print_of(name, *mark)) % PRINTS;
                by_change.remove(at);
            }
            stays
        });
        self.forgot_ms = up_to;
    }

    /// What changed after a number.
    #[must_use]
    pub fn read(&self, since: u64, now_ms: u64) -> Page {
        let later = self.by_change.range(since + 1..).take(PAGE);
        let rows = later.map(|(at, name)| Row {
            name: name.clone(),
            mark: self.rows[name].0,
            at: *at,
        });
        Page {
            now_ms,
            count: self.rows.len() as u64,
            sum: self.sum,
            forgot_ms: self.forgot_ms,
            kept_ms: self.kept_ms,
            ..Page::of(rows.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::adding::Asked;

    const HOUR_MS: u64 = 3_600_000;
    const DAY_MS: u64 = 24 * HOUR_MS;

    fn adding(names: &[&str], kept_ms: u64) -> Adding {
        let asked = names.iter().map(|name| Asked {
            name: (*name).into(),
            issued_before: Some(5),
            until_ms: None,
        });
        Adding {
            asked: asked.collect(),
            kept_ms,
            most: 100,
            ..Adding::default()
        }
    }

    #[test]
    fn an_entry_is_lengthened_only_where_it_was_made_to_last_shorter() {
        let (mut held, mut now_ms) = (Held::default(), DAY_MS);
        let until = |held: &Held, name: &str| held.rows[name].0.until_ms;
        held.add(&adding(&["long"], 7 * DAY_MS), now_ms, 0);
        let mut made = vec![("long".to_owned(), now_ms + 7 * DAY_MS)];
        for time in 0..5 {
            // The node with the long life is away, and others with shorter lives take calls.
            for kept_ms in [DAY_MS, HOUR_MS] {
                now_ms += 2 * HOUR_MS;
                let name = format!("{time} {kept_ms}");
                held.add(&adding(&[&name], kept_ms), now_ms, 0);
                made.push((name, now_ms + 7 * DAY_MS));
            }
            // It comes back in two steps.
            for kept_ms in [2 * DAY_MS, 7 * DAY_MS] {
                let mending = Mending {
                    kept_ms,
                    ..Mending::default()
                };
                held.mend(&mending, now_ms);
            }
            for (name, until_ms) in &made {
                assert_eq!(until(&held, name), *until_ms, "{name} after {time}");
            }
        }
    }

    #[test]
    fn an_entry_of_which_nobody_knows_how_it_was_made_lasts_no_longer_than_a_new_one() {
        let (mut held, now_ms) = (Held::default(), DAY_MS);
        held.add(&adding(&[], HOUR_MS), now_ms, 0);
        // It was written back with the end that it had.
        let mut back = adding(&["back"], HOUR_MS);
        back.asked[0].until_ms = Some(now_ms + 6 * DAY_MS);
        held.add(&back, now_ms, 0);
        let mending = Mending {
            kept_ms: 7 * DAY_MS,
            ..Mending::default()
        };
        held.mend(&mending, now_ms);
        assert_eq!(held.rows["back"].0.until_ms, now_ms + 7 * DAY_MS);
    }
}
