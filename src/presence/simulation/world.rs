//! One node with its sessions, two masters, the wire between them, and a reaper.
//!
//! In: a seed, which decides who comes and goes and what the weather is. Out: which promise was
//! broken, if one was. For half a minute everything happens at once; then all is left to settle.
//! Time is milliseconds of the world's own. Bounds: some hundred commands a run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Without;
use super::server::{Entry, Server};
use crate::broker::{FeedNumber, Place};
use crate::presence::Key;
use crate::presence::memberships::{
    Act, Index, Memberships, Next, Order, Outcome, World as Circumstances,
};
use fanfare_protocol::event::Member;
use fanfare_protocol::ids::{App, Owner, SessionId, Topic};

/// The weather ends.
const CALM_MS: u64 = 30_000;
/// Everything that was ever begun is over.
const END_MS: u64 = 150_000;
/// What a command may take.
const PATIENCE_MS: u64 = 2_000;
/// How late a command is carried out at the most; a leave is remembered for longer.
const LATE_MS: u64 = 20_000;

macro_rules! met {
    ($($name:ident: $what:literal,)*) => {
        /// How often the runs met what.
        #[derive(Debug, Default)]
        pub(super) struct Met {
            $($name: u64,)*
        }

        impl Met {
            pub(super) fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$(($what, self.$name),)*]
            }
        }
    };
}

met! {
    entered: "a session that entered",
    left: "a session that left",
    back: "a session that left and came right back",
    refused: "a session that could not enter",
    done: "a call that was done",
    lost: "a call that was lost",
    late: "a call that was carried out late",
    doubled: "a call that was carried out twice",
    unanswered: "an answer that was lost",
    failovers: "a failover",
    lives: "another life",
    unleased: "a call that waited for a lease",
    reaped: "an entry that was reaped",
    expired: "a leave that was forgotten",
}

#[derive(Debug)]
enum Event {
    /// A command reaches its master.
    Arrive(Order),
    Answer(Order, Outcome),
    /// What is due for a membership is to be looked at.
    Look(Key),
    /// Sessions and weather do something.
    Stir,
    Reap,
    Expire,
}

/// See the module.
pub(super) struct World {
    rng: StdRng,
    without: Option<Without>,
    now_ms: u64,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    what: BTreeMap<u64, Event>,
    events_count: u64,
    machine: Memberships,
    due: VecDeque<Key>,
    servers: [Server; 2],
    me: Owner,
    unleased_until_ms: u64,
    /// A failover since this life began may have brought back what stood under an earlier one.
    is_disturbed: bool,
    /// Under which life all was said to stand.
    reported: u64,
    /// Who is in, by which entering, as the sessions have it.
    inside: BTreeMap<Key, u64>,
    /// Enterings whose sessions wait for the answer.
    waiting: BTreeSet<u64>,
    held: BTreeMap<Topic, u64>,
}

impl World {
    pub(super) fn new(seed: u64, without: Option<Without>) -> Self {
        let server = || Server::new(without);
        let mut machine = Memberships::default();
        machine.renew(1);
        Self {
            rng: StdRng::seed_from_u64(seed),
            without,
            now_ms: 0,
            events: BinaryHeap::new(),
            what: BTreeMap::new(),
            events_count: 0,
            machine,
            due: VecDeque::new(),
            servers: [server(), server()],
            me: "a~1".parse().expect("an owner"),
            unleased_until_ms: 0,
            is_disturbed: false,
            reported: 1,
            inside: BTreeMap::new(),
            waiting: BTreeSet::new(),
            held: BTreeMap::new(),
        }
    }

