//! One topic's stream in a few lines, for simulations: it answers as the scripts do, and it can
//! lose its tail as a promoted replica does.
//!
//! In: publications, and a clock that only the simulation moves. Out: entries and answers. Owner of
//! nothing but itself. Bounds: the retention, as on every topic. That it answers as the in-process
//! engine does is a test here.

use std::sync::Arc;

use bytes::Bytes;

use super::ids::position_after;
use super::publication::Publication;
use super::{Body, Entry, OVERLAP_MS, SincePage};
use crate::config::Retention;
use fanfare_protocol::data::Data;
use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::Position;

/// See the module.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) retention: Retention,
    pub(crate) now_ms: u64,
    /// Every id of the present timeline, retained or not.
    ids: Vec<Position>,
    entries: Vec<Entry>,
    /// Up to when the entries live together.
    entries_end_ms: u64,
    /// Up to when the last id is remembered.
    last_end_ms: u64,
}

impl Stream {
    /// An empty stream.
    pub(crate) fn new(retention: Retention, now_ms: u64) -> Self {
        Self {
            retention,
            now_ms,
            ids: Vec::new(),
            entries: Vec::new(),
            entries_end_ms: 0,
            last_end_ms: 0,
        }
    }

    /// Appends, as the publication script does. `random` is the sequence in a new millisecond.
    pub(crate) fn publish(&mut self, random: u32, data: Bytes) -> Entry {
        let publication = publication(data, self.now_ms);
        self.append(random, publication)
    }

    /// Appends this publication.
    pub(crate) fn append(&mut self, random: u32, publication: Publication) -> Entry {
        let prev = self.last().unwrap_or_default();
        let position = position_after(prev, self.now_ms, random);
        let entry = Entry {
            position,
            prev,
            body: Body::Publication(Arc::new(publication)),
        };
        self.ids.push(position);
        self.entries = self.retained().to_vec();
        self.remember();
        self.entries.push(entry.clone());
        let over = self
            .entries
            .len()
            .saturating_sub(self.retention.entries_max as usize);
        self.entries.drain(..over);
        entry
    }

    /// The newest id, while it is remembered.
    pub(crate) fn last(&self) -> Option<Position> {
        let last = *self.ids.last()?;
        (self.now_ms <= self.last_end_ms).then_some(last)
    }

    /// What came after `since`, as the script judges it.
    pub(crate) fn since(&self, since: Position, entries_max: usize) -> SincePage {
        let is_young = self.now_ms.saturating_sub(since.ms) < self.retention.last_life_ms();
        let last = self.last().unwrap_or_default();
        let is_ahead = since > last;
        let answer = |gap, start, entries: &[Entry]| SincePage {
            gap,
            start,
            last,
            entries: entries[..entries.len().min(entries_max)].to_vec(),
        };
        if since == last {
            return answer(None, last, &[]);
        }
        let retained = self.retained();
        let Some(oldest) = retained.first().filter(|_| last > Position::ZERO) else {
            let gap = match is_ahead && (is_young || last > Position::ZERO) {
                true => GapReason::Failover,
                false => GapReason::Retention,
            };
            return answer(Some(gap), last, &[]);
        };
        if since == oldest.prev || retained.iter().any(|e| e.position == since) {
            let behind = retained.partition_point(|e| e.position <= since);
            answer(None, since, &retained[behind..])
        } else if oldest.prev > since || !(is_young || is_ahead) {
            answer(Some(GapReason::Retention), oldest.prev, retained)
        } else {
            let from_ms = since.min(last).ms.saturating_sub(OVERLAP_MS);
            let from = retained.partition_point(|e| e.position.ms < from_ms);
            let start = retained.get(from).map_or(last, |first| first.prev);
            answer(Some(GapReason::Failover), start, &[])
        }
    }

    /// The newest entries, newest first.
    pub(crate) fn newest(&self, entries_max: usize) -> Vec<Entry> {
        let retained = self.retained().iter().rev();
        retained.take(entries_max).cloned().collect()
    }

    /// What is retained and within age, oldest first.
    pub(crate) fn retained(&self) -> &[Entry] {
        let floor = Position {
            ms: self.now_ms.saturating_sub(self.retention.age_ms),
            seq: 0,
        };
        if self.now_ms > self.entries_end_ms {
            return &[];
        }
        &self.entries[self.entries.partition_point(|e| e.position < floor)..]
    }

    /// The ids of the present timeline, retained or not.
    pub(crate) fn ids(&self) -> &[Position] {
        &self.ids
    }

    /// Loses the newest `count` ids, and goes on with a clock that shows `now_ms`, which may be
    /// after what is left. New ids may then lie below lost ones.
    pub(crate) fn lose_newest(&mut self, count: usize, now_ms: u64) {
        self.ids.truncate(self.ids.len().saturating_sub(count));
        let last = self.ids.last().copied().unwrap_or_default();
        self.entries.retain(|e| e.position <= last);
        self.now_ms = now_ms;
        self.remember();
        // Those that were published while the clock was ahead have their lives from then.
        self.entries_end_ms = now_ms.max(last.ms) + self.retention.age_ms;
    }

