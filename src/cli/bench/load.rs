//! Publications on a topic: by how many, how fast, for how long.
//!
//! In: connected publishers and a [`Pace`]. Out: what they have published. All publish from the
//! one thread of the generator, each waiting for its own answer.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::error::BenchError;
use super::publisher::{Published, Publisher};
use super::tally::{self, Tally};
use super::target::Target;
use super::wire::Destination;

/// When the next publication leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// When the one before was answered.
    Waiting,
    /// So many a second, over all publishers; late ones leave at once.
    PerSecond(f64),
}

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// After this time.
    Time(Duration),
    /// After so many, over all publishers.
    Count(u64),
}

/// Publishers that are connected.
pub struct Load {
    publishers: Vec<Publisher>,
    topic: String,
    bytes: usize,
}

impl Load {
    /// Connects publishers.
    ///
    /// # Errors
    /// [`BenchError::Publish`].
    pub async fn connect(
        target: &Target,
        publishers: usize,
        bytes: usize,
    ) -> Result<Self, BenchError> {
        let dials = (0..publishers).map(|index| Publisher::connect(target, index));
        Ok(Self {
            publishers: try_join_all(dials).await?,
            topic: target.topic.clone(),
            bytes,
        })
    }

    /// Publishes.
    ///
    /// # Errors
    /// [`BenchError::Publish`] for the first publication that failed for good.
    pub async fn run(
        &mut self,
        pace: Pace,
        until: Until,
        clock: &Tally,
    ) -> Result<Published, BenchError> {
        let count = self.publishers.len();
        let begin = Instant::now();
        let works = self
            .publishers
            .iter_mut()
            .enumerate()
            .map(|(index, publisher)| {
                let share = Share {
                    every: match pace {
                        Pace::Waiting => None,
                        Pace::PerSecond(rate) => Some(Duration::from_secs_f64(count as f64 / rate)),
                    },
                    first_after: index as f64 / count as f64,
                    until: match until {
                        Until::Count(all) => {
                            let (count, index) = (count as u64, index as u64);
                            Until::Count(all / count + u64::from(index < all % count))
                        }
                        time @ Until::Time(_) => time,
                    },
                    begin,
                };
                share.run(
                    publisher,
                    Destination::Topic(&self.topic),
                    self.bytes,
                    clock,
                )
            });
        let mut all = Published::default();
        for part in try_join_all(works).await? {
            all.add(&part);
        }
        Ok(all)
    }
}

/// What one publisher does of a load.
struct Share {
    every: Option<Duration>,
    /// Of `every`, so that publishers take turns.
    first_after: f64,
    until: Until,
    begin: Instant,
}

impl Share {
    async fn run(
        self,
        publisher: &mut Publisher,
        to: Destination<'_>,
        bytes: usize,
        clock: &Tally,
    ) -> Result<Published, BenchError> {
        let mut published = Published::default();
        let mut due = self.begin + self.every.unwrap_or_default().mul_f64(self.first_after);
        loop {
            let is_over = match self.until {
                Until::Time(time) => due.max(Instant::now()) >= self.begin + time,
                Until::Count(count) => published.sent >= count,
            };
            if is_over {
                return Ok(published);
            }
            if let Some(every) = self.every {
                tokio::time::sleep_until(due.into()).await;
                published
                    .late
                    .saturating_record(tally::micros(due.elapsed()));
                due += every;
            }
            publisher.publish(to, bytes, clock, &mut published).await?;
        }
    }
}
