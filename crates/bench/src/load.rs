//! Publications on a topic: by how many, how fast, for how long.
//!
//! In: connected publishers and a [`Pace`]. Out: what they have published. All publish from the
//! one thread of the generator, each waiting for its own answer. A node answers when its broker has
//! a publication, not when everybody has received it; so publishers without a pace would outrun
//! delivery without a bound, and [`Ahead`] is theirs.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::error::BenchError;
use super::latency;
use super::publisher::{Published, Publisher};
use super::tally::Tally;
use super::target::Target;
use super::wire::Destination;

/// When the next publication leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// When the one before was answered, and not too far ahead of the sessions.
    Waiting(Ahead),
    /// So many a second, over all publishers; late ones leave at once.
    PerSecond(f64),
}

/// How far publishers may be ahead of the sessions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ahead {
    /// Publications that may be on their way to sessions.
    pub publications: u64,
    /// How many sessions each of them goes to.
    pub sessions: u64,
    /// After how long without a message what is on its way counts as lost; from then on nothing
    /// is waited for.
    pub patience: Duration,
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
    /// Publications begun since the load was connected.
    begun: Cell<u64>,
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
            begun: Cell::new(0),
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
        let begun = &self.begun;
        let works = self
            .publishers
            .iter_mut()
            .enumerate()
            .map(|(index, publisher)| {
                let share = Share {
                    every: match pace {
                        Pace::Waiting(_) => None,
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
                    ahead: match pace {
                        Pace::Waiting(ahead) => Some(ahead),
                        Pace::PerSecond(_) => None,
                    },
                    begun,
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
struct Share<'a> {
    every: Option<Duration>,
    /// Of `every`, so that publishers take turns.
    first_after: f64,
    until: Until,
    begin: Instant,
    ahead: Option<Ahead>,
    begun: &'a Cell<u64>,
}

impl Share<'_> {
    async fn run(
        mut self,
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
                    .saturating_record(latency::micros(due.elapsed()));
                due += every;
            }
            self.begun.set(self.begun.get() + 1);
            if let Some(ahead) = self.ahead {
                let to_come = self.begun.get().saturating_sub(ahead.publications);
                if !clock.until(to_come * ahead.sessions, ahead.patience).await {
                    self.ahead = None;
                }
            }
            publisher.publish(to, bytes, clock, &mut published).await?;
        }
    }
}