    pub(super) fn run(mut self, met: &mut Met) -> Result<(), String> {
        for at_ms in [0, 1] {
            self.at(at_ms, Event::Stir);
        }
        self.at(0, Event::Reap);
        self.at(0, Event::Expire);
        while let Some(Reverse((at_ms, number))) = self.events.pop() {
            self.now_ms = at_ms;
            let event = self.what.remove(&number).expect("numbered once");
            self.happen(event, met)?;
            self.call(met);
            if self.machine.all_stand() {
                self.reported = self.me.incarnation;
            }
        }
        self.judge()
    }

    fn lacks(&self, rule: Without) -> bool {
        self.without == Some(rule)
    }

    fn chance(&mut self, of: f64) -> bool {
        self.rng.random_bool(of)
    }

    fn at(&mut self, at_ms: u64, event: Event) {
        self.events_count += 1;
        self.what.insert(self.events_count, event);
        self.events.push(Reverse((at_ms, self.events_count)));
    }

    fn soon(&mut self, within_ms: u64, event: Event) {
        let at_ms = self.now_ms + self.rng.random_range(0..within_ms);
        self.at(at_ms, event);
    }

    fn is_calm(&self) -> bool {
        self.now_ms >= CALM_MS
    }

    fn happen(&mut self, event: Event, met: &mut Met) -> Result<(), String> {
        match event {
            Event::Arrive(order) => return self.arrive(&order),
            Event::Answer(order, outcome) => self.answer(&order, outcome, met),
            Event::Look(key) => self.due.push_back(key),
            Event::Stir if self.is_calm() => {}
            Event::Stir => {
                self.stir(met);
                self.soon(1_500, Event::Stir);
            }
            Event::Reap => {
                if self.now_ms < END_MS {
                    self.soon(4_000, Event::Reap);
                }
                return self.reap(met);
            }
            Event::Expire => {
                if self.now_ms < END_MS {
                    self.at(self.now_ms + 2_000, Event::Expire);
                }
                self.expire(met);
            }
        }
        Ok(())
    }

    fn stir(&mut self, met: &mut Met) {
        match self.rng.random_range(0..100) {
            0..5 => {
                met.failovers += 1;
                let (at, choice) = (self.rng.random_range(0..2), self.rng.random_range(0..64));
                self.servers[at].fail_over(choice, self.now_ms);
                self.is_disturbed = true;
                self.look_at_places();
            }
            5..9 => {
                met.lives += 1;
                self.me.incarnation += 1;
                self.is_disturbed = false;
                self.machine.renew(self.me.incarnation);
                if !self.lacks(Without::Lives) {
                    self.look_through(|_| true);
                }
            }
            9..12 => self.unleased_until_ms = self.now_ms + self.rng.random_range(0..3_000),
            12..18 => {
                let until_ms = self.now_ms + self.rng.random_range(0..6_000);
                let at = self.rng.random_range(0..2);
                self.servers[at].away_until_ms = until_ms;
            }
            act => {
                let topic = ["a", "b", "c", "d"][self.rng.random_range(0..4)];
                let topic = Topic::new(&App::default_app(), topic).expect("a name");
                let key = (topic, SessionId(self.rng.random_range(1..4)));
                match act {
                    18..50 => self.enter(&key, met),
                    50..70 => self.leave(&key, met),
                    70..92 => {
                        met.back += 1;
                        self.leave(&key, met);
                        self.enter(&key, met);
                    }
                    _ => self.abandon(&key, met),
                }
            }
        }
    }

    fn enter(&mut self, key: &Key, met: &mut Met) {
        let member = Member {
            user: None,
            session: key.1,
            info: None,
        };
        met.entered += 1;
        let (generation, index) = self.machine.enter(key, member);
        if self.inside.insert(key.clone(), generation) != Some(generation) {
            self.waiting.insert(generation);
        }
        self.index(&key.0, index);
        self.due.push_back(key.clone());
    }

    fn leave(&mut self, key: &Key, met: &mut Met) {
        met.left += u64::from(self.inside.remove(key).is_some());
        let index = self.machine.leave(key);
        self.index(&key.0, index);
        self.due.push_back(key.clone());
    }

