//! Which topics a page of occupied topics has, out of the indexes of partitions.
//!
//! In: after which topic, and how many. Out: topics in the order of pages (by partition, then by
//! name) and after which one to go on. Partitions are read in rounds: the first one alone, then as
//! many at once as will fill the page by what those before held. So a page reads little more than
//! it shows, whether topics are few or many. Of a topic that was found no further entry is read, so
//! that one of many nodes costs a page no more than one of few. Bounds of a page: the entries that it passes over
//! ([`looks_max`]), the partitions that are read at once ([`ROUND_MAX`]), and [`INDEXES_TIME_MAX`].
//! At one of them the page ends between two topics, because the next one begins after all entries
//! of the last.

use std::ops::ControlFlow;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::occupancy_store::{Begin, OccupancyError, OccupancyStore, read_entry};
use super::view::View;
use fanfare_protocol::ids::{App, Owner, Topic};

/// Partitions whose index is read at the same time.
const ROUND_MAX: u32 = 32;
/// How much larger than the one before a round may be.
const ROUND_GROWTH: u32 = 4;
/// After so long a page ends with what it has.
const INDEXES_TIME_MAX: Duration = Duration::from_secs(5);
/// The least that is read at once. What stands before a topic that a page wants (of the dead, or of
/// many nodes) is then passed in few round trips.
const ENTRIES_MIN: usize = 64;
/// Entries that a page may pass over for each topic that it may have: nodes that have joined it, or
/// have died with it.
const LOOKS_PER_TOPIC: usize = 16;
/// Entries that any page may pass over.
const LOOKS_MIN: usize = 4_096;

/// Topics of a page, and after which one to go on.
pub(super) type Candidates = (Vec<Topic>, Option<Topic>);

/// The first topics of an app after `after` that a live node has in an index.
///
/// # Errors
/// [`OccupancyError`]: an index cannot be read, or none that holds anything within the time.
pub(super) async fn candidates(
    store: &OccupancyStore,
    view: &View,
    (app, after): (&App, Option<&Topic>),
    limit: usize,
) -> Result<Candidates, OccupancyError> {
    let partitions_count = view.ring.partitions_count();
    let first = after.map_or(0, |topic| topic.partition(partitions_count));
    let end_at = Instant::now() + INDEXES_TIME_MAX;
    let mut page = PageBuilder::new(limit);
    let (mut round, mut size) = (first..first, 1);
    while round.end < partitions_count {
        round = round.end..partitions_count.min(round.end.saturating_add(size));
        let (entries_max, found_before) = (page.entries_wanted(), page.found.len());
        let mut parts = stream::iter(round.clone())
            .map(async |partition| {
                // Only the first partition is begun in the middle.
                let after = after.filter(|_| partition == first).cloned();
                let begin = after.map_or(Begin::Start, Begin::Topic);
                let part = store.indexed(partition, app, &begin, entries_max).await;
                part.map(|part| (partition, part))
            })
            .buffered(ROUND_MAX as usize);
        while let Some((partition, mut part)) = parts.try_next().await? {
            loop {
                let is_late = Instant::now() >= end_at;
                let is_live = |owner: &Owner| view.may_live(owner);
                if page.add(part.entries, is_live, is_late).is_break() {
                    return Ok(page.ended());
                }
                let Some(begin) = part.next else { break };
                let begin = page.behind_what_is_found(begin);
                let entries_max = page.entries_wanted();
                part = store.indexed(partition, app, &begin, entries_max).await?;
            }
            if Instant::now() >= end_at && partition + 1 < partitions_count {
                return page.ended_early();
            }
        }
        size = match page.found.len() - found_before {
            // Nothing here: wherever the next topic is, it shall be reached soon.
            0 => larger(size),
            _ => round_size(size, page.missing(), page.found.len(), round.end - first),
        };
    }
    Ok((page.found, None))
}

/// How many partitions will hold what is missing, if they hold as much as those that were read: of
/// these there are `read_count`, which held at least one topic.
fn round_size(before: u32, missing: usize, found_count: usize, read_count: u32) -> u32 {
    let enough = missing.saturating_mul(read_count as usize) / found_count.max(1);
    let most = larger(before);
    u32::try_from(enough).unwrap_or(most).clamp(1, most)
}

/// The largest round after one of this size.
fn larger(before: u32) -> u32 {
    before.saturating_mul(ROUND_GROWTH).min(ROUND_MAX)
}

/// A page as it grows.
#[derive(Debug)]
struct PageBuilder {
    limit: usize,
    found: Vec<Topic>,
    /// The topic whose entries are being passed.
    passing: Option<Topic>,
    /// Where the page ended.
    next: Option<Topic>,
    looks_left: usize,
}

