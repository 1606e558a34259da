//! Feeders: each one connection to the HTTP API, and lists of messages to inboxes, one at a time.
//!
//! In: users of its own, a pace, the way that lists go. Out: how many messages were taken, and how long
//! each answer took. The messages of a list go to as many inboxes, in four priorities. Numbers are those
//! of a user and a priority, so what comes doubled or out of order is seen for each of them; a list is
//! posted only when all of the one before were taken, so that repeats change no order. What the server
//! refuses for now (429), and what it did not try because of that, is posted again, [`TRIES_MAX`] times;
//! any other refusal ends the load.

use std::cell::Cell;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::error::BenchError;
use super::lanes::{Counts, LANES_COUNT, Lanes};
use super::latency;
use super::load::Until;
use super::mark::Mark;
use super::publisher::{PublishError, Published, Publisher};
use super::tally::Tally;
use super::target::Target;
use super::wire::{Item, Refusal, Wire};

/// The priorities, the most urgent first, as the API names them.
pub const PRIORITIES: [&str; LANES_COUNT] = ["critical", "high", "normal", "low"];
/// Most tries of one list.
const TRIES_MAX: usize = 600;
/// Wait before the next try.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// The status of what may be taken later.
const LATER: u16 = 429;

/// When the next list leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// When the one before was taken, and at most so many messages are on their way.
    Ahead(u64),
    /// When the one before was taken.
    AtOnce,
    /// So many messages a second, over all feeders; late ones leave at once.
    PerSecond(f64),
}

/// What feeders are to do.
#[derive(Debug, Clone)]
pub struct Feed {
    /// The path of the API that takes the lists.
    pub path: &'static str,
    /// How many messages a list has.
    pub lengths: RangeInclusive<usize>,
    /// Of the messages, the parts of the priorities.
    pub parts: Counts,
    /// Length of the data of a message.
    pub bytes: usize,
    /// When the next list leaves.
    pub pace: Pace,
    /// When to stop; a count is of messages, over all feeders.
    pub until: Until,
    /// How long nothing may come before what is on its way counts as lost.
    pub patience: Duration,
}

/// What all feeders of a load share.
pub struct Shared {
    /// Where what comes is counted.
    pub tally: Rc<Tally>,
    /// The waits.
    pub lanes: Rc<Lanes>,
    /// Messages of lists that were begun, since the load began.
    pub begun: Cell<u64>,
}

/// One feeder.
pub struct Feeder {
    publisher: Publisher,
    wire: Rc<dyn Wire>,
    users: Vec<String>,
    /// The newest number of each user and priority.
    numbers: Vec<[u64; LANES_COUNT]>,
    /// Whose turn it is.
    turn: usize,
}

/// One message of a list: whose, how urgent, which.
#[derive(Debug, Clone, Copy)]
struct Chosen {
    user: usize,
    lane: usize,
    number: u64,
}

impl Feeder {
    /// Connects one that has these users to itself.
    ///
    /// # Errors
    /// [`BenchError::Publish`].
    pub async fn connect(
        target: &Target,
        index: usize,
        users: Vec<String>,
    ) -> Result<Self, BenchError> {
        Ok(Self {
            publisher: Publisher::connect(target, index).await?,
            wire: Rc::clone(&target.wire),
            numbers: vec![[0; LANES_COUNT]; users.len()],
            users,
            turn: 0,
        })
    }

