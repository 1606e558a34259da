//! Keeps this node's table up to date: reads when the doorbell rings, and twice a second.
//!
//! In: the doorbell, time, the store. Out: readings into [`Revocations`], what is written back or put
//! right in the store, figures and what the log says. Owner: the control runtime. Bounds: one reading at a time, of
//! [`PAGES_MAX`] pages at the most; what rings meanwhile is one more. A call that is not answered ends
//! by the timeout of its link.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::adding::{Added, Adding, Asked, Mended, Mending};
use super::back::Back;
use super::known::Revocations;
use super::planted;
use super::reader::{BACK, Next, PAGE, Reader, STAGGER_MAX};
use super::store::{Store, StoreError};
use super::{ENTRIES_ALL_MAX, ENTRIES_BACK_MAX, Row};
use crate::telemetry::fields::List;

/// How often is read though nothing rings.
pub const READ_EVERY: Duration = Duration::from_millis(500);
/// Least time from one reading to the next, however often it rings: each costs Redis the same for every
/// node, and one reads what many calls added.
const RUNG_APART: Duration = Duration::from_millis(50);
/// How often is read before the first reading was, for which the readiness of the node waits.
const FIRST_EVERY: Duration = Duration::from_millis(50);
/// For so long a node is not ready because of it, at the most.
const FIRST_WITHIN: Duration = Duration::from_secs(3);
/// How often ended entries are looked for in the store, by each node.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// So long others need to write back what was dropped: they look by chance, and then read everything.
const WRITTEN_BACK_WITHIN: Duration = READ_EVERY.saturating_mul(STAGGER_MAX + 2);
/// A node that has read nothing yet tries so often to agree with the store, which puts itself right at
/// most every 3 s, before it goes on with what it could read.
const TRIES: u32 = 5;
const TRIED_AFTER: Duration = Duration::from_secs(1);
/// Four times all that a store may have, in pages: before it is asked to put itself right, and after.
const PAGES_MAX: usize = 4 * ENTRIES_ALL_MAX / PAGE;
/// A difference that lasts for so long is told: a call that revokes is answered 202 meanwhile.
pub const DIFFERS_AFTER: Duration = Duration::from_secs(10);

/// The task. The caller runs it; it has no end of its own.
#[derive(Debug)]
pub struct Runner {
    /// What is known.
    pub known: Revocations,
    /// Where it is read.
    pub store: Store,
    /// Told when this node has read further than it said before.
    pub progress: Arc<Notify>,
}

/// What was told in the log and is not over.
#[derive(Debug, Default)]
struct Told {
    is_failing: bool,
    differs: bool,
}