    /// Its session has waited for too long.
    fn abandon(&mut self, key: &Key, met: &mut Met) {
        let waits = self.inside.get(key).copied();
        if let Some(generation) = waits.filter(|generation| self.waiting.remove(generation)) {
            met.refused += 1;
            self.inside.remove(key);
            let (_, index) = self.machine.abandon(key, generation);
            self.index(&key.0, index);
            self.due.push_back(key.clone());
        }
    }

    fn index(&mut self, topic: &Topic, index: Index) {
        let held = self.held.entry(topic.clone()).or_default();
        match index {
            Index::Stays => {}
            Index::Pin => *held += 1,
            Index::Unpin => *held -= 1,
        }
    }

    /// As a change of places: what is due is looked for, with the rules that are there.
    fn look_at_places(&mut self) {
        let (again, left) = (Without::WritingAgain, Without::LeavingAgain);
        let (writes, leaves) = (!self.lacks(again), !self.lacks(left));
        let inside: BTreeSet<_> = self.machine.inside().cloned().collect();
        self.look_through(|key| match inside.contains(key) {
            true => writes,
            false => leaves,
        });
    }

    fn look_through(&mut self, which: impl Fn(&Key) -> bool) {
        let places = [0, 1].map(|at| self.place(at));
        let due = self.machine.due(|topic| Some(places[server_of(topic)]));
        // In an order that the seed decides alone.
        let due: BTreeSet<_> = due.filter(|key| which(key)).cloned().collect();
        self.due.extend(due);
    }

    fn place(&self, at: usize) -> Place {
        Place {
            feed: FeedNumber(u32::try_from(at).expect("there are two")),
            continuity: self.servers[at].continuity,
        }
    }

    /// Begins the calls that are due.
    fn call(&mut self, met: &mut Met) {
        while let Some(key) = self.due.pop_front() {
            let circumstances = Circumstances {
                me: &self.me.clone(),
                has_lease: self.now_ms >= self.unleased_until_ms,
                place: Some(self.place(server_of(&key.0))),
                is_indexed: self.is_calm() || self.rng.random_bool(0.9),
                now: Duration::from_millis(self.now_ms),
            };
            match self.machine.next(&key, &circumstances) {
                Next::Nothing => {}
                Next::NoLease => {
                    met.unleased += 1;
                    self.soon(500, Event::Look(key));
                }
                Next::NoIndex => self.soon(100, Event::Look(key)),
                Next::Call(order) => self.send(order, met),
            }
        }
    }

    /// Puts a call on the wire, and decides what becomes of it.
    fn send(&mut self, order: Order, met: &mut Met) {
        let is_away = self.now_ms < self.servers[server_of(&order.key.0)].away_until_ms;
        let bad = if self.is_calm() { 0.0 } else { 1.0 };
        if is_away && self.chance(0.5) {
            return self.soon(5, Event::Answer(order, Outcome::NotDone));
        }
        let gives_up_ms = self.now_ms + PATIENCE_MS;
        if is_away || self.chance(0.12 * bad) {
            match self.rng.random_range(0..3) {
                0 => met.lost += 1,
                1 => {
                    met.unanswered += 1;
                    self.soon(50, Event::Arrive(order.clone()));
                }
                _ => {
                    met.late += 1;
                    self.soon(LATE_MS, Event::Arrive(order.clone()));
                }
            }
            return self.at(gives_up_ms, Event::Answer(order, Outcome::Unknown));
        }
        met.done += 1;
        let arrives_ms = self.now_ms + self.rng.random_range(0..30);
        if self.chance(0.05 * bad) {
            met.doubled += 1;
            self.at(arrives_ms, Event::Arrive(order.clone()));
        }
        self.at(arrives_ms, Event::Arrive(order.clone()));
        let answered_ms = arrives_ms + self.rng.random_range(0..30);
        self.at(answered_ms, Event::Answer(order, Outcome::Done));
    }

