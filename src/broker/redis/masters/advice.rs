//! What an operator should do for as many masters as there are, though everything works.
//!
//! In: the masters that are used now, those for which files are set apart, the partitions. Out: a sentence
//! for each thing to do, and a line of the log where it is news. Owns which numbers of masters were
//! told. Bounds: none of its own.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::Masters;

/// With so many partitions a master, no master has much more than a quarter above its share.
const PARTITIONS_PER_MASTER_MIN: usize = 32;

/// The largest numbers of masters that were reported as too many.
#[derive(Debug, Default)]
pub(super) struct Told {
    for_files: AtomicUsize,
    for_partitions: AtomicUsize,
}

impl Masters {
    /// What to do where there are more masters than files are set apart for.
    #[must_use]
    pub fn too_many_masters(&self) -> Option<String> {
        let (count, planned) = (self.masters().len(), self.masters_planned);
        (count > planned).then(|| {
            format!(
                "Redis has {count} masters, and files are set apart for {planned}: list as many \
                 hosts of the cluster in redis.url, and the file limit is checked for them"
            )
        })
    }

    /// What to do where there are too few partitions for the masters to be used alike.
    #[must_use]
    pub fn too_few_partitions(&self) -> Option<String> {
        let (count, partitions) = (self.masters().len(), self.keys.partitions_count() as usize);
        let are_few = count > 1 && partitions < PARTITIONS_PER_MASTER_MIN * count;
        are_few.then(|| {
            format!(
                "Redis has {count} masters for {partitions} partitions, so that some have much more \
                 of the load than others: 1024 suit up to 16 masters, see redis.partitions"
            )
        })
    }

    /// Tells each once, and again where there are more masters yet.
    pub(super) fn advise(&self) {
        let count = self.masters().len();
        let is_news = |told: &AtomicUsize| told.fetch_max(count, Ordering::Relaxed) < count;
        let Told {
            for_files,
            for_partitions,
        } = &self.advice_told;
        if let Some(reason) = self.too_many_masters()
            && is_news(for_files)
        {
            tracing::warn!(
                event = "redis_files_missed",
                reason,
                "Redis has more masters than files are set apart for"
            );
        }
        if let Some(reason) = self.too_few_partitions()
            && is_news(for_partitions)
        {
            tracing::warn!(
                event = "redis_partitions_missed",
                reason,
                "Redis has more masters than its partitions can be spread over"
            );
        }
    }
}