impl Runner {
    /// Reads for as long as the node runs.
    pub async fn run(self) {
        let mut reader = Reader::default();
        let mut looks = tokio::time::interval(self.known.read_every(READ_EVERY));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut tidied_at, mut told) = (None::<Instant>, Told::default());
        let (begun_at, mut tries) = (Instant::now(), 0);
        let mut last_at = None;
        loop {
            // Both waits are cancel-safe: a ring that is lost to the tick is answered by its reading.
            tokio::select! {
                _ = looks.tick(), if planted::polls() || self.known.read_at().is_none() => {}
                () = self.rung(last_at) => {}
            }
            last_at = Some(Instant::now());
            let before = self.known.read_to();
            let outcome = self.read(&mut reader, tries >= TRIES).await;
            if outcome.is_ok() && self.known.read_at().is_none() {
                tries += 1;
                reader = Reader::default();
                tokio::time::sleep(TRIED_AFTER).await;
            }
            if self.known.is_new() && self.known.read_at().is_none() {
                looks.reset_after(FIRST_EVERY);
            }
            let is_late = begun_at.elapsed() >= FIRST_WITHIN;
            self.tell(&outcome, is_late, &mut told);
            match outcome {
                Ok(()) => {
                    self.store_again().await;
                    self.lengthen(&reader).await;
                }
                // Where it is not away, no other node could read it either: this one stays out.
                Err(error) if error.is_lasting() => {
                    self.mend(None, Vec::new()).await;
                }
                Err(_) if is_late && self.known.read_at().is_none() => self.known.wait_no_longer(),
                Err(_) => {}
            }
            if self.known.read_to() != before {
                self.progress.notify_one();
            }
            let (count, bytes) = self.known.size();
            self.known.metrics().entries.set(count as u64);
            self.known.metrics().bytes.set(bytes as u64);
            if tidied_at.is_none_or(|at| at.elapsed() >= TIDY_EVERY) {
                tidied_at = Some(Instant::now());
                self.tidy().await;
            }
        }
    }

    /// Returns when it was rung, and not too soon after the last reading.
    async fn rung(&self, last_at: Option<Instant>) {
        self.known.rung().await;
        let since = last_at.map_or(RUNG_APART, |at| at.elapsed());
        tokio::time::sleep(RUNG_APART.saturating_sub(since)).await;
    }

    /// Counts what failed, and says in the log what begins and ends.
    fn tell(&self, outcome: &Result<(), StoreError>, is_late: bool, told: &mut Told) {
        match outcome {
            Ok(()) => {
                if std::mem::take(&mut told.is_failing) {
                    tracing::info!(event = "revocations_read", "revocations can be read again");
                }
            }
            Err(error) => {
                self.known.metrics().failed.add(1);
                // While the first reading is waited for the node is not ready, and says why.
                let is_to_be_told = is_late || !self.known.is_new();
                if is_to_be_told && !std::mem::replace(&mut told.is_failing, true) {
                    let error = error as &(dyn std::error::Error + 'static);
                    tracing::warn!(
                        event = "revocations_missed",
                        error,
                        "revocations cannot be read; if that lasts, no token is taken"
                    );
                }
            }
        }
        let differs = self
            .known
            .differs_for()
            .is_some_and(|time| time >= DIFFERS_AFTER);
        self.known.metrics().differs.set(u64::from(differs));
        let is_unread = self.known.unread().is_some();
        self.known.metrics().unread.set(u64::from(is_unread));
        if differs && !std::mem::replace(&mut told.differs, true) {
            tracing::warn!(
                event = "revocations_differed",
                "Redis has other revocations than this node reads there, and that could not be put \
                 right: what is revoked holds, but calls that revoke are answered 202"
            );
        }
        told.differs = differs;
    }

    /// Reads once. The first reading counts only where table and store agree, or may differ.
    async fn read(&self, reader: &mut Reader, may_differ: bool) -> Result<(), StoreError> {
        // When what is new was asked for last.
        let mut new_at = Instant::now();
        reader.stagger(rand::random::<u32>() % (STAGGER_MAX + 1));
        let mut next = Next::Ask(reader.begin());
        for _ in 0..PAGES_MAX {
            // Everything is a hundred answers, and Redis may have much to do.
            if new_at.elapsed() >= READ_EVERY
                && let Some(since) = reader.is_looking()
            {
                new_at = Instant::now();
                let page = self.store.read(since).await?;
                self.known.take_new(&page, reader, new_at);
            }
            next = match next {
                Next::Ask(since) => {
                    let page = self.store.read(since).await?;
                    self.known.take(&page, reader)
                }
                Next::WriteBack(rows) => {
                    // All that the store has was read: what it lost this node had already.
                    self.known.looked(new_at);
                    let is_taken = self.write_back(rows, reader, &mut new_at).await?;
                    reader.written_back(is_taken)
                }
                Next::Mend { seen, unreadable } => {
                    let has_dropped = self.mend(Some(seen), unreadable).await;
                    // Those who know it write it back. This node, which has read nothing yet, would
                    // take its tokens until then.
                    if has_dropped && self.known.read_at().is_none() {
                        tokio::time::sleep(WRITTEN_BACK_WITHIN).await;
                    }
                    self.known.mended(reader)
                }
                Next::Settled => break,
            };
        }
        let is_first = self.known.read_at().is_none();
        if next == Next::Settled && (!is_first || may_differ || reader.read_to().is_some()) {
            self.known.settled(new_at, reader);
        }
        Ok(())
    }

    /// Gives the store what it lacks, and reads between the chunks what is new: revocations count at once,
    /// and what others have written back need not be written again. False: the store takes no more
    /// entries, or nothing at the moment. `new_at`: when what is new was asked for last.
    async fn write_back(
        &self,
        rows: Vec<Row>,
        reader: &mut Reader,
        new_at: &mut Instant,
    ) -> Result<bool, StoreError> {
        let mut count = 0;
        let mut chance = |below: usize| rand::random::<u64>() as usize % below;
        let mut back = Back::new(rows, &mut chance);
        loop {
            let rows = back.chunk();
            if rows.is_empty() {
                break;
            }
            let adding = self.adding(rows.iter().map(Asked::from).collect());
            match self.store.add(&adding).await {
                Ok(Added::Stored(_)) => self.known.metrics().restored.add(rows.len() as u64),
                Ok(Added::Full(_)) => return Ok(false),
                Err(error) => {
                    self.retained(&error);
                    return Ok(false);
                }
            }
            count += rows.len();
            for _ in 0..PAGES_MAX {
                let begun_at = Instant::now();
                let page = self.store.read(reader.cursor()).await?;
                back.saw(&page);
                if self.known.take_new(&page, reader, begun_at) {
                    *new_at = begun_at;
                    break;
                }
            }
        }
        tracing::warn!(
            event = "revocations_restored",
            count,
            "Redis lacked revocations that this node knows, and got them back from it or from others"
        );
        Ok(true)
    }

    /// Gives the store what it had taken of this node and lost before anybody read it.
    async fn store_again(&self) {
        let lacking = self.known.lacking();
        for asked in lacking.chunks(BACK) {
            match self.store.add(&self.adding(asked.to_vec())).await {
                Ok(_) => self.known.metrics().restored.add(asked.len() as u64),
                Err(error) => return self.retained(&error),
            }
        }
        if !lacking.is_empty() {
            tracing::warn!(
                event = "revocations_restored",
                count = lacking.len(),
                "Redis had taken revocations of this node and lost them before they were read, and got them back"
            );
            self.known.ring();
        }
    }

    /// Lets the store put itself right. What it cannot do now it is asked again. Returns whether it
    /// dropped anything.
    async fn mend(&self, seen: Option<(u64, u64)>, unreadable: Vec<Vec<u8>>) -> bool {
        let mending = Mending {
            seen,
            kept_ms: self.known.kept_ms(),
            unreadable,
        };
        match self.store.mend(&mending).await {
            Ok(Mended::Done(dropped, names)) => {
                self.known.metrics().mended.add(1);
                tracing::warn!(
                    event = "revocations_mended",
                    dropped,
                    names = List::of(&names).value(),
                    "Redis went through all revocations and put right what is not as they were left; \
                     those without an entry that can be read are gone, until a node that knows them \
                     writes them back"
                );
                return dropped > 0;
            }
            Ok(Mended::Left) => {}
            Err(error) => self.retained(&error),
        }
        false
    }

    /// Where tokens may live longer than whoever made the entries knew, these are kept for longer.
    async fn lengthen(&self, reader: &Reader) {
        let kept_ms = self.known.kept_ms();
        if reader.kept_ms() == 0 || reader.kept_ms() >= kept_ms {
            return;
        }
        let mending = Mending {
            kept_ms,
            ..Mending::default()
        };
        match self.store.mend(&mending).await {
            Ok(_) => tracing::info!(
                event = "revocations_lengthened",
                kept_s = kept_ms / 1_000,
                "tokens may live longer than before, and revocations are kept for as long"
            ),
            Err(error) => self.retained(&error),
        }
    }

    fn adding(&self, asked: Vec<Asked>) -> Adding {
        Adding {
            asked,
            kept_ms: self.known.kept_ms(),
            above: self.known.read_to(),
            most: ENTRIES_BACK_MAX,
            ..Adding::default()
        }
    }

    /// Lets the store forget what has ended, and says how long entries are kept.
    async fn tidy(&self) {
        if let Err(error) = self.store.add(&self.adding(Vec::new())).await {
            self.retained(&error);
        }
    }

    fn retained(&self, error: &StoreError) {
        let error = error as &(dyn std::error::Error + 'static);
        tracing::debug!(
            event = "revocations_retained",
            error,
            "the store of revocations could not be changed, and stays as it is for now"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::reader::Page;
    use fanfare_testkit::wait;

    fn runner(known: &Revocations) -> Runner {
        Runner {
            known: known.clone(),
            store: Store::memory(),
            progress: Arc::default(),
        }
    }

    #[tokio::test]
    async fn what_is_there_is_kept_longer_when_tokens_may_live_longer() {
        let known = Revocations::default();
        known.set_token_life(Duration::from_secs(60));
        let runner = runner(&known);
        let store = runner.store.clone();
        let asked = Asked {
            name: "u default ada".into(),
            issued_before: Some(5),
            until_ms: None,
        };
        let added = store.add(&runner.adding(vec![asked])).await;
        assert_eq!(added.expect("an answer"), Added::Stored(5));
        let until_ms = store.read(0).await.expect("an answer").rows[0]
            .mark
            .until_ms;
        let task = tokio::spawn(runner.run());
        wait::until("it to be read", async || {
            (known.size().0 == 1).then_some(())
        })
        .await;
        known.set_token_life(Duration::from_secs(3_600));
        wait::until("it to be kept for an hour more", async || {
            let page = store.read(0).await.ok()?;
            (page.rows[0].mark.until_ms == until_ms + 3_540_000).then_some(())
        })
        .await;
        task.abort();
    }

    #[tokio::test]
    async fn while_a_node_writes_back_it_reads_and_leaves_out_what_others_have_written() {
        let known = Revocations::clustered(Duration::from_secs(5));
        let runner = runner(&known);
        let asked = |number: usize| Asked {
            name: format!("u default user-{number}").into(),
            issued_before: Some(5),
            until_ms: None,
        };
        let all = runner.adding((0..3_000).map(asked).collect());
        let before = Store::memory();
        before.add(&all).await.expect("an answer");
        let mut rows = Vec::new();
        for _ in 0..3 {
            let since = rows.last().map_or(0, |row: &Row| row.at);
            rows.extend(before.read(since).await.expect("an answer").rows);
        }
        assert_eq!(rows.len(), 3_000);
        let mut reader = Reader::default();
        assert_eq!(known.take(&Page::default(), &mut reader), Next::Settled);
        known.settled(Instant::now(), &reader);
        // Another node has written back most of it by then, and somebody was put out.
        let others = runner.adding(rows[..2_800].iter().map(Asked::from).collect());
        runner.store.add(&others).await.expect("an answer");
        let eve = Asked {
            name: "u default eve".into(),
            ..asked(0)
        };
        let eve = runner.adding(vec![eve]);
        runner.store.add(&eve).await.expect("an answer");
        known.joined();
        assert!(known.unread().is_some(), "it has lost its lease as well");
        let is_taken = runner
            .write_back(rows, &mut reader, &mut Instant::now())
            .await;
        assert!(is_taken.expect("an answer"));
        let restored = known.metrics().restored.get();
        assert!((200..=700).contains(&restored), "{restored}");
        assert_eq!(known.size().0, 3_001, "what is new was read");
        assert_eq!(known.unread(), None, "these readings count");
        let next = reader.written_back(true);
        let Next::Ask(since) = next else {
            panic!("{next:?}")
        };
        let page = runner.store.read(since).await.expect("an answer");
        assert_eq!(known.take(&page, &mut reader), Next::Settled);
        known.settled(Instant::now(), &reader);
        let eve: Box<str> = "u default eve".into();
        assert!(known.covers(known.read_to(), &[eve], 5), "and is promised");
    }

    #[test]
    fn what_was_promised_has_room_when_it_is_written_back() {
        let runner = runner(&Revocations::default());
        assert!(runner.adding(Vec::new()).most >= 2 * ENTRIES_ALL_MAX);
    }
}