    /// Posts lists until it is time to stop. `of` says how many feeders there are.
    ///
    /// # Errors
    /// [`BenchError::Publish`] for the first list that was refused for good.
    pub async fn run(
        &mut self,
        feed: &Feed,
        of: usize,
        shared: &Shared,
    ) -> Result<Published, BenchError> {
        let mut published = Published::default();
        let begin = Instant::now();
        let (mut due, mut pace) = (begin, feed.pace);
        let mut left = match feed.until {
            Until::Count(count) => count.div_ceil(of as u64),
            Until::Time(_) => u64::MAX,
        };
        loop {
            let is_over = match feed.until {
                Until::Time(time) => due.max(Instant::now()) >= begin + time,
                Until::Count(_) => left == 0,
            };
            if is_over {
                return Ok(published);
            }
            let count = rand::random_range(feed.lengths.clone()) as u64;
            let count = count.min(left);
            left -= count;
            match pace {
                Pace::AtOnce => {}
                Pace::PerSecond(rate) => {
                    tokio::time::sleep_until(due.into()).await;
                    let late_us = latency::micros(due.elapsed());
                    published.late.saturating_record(late_us);
                    due += Duration::from_secs_f64((count * of as u64) as f64 / rate);
                }
                Pace::Ahead(ahead) => {
                    let to_come = (shared.begun.get() + count).saturating_sub(ahead);
                    if !shared.tally.until(to_come, feed.patience).await {
                        pace = Pace::AtOnce;
                    }
                }
            }
            shared.begun.set(shared.begun.get() + count);
            let list = self.choose(count, &feed.parts);
            let begin = Instant::now();
            self.until_taken(feed, list, shared, &mut published).await?;
            published.sent += count;
            let took_us = latency::micros(begin.elapsed());
            published.answer.saturating_record(took_us);
        }
    }

    /// The messages of the next list: users by turns, priorities by chance.
    fn choose(&mut self, count: u64, parts: &Counts) -> Vec<Chosen> {
        let all: u64 = parts.iter().sum();
        let list = (0..count).map(|_| {
            let mut drawn = rand::random_range(0..all);
            let mut lane = 0;
            while drawn >= parts[lane] {
                drawn -= parts[lane];
                lane += 1;
            }
            let user = self.turn;
            self.turn = (self.turn + 1) % self.users.len();
            self.numbers[user][lane] += 1;
            Chosen {
                user,
                lane,
                number: self.numbers[user][lane],
            }
        });
        list.collect()
    }

    async fn until_taken(
        &mut self,
        feed: &Feed,
        mut list: Vec<Chosen>,
        shared: &Shared,
        published: &mut Published,
    ) -> Result<(), BenchError> {
        for _ in 0..TRIES_MAX {
            list = self.post(feed, list, shared).await?;
            if list.is_empty() {
                return Ok(());
            }
            published.repeated += list.len() as u64;
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        let text = format!("{} messages were refused {TRIES_MAX} times", list.len());
        Err(self.publisher.refused(LATER, text).into())
    }

    /// Posts a list once. Returns what of it was refused for now.
    async fn post(
        &mut self,
        feed: &Feed,
        list: Vec<Chosen>,
        shared: &Shared,
    ) -> Result<Vec<Chosen>, BenchError> {
        let sent_us = shared.lanes.sent(&counts(&list), shared.tally.now_us());
        let items = list.iter().map(|chosen| {
            let mark = Mark {
                publisher: chosen.lane,
                number: chosen.number,
                sent_us,
            };
            Item {
                user: &self.users[chosen.user],
                priority: PRIORITIES[chosen.lane],
                data: mark.text(feed.bytes),
            }
        });
        let items: Vec<_> = items.collect();
        let call = self.wire.list(feed.path, &items);
        let call = call.expect("only fanfare.v1 has this scenario");
        drop(items);
        let refused = match self.publisher.post(call).await {
            Ok(answer) => {
                let refusals = self.wire.refused_of(&answer).into_iter();
                let refused = refusals.map(|refusal| self.again(&list, &refusal));
                refused.collect::<Result<Vec<_>, _>>()?
            }
            Err(PublishError::Refused { status: LATER, .. }) => list,
            Err(error) => return Err(error.into()),
        };
        let now_us = shared.tally.now_us();
        shared.lanes.taken(sent_us, &counts(&refused), now_us);
        Ok(refused)
    }

    /// The message that was refused, where it may be posted again.
    fn again(&self, list: &[Chosen], refusal: &Refusal) -> Result<Chosen, PublishError> {
        let chosen = list.get(refusal.index).filter(|_| refusal.may_be_repeated);
        let final_refusal = || self.publisher.refused(200, refusal.text.clone());
        chosen.copied().ok_or_else(final_refusal)
    }
}

fn counts(list: &[Chosen]) -> Counts {
    let mut counts = Counts::default();
    for chosen in list {
        counts[chosen.lane] += 1;
    }
    counts
}
