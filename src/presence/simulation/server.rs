//! A master of Redis as far as members go: `enter.lua`, `leave.lua` and `reap.lua` in a few lines,
//! and failovers to a replica without the last writes.
//!
//! In: commands, the time. Out: what it has and has told. Bounds: what it had within [`LAG_MS`].
//! One of the rules may be missing. That the scripts answer so is asked in `tests/conformance`.

use std::collections::BTreeMap;

use super::Without;
use crate::presence::Key;

/// How much a failover loses at the most.
pub(super) const LAG_MS: u64 = 3_000;

/// A member's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) generation: u64,
    pub(super) life: u64,
}

/// What a replica may have: the entries, and so much of what was told.
#[derive(Debug, Clone)]
struct Past {
    at_ms: u64,
    entries: BTreeMap<Key, Entry>,
    told_count: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Server {
    pub(super) entries: BTreeMap<Key, Entry>,
    /// Each change: who, and whether they came.
    told: Vec<(Key, bool)>,
    past: Vec<Past>,
    /// Another number after each failover.
    pub(super) continuity: u64,
    pub(super) away_until_ms: u64,
    without: Option<Without>,
}

impl Server {
    pub(super) fn new(without: Option<Without>) -> Self {
        Self {
            without,
            ..Self::default()
        }
    }

    fn lacks(&self, rule: Without) -> bool {
        self.without == Some(rule)
    }

    fn keep(&mut self, now_ms: u64) {
        self.past.retain(|past| past.at_ms + LAG_MS >= now_ms);
        self.past.push(Past {
            at_ms: now_ms,
            entries: self.entries.clone(),
            told_count: self.told.len(),
        });
    }

    /// Whether anything was written.
    pub(super) fn enter(&mut self, key: &Key, entry: Entry, now_ms: u64) -> bool {
        let rank = |entry: Entry| match self.lacks(Without::LifeComparison) {
            true => (entry.generation, u64::from(entry.life > 0)),
            false => (entry.generation, entry.life),
        };
        let known = self.entries.get(key).copied();
        let is_older = known.is_some_and(|known| rank(entry) < rank(known));
        if known == Some(entry) || (is_older && !self.lacks(Without::EnterComparison)) {
            return false;
        }
        self.keep(now_ms);
        if self.entries.insert(key.clone(), entry).is_none() {
            self.told.push((key.clone(), true));
        }
        true
    }

    pub(super) fn leave(&mut self, key: &Key, generation: u64, now_ms: u64) {
        let is_free = self.lacks(Without::LeaveComparison);
        let known = self.entries.get(key);
        if known.is_some_and(|known| is_free || known.generation <= generation) {
            self.remove(key, now_ms);
        }
    }

    /// Removes all of earlier lives, and returns whose they were.
    pub(super) fn reap(&mut self, life: u64, now_ms: u64) -> Vec<(Key, Entry)> {
        let old = |(_, entry): &(&Key, &Entry)| entry.life < life;
        let old = self.entries.iter().filter(old);
        let old: Vec<_> = old.map(|(key, entry)| (key.clone(), *entry)).collect();
        old.iter().for_each(|(key, _)| self.remove(key, now_ms));
        old
    }

    fn remove(&mut self, key: &Key, now_ms: u64) {
        self.keep(now_ms);
        self.entries.remove(key);
        self.told.push((key.clone(), false));
    }

    /// Another server, which has what this one had before one of its last writes.
    pub(super) fn fail_over(&mut self, choice: usize, now_ms: u64) {
        self.continuity += 1;
        self.past.retain(|past| past.at_ms + LAG_MS >= now_ms);
        if self.past.is_empty() {
            return;
        }
        let at = choice % self.past.len();
        let past = self.past.swap_remove(at);
        self.past.clear();
        self.entries = past.entries;
        self.told.truncate(past.told_count);
    }

    /// Whether of each session joining and leaving were told in turns, up to what is there now.
    pub(super) fn judge_told(&self) -> Result<(), String> {
        let mut inside: BTreeMap<&Key, bool> = BTreeMap::new();
        for (key, came) in &self.told {
            if inside.insert(key, *came).unwrap_or(false) == *came {
                return Err(format!("{key:?} was told twice: {came}"));
            }
        }
        let told = inside.iter().filter(|(_, is_in)| **is_in);
        let told: Vec<_> = told.map(|(key, _)| *key).collect();
        let there: Vec<_> = self.entries.keys().collect();
        if told == there {
            return Ok(());
        }
        Err(format!("told were {told:?}, there are {there:?}"))
    }
}
