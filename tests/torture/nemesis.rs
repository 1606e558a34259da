//! Breaks things in a seeded order: windows of one or two faults, each healed before the next.
//!
//! In: a seed, a length of time, the kinds to choose from. Out: windows in the history. Every kind
//! comes once before any comes again. After each heal the run is quiet until every client has
//! something new of each of its topics and every node shows the members of one topic as they are,
//! so that what does not recover is not hidden by the next window.

use std::rc::Rc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::closing;
use super::fault::Blow;
use super::history::{Event, TopicIndex, Window};
use super::kind::Kind;
use super::redis_form::Form;
use super::run::Run;
use super::stage::Stage;

/// Between a recovery and the next window.
const QUIET: Duration = Duration::from_millis(700);
/// How long something that is done and undone stays done, in milliseconds.
const LASTS_MS: std::ops::Range<u64> = 1_200..3_000;
/// How long a fault lasts that is longer than a lease, in milliseconds; at most an eighth of the
/// run.
const LASTS_LONG_MS: std::ops::Range<u64> = 6_500..30_000;
/// Runs that are shorter have no such faults.
const LONG_RUN: Duration = Duration::from_secs(100);
/// Within this time after a heal every client must have something new. Part of the invariants.
pub(crate) const DEAF_FOR: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Nemesis {
    run: Rc<Run>,
    stage: Rc<Stage>,
    crowd: Vec<Rc<Client>>,
    form: Form,
    kinds: Vec<Kind>,
    /// How many topics have members; they stand first.
    topics_count: TopicIndex,
    random: StdRng,
}

impl Nemesis {
    /// Chooses from those of the kinds that the form has, by a seed.
    pub(crate) fn new(
        run: &Rc<Run>,
        stage: &Rc<Stage>,
        crowd: &[Rc<Client>],
        form: Form,
        topics_count: TopicIndex,
        choice: (&[Kind], u64),
    ) -> Self {
        let (kinds, seed) = choice;
        let kinds = kinds.iter().copied().filter(|kind| kind.fits(form));
        Self {
            run: Rc::clone(run),
            stage: Rc::clone(stage),
            crowd: crowd.to_vec(),
            form,
            kinds: kinds.collect(),
            topics_count,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Begins windows for so long.
    pub(crate) async fn torment(mut self, lasts: Duration) {
        let end = self.run.now() + lasts;
        if lasts < LONG_RUN && self.kinds.iter().any(|kind| !kind.is_long()) {
            self.kinds.retain(|kind| !kind.is_long());
        }
        let longest_ms = u64::try_from(lasts.as_millis() / 8).expect("a run is not that long");
        let lasts_long_ms = LASTS_LONG_MS.start..LASTS_LONG_MS.end.min(longest_ms.max(7_000));
        let mut deck = Vec::new();
        while self.run.now() < end && !self.kinds.is_empty() {
            let kinds = self.deal(&mut deck);
            self.window(&kinds, &lasts_long_ms).await;
            sleep(QUIET).await;
        }
        let left = end.saturating_sub(self.run.now());
        sleep(left).await;
    }

    /// The next kind, and in three of four windows one more with another target.
    fn deal(&mut self, deck: &mut Vec<Kind>) -> Vec<Kind> {
        if deck.is_empty() {
            deck.extend(&self.kinds);
            deck.shuffle(&mut self.random);
        }
        let mut kinds = vec![deck.remove(0)];
        let other = deck
            .iter()
            .position(|kind| kind.target() != kinds[0].target());
        if let Some(other) = other.filter(|_| self.random.random_ratio(3, 4)) {
            kinds.push(deck.remove(other));
        }
        kinds
    }

    async fn window(&mut self, kinds: &[Kind], lasts_long_ms: &std::ops::Range<u64>) {
        let words: Vec<_> = kinds.iter().map(|kind| kind.word()).collect();
        self.run.say(&format!("window: {}", words.join(" + ")));
        let mut node = self.random.random_range(0..self.stage.nodes_count());
        let mut blows = Vec::new();
        for kind in kinds {
            blows.push(Blow {
                kind: *kind,
                form: self.form,
                node,
                chosen: self.random.random_range(0..1_000),
                lasts: Duration::from_millis(self.random.random_range(LASTS_MS)),
                lasts_long: Duration::from_millis(self.random.random_range(lasts_long_ms.clone())),
            });
            node = (node + 1) % self.stage.nodes_count();
        }
        let begun = self.run.now();
        let (run, stage, crowd) = (&self.run, &self.stage, &self.crowd);
        let blows = blows.into_iter().map(|blow| blow.strike(run, stage, crowd));
        let struck = futures_util::future::join_all(blows).await;
        let healed = self.run.now();
        let heals_itself = kinds.iter().all(|kind| kind.heals_itself(self.form));
        self.run.push(Event::Window(Window {
            kinds: words,
            begun,
            healed,
            measured_from: struck
                .into_iter()
                .max()
                .filter(|_| heals_itself)
                .unwrap_or(healed),
        }));
        self.recovered(healed).await;
        let topic = self.random.random_range(0..self.topics_count);
        closing::members(&self.run, &self.stage, &self.crowd, topic).await;
    }

    /// Waits until every client has something of each of its topics that was tried after the heal.
    async fn recovered(&self, healed: Duration) {
        let deadline = Instant::now() + DEAF_FOR;
        self.stage.are_ready().await;
        let is_fresh = |client: &Rc<Client>| {
            let slots = client.slots.borrow();
            slots.iter().all(|slot| slot.newest_begun > healed)
        };
        while Instant::now() < deadline {
            if self.crowd.iter().all(is_fresh) {
                let took = self.run.now() - healed;
                return self
                    .run
                    .say(&format!("  everybody has news {took:.1?} after the heal"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        let late = self.crowd.iter().filter(|client| !is_fresh(client));
        let late: Vec<_> = late.map(|client| client.number).collect();
        self.run
            .say(&format!("  without news after {DEAF_FOR:?}: {late:?}"));
    }
}
