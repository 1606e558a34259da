//! Keeps this node's table up to date: reads when the doorbell rings, and twice a second.
//!
//! In: the doorbell, time, the store. Out: readings into [`Revocations`], what is written back, figures
//! and what the log says. Owner: the control runtime. Bounds: one reading at a time, of
//! [`PAGES_MAX`] pages at the most; what rings meanwhile is one more. A call that is not answered ends
//! by the timeout of its link.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::adding::{Added, Adding, Asked};
use super::known::Revocations;
use super::reader::{BACK, Next, PAGE, Reader};
use super::store::{Store, StoreError};
use super::{ENTRIES_MAX, KEPT_BEYOND_MS, Row};

/// How often is read though nothing rings.
pub const READ_EVERY: Duration = Duration::from_millis(500);
/// The same before the first reading, for which the readiness of the node waits.
const FIRST_EVERY: Duration = Duration::from_millis(50);
/// For so long a node is not ready because of it, at the most.
const FIRST_WITHIN: Duration = Duration::from_secs(3);
/// How often ended entries are looked for in the store, by each node.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// Twice all that a store may have, in pages.
const PAGES_MAX: usize = 2 * ENTRIES_MAX / PAGE;

/// The task. The caller runs it; it has no end of its own.
#[derive(Debug)]
pub struct Runner {
    /// What is known.
    pub known: Revocations,
    /// Where it is read.
    pub store: Store,
    /// How long a token may live.
    pub token_life_max: Duration,
    /// Told when this node has read further than it said before.
    pub progress: Arc<Notify>,
}

/// How long an entry is kept, where tokens live for so long at the most.
#[must_use]
pub fn kept_ms(token_life_max: Duration) -> u64 {
    let life_ms = u64::try_from(token_life_max.as_millis()).unwrap_or(u64::MAX);
    life_ms.saturating_add(KEPT_BEYOND_MS)
}

impl Runner {
    /// Reads for as long as the node runs.
    pub async fn run(self) {
        let mut reader = Reader::default();
        let mut looks = tokio::time::interval(READ_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut tidied_at, mut is_failing) = (Instant::now(), false);
        let begun_at = Instant::now();
        loop {
            // Both waits are cancel-safe.
            tokio::select! {
                _ = looks.tick() => {}
                () = self.known.rung() => {}
            }
            let before = self.known.read_to();
            match self.read(&mut reader).await {
                Ok(()) if is_failing => {
                    is_failing = false;
                    tracing::info!(event = "revocations_read", "revocations can be read again");
                }
                Ok(()) => {}
                Err(error) => self.failed(&error, &mut is_failing),
            }
            if self.known.is_new() {
                looks.reset_after(FIRST_EVERY);
                if begun_at.elapsed() >= FIRST_WITHIN {
                    self.known.wait_no_longer();
                }
            }
            if self.known.read_to() != before {
                self.progress.notify_one();
            }
            let (count, bytes) = self.known.size();
            self.known.metrics().entries.set(count as u64);
            self.known.metrics().bytes.set(bytes as u64);
            if tidied_at.elapsed() >= TIDY_EVERY {
                tidied_at = Instant::now();
                self.tidy().await;
            }
        }
    }

    fn failed(&self, error: &StoreError, is_failing: &mut bool) {
        self.known.metrics().failed.add(1);
        // While the first reading is waited for the node is not ready, and says why.
        if !self.known.is_new() && !std::mem::replace(is_failing, true) {
            let error = error as &(dyn std::error::Error + 'static);
            tracing::warn!(
                event = "revocations_missed",
                error,
                "revocations cannot be read; if that lasts, no token is taken"
            );
        }
    }

    async fn read(&self, reader: &mut Reader) -> Result<(), StoreError> {
        let begun_at = Instant::now();
        let mut next = Next::Ask(reader.begin());
        for _ in 0..PAGES_MAX {
            next = match next {
                Next::Ask(since) => {
                    let page = self.store.read(since).await?;
                    self.known.take(&page, reader)
                }
                Next::WriteBack(rows) => {
                    let is_taken = self.write_back(&rows).await?;
                    reader.written_back(is_taken)
                }
                Next::Settled => break,
            };
        }
        if next == Next::Settled {
            self.known.settled(begun_at, reader);
        }
        Ok(())
    }

    /// Gives the store what it lacks. False: it takes no more entries.
    async fn write_back(&self, rows: &[Row]) -> Result<bool, StoreError> {
        tracing::warn!(
            event = "revocations_restored",
            count = rows.len(),
            "Redis lacked revocations that this node knows, and gets them back"
        );
        for rows in rows.chunks(BACK) {
            let adding = self.adding(rows.iter().map(Asked::from).collect());
            if let Added::Full(_) = self.store.add(&adding).await? {
                return Ok(false);
            }
            self.known.metrics().restored.add(rows.len() as u64);
        }
        Ok(true)
    }

    fn adding(&self, asked: Vec<Asked>) -> Adding {
        Adding {
            asked,
            kept_ms: kept_ms(self.token_life_max),
            above: self.known.read_to(),
            most: ENTRIES_MAX,
        }
    }

    /// Lets the store forget what has ended.
    async fn tidy(&self) {
        if let Err(error) = self.store.add(&self.adding(Vec::new())).await {
            let error = &error as &(dyn std::error::Error + 'static);
            tracing::debug!(
                event = "revocations_retained",
                error,
                "revocations that have ended stay for now"
            );
        }
    }
}