impl PageBuilder {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            found: Vec::new(),
            passing: None,
            next: None,
            looks_left: looks_max(limit),
        }
    }

    /// Topics for which there is room.
    fn missing(&self) -> usize {
        self.limit.saturating_sub(self.found.len())
    }

    /// How many entries to read: one more topic tells that there is another page.
    fn entries_wanted(&self) -> usize {
        self.missing().saturating_add(1).max(ENTRIES_MIN)
    }

    /// Where to go on instead of after this entry: of a topic that was found nothing more is to be
    /// known.
    fn behind_what_is_found(&self, begin: Begin) -> Begin {
        let topic = match &begin {
            Begin::Entry(entry) => read_entry(entry).map(|(_, topic)| topic),
            Begin::Start | Begin::Topic(_) => None,
        };
        match topic.filter(|topic| self.found.last() == Some(topic)) {
            Some(found) => Begin::Topic(found),
            None => begin,
        }
    }

    /// Takes entries in their order. `Break`: the page has ended before the last of them.
    fn add(
        &mut self,
        entries: Vec<(Owner, Topic)>,
        is_live: impl Fn(&Owner) -> bool,
        is_late: bool,
    ) -> ControlFlow<()> {
        for (owner, topic) in entries {
            if self.passing.as_ref() != Some(&topic) {
                if self.passing.is_some() && (is_late || self.looks_left == 0) {
                    self.next = self.passing.take();
                    return ControlFlow::Break(());
                }
                self.passing = Some(topic.clone());
            }
            if self.found.last() == Some(&topic) || !is_live(&owner) {
                // Of a topic that many have, or of the dead: it costs as much as others.
                self.looks_left = self.looks_left.saturating_sub(1);
            } else if self.found.len() < self.limit {
                self.found.push(topic);
            } else {
                self.next = self.found.last().cloned();
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn ended(self) -> Candidates {
        (self.found, self.next)
    }

    /// Ends after a whole partition.
    fn ended_early(self) -> Result<Candidates, OccupancyError> {
        match self.passing {
            Some(last) => Ok((self.found, Some(last))),
            None => Err(OccupancyError::Late),
        }
    }
}

/// How many entries a page of so many topics may pass over.
fn looks_max(limit: usize) -> usize {
    limit.saturating_mul(LOOKS_PER_TOPIC).max(LOOKS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanfare_protocol::ids::App;

    fn topic(name: &str) -> Topic {
        Topic::new(&App::default_app(), name).expect("a name")
    }

    fn entries(all: &[(&str, &str)]) -> Vec<(Owner, Topic)> {
        let entry = |(name, owner): &(&str, &str)| {
            let owner: Owner = owner.parse().expect("an owner");
            (owner, topic(name))
        };
        all.iter().map(entry).collect()
    }

    fn is_live(owner: &Owner) -> bool {
        owner.node.as_str() != "dead"
    }

    #[test]
    fn a_page_that_is_late_ends_between_two_topics_and_loses_none() {
        let mut page = PageBuilder::new(10);
        let first = entries(&[("a", "live~1"), ("b", "dead~1")]);
        assert!(page.add(first, is_live, false).is_continue());
        // What a live node has of `b` is in the next part: the page goes on to its end.
        let second = entries(&[("b", "live~1"), ("c", "live~1")]);
        assert!(page.add(second, is_live, true).is_break());
        assert_eq!(
            page.ended(),
            (vec![topic("a"), topic("b")], Some(topic("b")))
        );
    }

    #[test]
    fn a_page_that_is_late_after_a_partition_goes_on_after_its_last_topic() {
        let mut page = PageBuilder::new(10);
        let dead = entries(&[("a", "dead~1")]);
        assert!(page.add(dead, is_live, true).is_continue());
        let page = page.ended_early().expect("a place to go on from");
        assert_eq!(page, (vec![], Some(topic("a"))));
        let nothing = PageBuilder::new(10).ended_early();
        assert!(matches!(nothing, Err(OccupancyError::Late)));
    }

    #[test]
    fn a_page_goes_on_behind_all_owners_of_a_topic_that_was_found_and_of_no_other() {
        let mut page = PageBuilder::new(2);
        let after = |entry: &str| Begin::Entry(format!("default:{entry}"));
        let goes_on =
            |page: &PageBuilder, entry: &str| match page.behind_what_is_found(after(entry)) {
                Begin::Topic(topic) => format!("behind {}", topic.name()),
                Begin::Entry(entry) => entry,
                Begin::Start => "anew".to_owned(),
            };
        let first = entries(&[("a", "live~1"), ("a", "live~2")]);
        assert!(page.add(first, is_live, false).is_continue());
        assert_eq!(goes_on(&page, "a live~2"), "behind a");
        // Nobody of `b` lives so far.
        let dead = entries(&[("b", "dead~1")]);
        assert!(page.add(dead, is_live, false).is_continue());
        assert_eq!(goes_on(&page, "b dead~1"), "default:b dead~1");
        // What cannot be read stands behind `a`, and is not read a second time.
        assert_eq!(goes_on(&page, "b"), "default:b");
        assert!(page.entries_wanted() >= ENTRIES_MIN);
    }

    #[test]
    fn a_round_is_as_large_as_what_is_missing() {
        assert_eq!((larger(1), larger(16)), (4, ROUND_MAX));
        // 39 in one partition: 61 are in one and a half more.
        assert_eq!(round_size(1, 61, 39, 1), 1);
        assert_eq!(round_size(1, 90, 10, 1), 4);
        assert_eq!(round_size(4, 50, 50, 5), 5);
        // The page is full: whether there is another one is in the next partition, most likely.
        assert_eq!(round_size(4, 0, 100, 5), 1);
    }
}