    fn arrive(&mut self, order: &Order) -> Result<(), String> {
        let entry = self.entry_of(order.generation, order.owner.incarnation);
        let server = &mut self.servers[server_of(&order.key.0)];
        match order.act {
            Act::Leave => server.leave(&order.key, entry.generation, self.now_ms),
            Act::Enter(_) => {
                let is_written = server.enter(&order.key, entry, self.now_ms);
                let is_held = self.held.get(&order.key.0).is_some_and(|held| *held > 0);
                if is_written && !is_held {
                    return Err(format!("{:?} stands where no reaper looks", order.key));
                }
            }
        }
        Ok(())
    }

    fn entry_of(&self, generation: u64, life: u64) -> Entry {
        let generation = match self.lacks(Without::Generations) {
            true => 1,
            false => generation,
        };
        Entry { generation, life }
    }

    fn answer(&mut self, order: &Order, outcome: Outcome, met: &mut Met) {
        let now = Duration::from_millis(self.now_ms);
        let (index, given_up) = self.machine.answered(order, outcome, now);
        assert_eq!(given_up, None, "there is room for all");
        self.index(&order.key.0, index);
        let is_entering = matches!(order.act, Act::Enter(_));
        if is_entering && self.waiting.remove(&order.generation) && outcome != Outcome::Done {
            met.refused += 1;
            if self.inside.get(&order.key) == Some(&order.generation) {
                self.inside.remove(&order.key);
            }
        }
        if outcome == Outcome::Done {
            self.due.push_back(order.key.clone());
        } else if !self.lacks(Without::Trying) {
            self.soon(500, Event::Look(order.key.clone()));
        }
    }

    fn reap(&mut self, met: &mut Met) -> Result<(), String> {
        let life = self.me.incarnation;
        if self.reported < life && !self.lacks(Without::Report) {
            return Ok(());
        }
        for at in 0..2 {
            for (key, entry) in self.servers[at].reap(life, self.now_ms) {
                met.reaped += 1;
                let is_in = self.inside.get(&key) == Some(&entry.generation);
                if is_in && !self.is_disturbed && !self.waiting.contains(&entry.generation) {
                    return Err(format!("{key:?} stayed, and was told as left"));
                }
            }
        }
        Ok(())
    }

    fn expire(&mut self, met: &mut Met) {
        let now = Duration::from_millis(self.now_ms);
        while let Some((key, index)) = self.machine.expire(now) {
            met.expired += 1;
            self.index(&key.0, index);
            if !self.lacks(Without::LastLeaves) {
                self.due.push_back(key);
            }
        }
    }

    /// All is quiet.
    fn judge(&self) -> Result<(), String> {
        let life = self.me.incarnation;
        let entry =
            |(key, generation): (&Key, &u64)| (key.clone(), self.entry_of(*generation, life));
        let wished: BTreeMap<_, _> = self.inside.iter().map(entry).collect();
        let entries = self.servers.iter().flat_map(|server| &server.entries);
        let there: BTreeMap<_, _> = entries.map(|(key, e)| (key.clone(), *e)).collect();
        if there != wished {
            return Err(format!("there are {there:?}, in are {wished:?}"));
        }
        for server in &self.servers {
            server.judge_told()?;
        }
        if self.machine.len() != wished.len() {
            let known = self.machine.len();
            return Err(format!("{known} are known of {}", wished.len()));
        }
        for (topic, held) in &self.held {
            let inside = wished.keys().filter(|key| key.0 == *topic).count() as u64;
            if *held != inside {
                return Err(format!("{topic} is held {held} times for {inside}"));
            }
        }
        if self.reported != life {
            return Err(format!(
                "all stands under {life}, reported was {}",
                self.reported
            ));
        }
        Ok(())
    }
}

fn server_of(topic: &Topic) -> usize {
    usize::from(topic.name() > "b")
}
