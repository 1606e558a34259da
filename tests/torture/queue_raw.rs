//! Hands entries to the durable queue by `XADD`, as a backend does that has Redis at hand.
//!
//! In: a rate. Out: entries of any target and priority, one after the answer of the other; every
//! second one rings the bell. What was refused was not done, and is repeated. Where the answer was
//! lost the entry is of unknown outcome and is not repeated: nobody would find the repeat. A burst
//! ([`RawWriter::burst`]) hands over many entries of one target without waiting, so that its home is
//! in the middle of moving them. Bound: [`TRIES_AFTER_END`] after the end of the run.

use std::rc::Rc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until};

use super::app::App;
use super::history::{EntryName, Taken};
use super::queue::{self, Numbers};
use super::queue_backend::TRIES_AFTER_END;
use super::queue_redis::{Doors, Told, Wire};
use super::redis_form::Form;
use super::run::Run;
use fanfare_protocol::ids::Position;

/// Between two attempts at first, and at most.
const REST: Duration = Duration::from_millis(50);
const REST_MAX: Duration = Duration::from_millis(800);
/// How often a burst is tried again of which everything was refused.
const BURST_TRIES: u32 = 20;

/// See the module.
pub(crate) struct RawWriter {
    run: Rc<Run>,
    numbers: Numbers,
    wire: Wire,
    /// The command that publishes.
    ring: &'static str,
}

impl RawWriter {
    /// One that has handed over nothing.
    pub(crate) fn new(run: &Rc<Run>, doors: &Doors) -> Self {
        let is_cluster = doors.form == Form::Cluster;
        Self {
            run: Rc::clone(run),
            numbers: Numbers::of_new_writer(run),
            wire: Wire::to(doors, queue::PARTITIONS_COUNT),
            ring: if is_cluster { "SPUBLISH" } else { "PUBLISH" },
        }
    }

    /// Hands over until the run is over, an entry each `every`.
    pub(crate) async fn write(mut self, seed: u64, every: Duration) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut next = Instant::now();
        loop {
            sleep_until(next).await;
            if self.run.is_over.get() {
                return;
            }
            next = Instant::now() + every;
            let name = self.numbers.any(&mut random, App::Default, false);
            self.one(name, random.random_ratio(1, 2)).await;
        }
    }

    async fn one(&mut self, name: EntryName, rings: bool) {
        self.run.queue_begun([name].into_iter(), true);
        let partition = queue::partition(name.target);
        let (mut rest, mut over) = (REST, None);
        let taken = loop {
            let told = self.wire.ask(partition, &[command(name)]).await;
            match taken(&told[0]) {
                Taken::Fail => {}
                taken => break taken,
            }
            if self.run.is_over.get() {
                let since = *over.get_or_insert_with(Instant::now);
                if since.elapsed() > TRIES_AFTER_END {
                    break Taken::Fail;
                }
            }
            sleep(rest).await;
            rest = (rest * 2).min(REST_MAX);
        };
        self.run.queue_ended(name, taken);
        if rings && taken != Taken::Fail {
            let bell = format!("ff:{{{partition}}}:bell");
            let words = [self.ring, &bell, ""].map(str::to_owned).to_vec();
            // What is not heard is seen a little later.
            self.wire.ask(partition, &[words]).await;
        }
    }

    /// Hands over so many entries of one target at once. A burst is tried again only where all of it
    /// was refused.
    pub(crate) async fn burst(mut self, target: u16, count: u32) {
        let names = (0..count).map(|number| self.numbers.next(target, (number % 4) as u8));
        let names: Vec<_> = names.collect();
        self.run.queue_begun(names.iter().copied(), true);
        let commands: Vec<_> = names.iter().map(|name| command(*name)).collect();
        let partition = queue::partition(target);
        let mut told = self.wire.ask(partition, &commands).await;
        // A cluster says where the slot is, or that it is being moved, and nothing was done.
        for _ in 0..BURST_TRIES {
            if told.iter().any(|told| taken(told) != Taken::Fail) {
                break;
            }
            sleep(REST / 4).await;
            told = self.wire.ask(partition, &commands).await;
        }
        for (name, told) in names.into_iter().zip(told) {
            self.run.queue_ended(name, taken(&told));
        }
    }
}

fn command(name: EntryName) -> Vec<String> {
    let stream = queue::stream(name.target, usize::from(name.lane));
    let (field, target) = queue::named(name.target);
    let data = format!("\"{}\"", queue::data(name));
    ["XADD", &stream, "*", field, &target, "data", &data]
        .map(str::to_owned)
        .to_vec()
}

fn taken(told: &Told) -> Taken {
    match told {
        Told::Ok(id) => Taken::Ok(id.parse().ok().map(|id: Position| id.ms)),
        Told::Refused(_) => Taken::Fail,
        Told::Lost => Taken::Unknown,
    }
}