    fn remember(&mut self) {
        let newest_ms = self.ids.last().map_or(0, |last| last.ms);
        let from_ms = self.now_ms.max(newest_ms);
        self.last_end_ms = from_ms + self.retention.last_life_ms();
        self.entries_end_ms = self.now_ms + self.retention.age_ms;
    }
}

/// A publication of which nothing but the body matters.
pub(crate) fn publication(data: Bytes, time_ms: u64) -> Publication {
    Publication::new(Data::Json(data), time_ms)
}

#[cfg(test)]
mod tests {
    use crate::telemetry::metrics::Metrics;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::FutureExt as _;
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;
    use crate::broker::memory::MemoryBroker;
    use crate::broker::memory::clock::Clock;
    use crate::broker::{Page, PublishRequest};
    use fanfare_protocol::ids::{App, Topic};

    const START_MS: u64 = 1_732_190_000_000;

    /// Both get the same publications; positions differ by their random sequences, so that
    /// answers are compared by the number of the publication.
    fn compare(seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let retention = Retention {
            entries_max: rng.random_range(0..6),
            age_ms: match rng.random_range(0..4) {
                0 => 4 * OVERLAP_MS,
                _ => rng.random_range(1..40),
            },
        };
        let topic = Topic::new(&App::default_app(), "t").unwrap();
        let now_ms = Arc::new(AtomicU64::new(START_MS));
        let (engine, _feed) = MemoryBroker::new(
            Clock::Manual(Arc::clone(&now_ms)),
            Arc::new(Metrics::new(0)),
        );
        let mut model = Stream::new(retention, START_MS);
        // Position 0 is `0-0`.
        let mut made = vec![(Position::ZERO, Position::ZERO)];
        for _ in 0..60 {
            model.now_ms = match rng.random_range(0..40) {
                0 => model.now_ms + 3_600_000 + retention.age_ms,
                1 => model.now_ms - rng.random_range(0..60),
                2..6 => model.now_ms + rng.random_range(0..60),
                6 => model.now_ms + rng.random_range(0..2 * OVERLAP_MS),
                _ => model.now_ms + rng.random_range(0..3),
            };
            now_ms.store(model.now_ms, Ordering::Relaxed);
            if rng.random_bool(0.5) {
                let publication = publication(Bytes::from_static(b"1"), 0);
                let request = PublishRequest::new(topic.clone(), publication, retention);
                let published = engine.publish(request).now_or_never().unwrap().unwrap();
                let entry = model.publish(rng.random(), Bytes::from_static(b"1"));
                made.push((entry.position, published.position));
            }
            let page = Page {
                entries_max: rng.random_range(1..5),
                bytes_max: usize::MAX,
            };
            let (mut ours, mut theirs) = made[rng.random_range(0..made.len())];
            if rng.random_bool(0.2) {
                // Never given, by neither.
                (ours.seq, theirs.seq) = (ours.seq | 1 << 40, theirs.seq | 1 << 40);
            }
            let engine = engine.since(&topic, theirs, retention, page).now_or_never();
            let engine = engine.unwrap().unwrap();
            let model = model.since(ours, page.entries_max as usize);
            let number_ours = |p: Position| made.iter().position(|m| m.0 == p).unwrap();
            let number_theirs = |p: Position| made.iter().position(|m| m.1 == p).unwrap();
            assert_eq!(model.gap, engine.gap, "seed {seed}");
            assert_eq!(number_ours(model.start), number_theirs(engine.start));
            assert_eq!(number_ours(model.last), number_theirs(engine.last));
            let numbers = |entries: &[Entry], number: &dyn Fn(Position) -> usize| {
                let of = |e: &Entry| (number(e.prev), number(e.position));
                entries.iter().map(of).collect::<Vec<_>>()
            };
            assert_eq!(
                numbers(&model.entries, &number_ours),
                numbers(&engine.entries, &number_theirs),
                "seed {seed}"
            );
        }
    }

    #[test]
    fn a_reader_of_the_old_master_gets_what_the_new_one_took_meanwhile() {
        let retention = Retention {
            entries_max: 100,
            age_ms: 60_000,
        };
        let mut stream = Stream::new(retention, START_MS);
        let publish_at = |stream: &mut Stream, ms| {
            stream.now_ms = START_MS + ms;
            stream.publish(0, Bytes::new()).position
        };
        let common = publish_at(&mut stream, 0);
        let lost = [10, 20, 30].map(|ms| publish_at(&mut stream, ms));
        stream.lose_newest(3, START_MS + 5);
        let new = [15, 25, 50].map(|ms| publish_at(&mut stream, ms));
        for since in lost {
            let page = stream.since(since, 10);
            assert_eq!(page.gap, Some(GapReason::Failover));
            assert!(page.start <= common && page.entries.is_empty());
            let page = stream.since(page.start, 10);
            let read: Vec<_> = page.entries.iter().map(|e| e.position).collect();
            assert!(page.gap.is_none() && read.ends_with(&new));
        }
    }

    #[test]
    fn the_model_answers_as_the_in_process_engine_does() {
        (0..500).for_each(compare);
    }
}
