//! Revocations under weather: three nodes, one store with a replica that is behind, users who come
//! with tokens of all ages.
//!
//! In: a seed. Out: nothing, or the promise that was broken. Promised is: no token is accepted that
//! was revoked, from the moment at which all live nodes were said to know; its sessions end within
//! a second of the moment from which their node reaches the store; nobody else is ended. The weather:
//! doorbells are lost, pages come late, nodes stand still or are cut off, the store fails over to a
//! replica that lacks the last changes, with another clock, or begins empty, and nodes add at the
//! same time. Not in it: a node that begins, or goes on after it stood still, in the moment in which
//! the store lost something (docs/revocation.md says what that costs).

use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::adding::{Added, Adding, Asked, Mending};
use super::known::Revocations;
use super::memory::Held;
use super::reader::{BACK, Next, Page, Reader};
use super::table::Bearer;
use super::user_name;
use crate::seeds::{self, Verdict};
use fanfare_protocol::ids::{App, User};

/// All times are in ticks of 100 ms.
const TICK_MS: u64 = 100;
const TICKS: u64 = 900;
const READ_EVERY: u64 = 5;
const BEAT_EVERY: u64 = 10;
const LEASE: u64 = 50;
/// Four fifths of a lease.
const STALE: u64 = 40;
const PATIENCE: u64 = 20;
/// A second.
const BOUND: u64 = 10;
const NODES: usize = 3;
const USERS: u64 = 12;
const START_MS: u64 = 1_700_000_000_000;
const KEPT_MS: u64 = 3_600_000;

/// What is left out, for the controls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// Only the doorbell makes a node read.
    Reading,
    /// What a failover lost is not written back.
    WritingBack,
}

#[derive(Debug)]
struct Session {
    user: u64,
    issued: u64,
}

struct Node {
    known: Revocations,
    reader: Reader,
    /// A page on its way, when it comes, and when its reading began.
    page: Option<(Page, u64)>,
    reading_since: u64,
    wants: bool,
    read_at: u64,
    looked_at: u64,
    stopped_until: u64,
    cut_until: u64,
    /// Since when it runs and reaches the store.
    reaches_since: u64,
    /// What the others see of it.
    beat_at: u64,
    told: u64,
    sessions: Vec<Session>,
}

impl Node {
    fn is_away(&self, tick: u64) -> bool {
        tick < self.stopped_until || tick < self.cut_until
    }
}

/// A call that waits for its answer.
struct Call {
    by: usize,
    user: u64,
    issued_before: u64,
    called_at: u64,
}

struct World {
    rng: StdRng,
    without: Without,
    tick: u64,
    store: Held,
    replica: Held,
    clock_off_ms: i64,
    /// When the store changed its history last.
    broke_at: u64,
    nodes: Vec<Node>,
    calls: Vec<Call>,
    /// By user, before which second everything that was asked for is at the most.
    asked: Vec<u64>,
    /// The same of what was answered with 200.
    promised: Vec<u64>,
    met: Met,
}

/// How often something was met, so that the runs mean something.
#[derive(Debug, Default, Clone, Copy)]
struct Met {
    promises: u64,
    late: u64,
    ended: u64,
    refused: u64,
    lost: u64,
    written_back: u64,
}

fn user(number: u64) -> User {
    User::new(&format!("user-{number}")).expect("it is a user's name")
}

fn name(number: u64) -> Box<str> {
    user_name(&App::default_app(), &user(number))
}

impl World {
    fn new(seed: u64, without: Without) -> Self {
        let node = || Node {
            known: Revocations::default(),
            reader: Reader::default(),
            page: None,
            reading_since: 0,
            wants: true,
            read_at: 0,
            looked_at: 0,
            stopped_until: 0,
            cut_until: 0,
            reaches_since: 0,
            beat_at: 0,
            told: 0,
            sessions: Vec::new(),
        };
        Self {
            rng: StdRng::seed_from_u64(seed),
            without,
            tick: 0,
            store: Held::default(),
            replica: Held::default(),
            clock_off_ms: 0,
            broke_at: 0,
            nodes: (0..NODES).map(|_| node()).collect(),
            calls: Vec::new(),
            asked: vec![0; USERS as usize],
            promised: vec![0; USERS as usize],
            met: Met::default(),
        }
    }

    fn now_ms(&self) -> u64 {
        START_MS + self.tick * TICK_MS
    }

    fn store_ms(&self) -> u64 {
        self.now_ms().saturating_add_signed(self.clock_off_ms)
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.rng.random_ratio(1, one_in)
    }

    fn run(&mut self) -> Verdict {
        while self.tick < TICKS {
            self.tick += 1;
            self.weather();
            for node in 0..NODES {
                self.note_reach(node);
                self.read(node);
                self.beat(node);
                self.scan(node)?;
            }
            if self.chance(6) {
                self.revoke();
                if self.chance(3) {
                    self.revoke();
                }
            }
            self.answer_calls();
            for _ in 0..3 {
                self.connect()?;
            }
            self.check_sessions()?;
        }
        Ok(())
    }

    fn weather(&mut self) {
        // A replica is some changes behind.
        if self.chance(2) {
            self.replica = self.store.clone();
        }
        let node = self.rng.random_range(0..NODES);
        let lasts = self.rng.random_range(1..120);
        if self.chance(150) {
            self.nodes[node].stopped_until = self.tick + lasts;
        }
        if self.chance(150) {
            self.nodes[node].cut_until = self.tick + lasts;
        }
        let (tick, settled) = (self.tick, 2 * BOUND);
        let is_calm = self.nodes.iter().all(|node| {
            let reaches = !node.is_away(tick) && tick - node.reaches_since >= settled;
            reaches && tick - node.read_at < settled
        });
        if is_calm && self.tick - self.broke_at > 2 * settled && self.chance(40) {
            let is_empty = self.chance(4);
            let replica = std::mem::take(&mut self.replica);
            let next = if is_empty { Held::default() } else { replica };
            let count = |held: &Held| held.read(0, 0).count;
            self.met.lost += count(&self.store).saturating_sub(count(&next));
            self.store = next.clone();
            self.replica = next;
            self.broke_at = self.tick;
            // Clocks of servers differ, and step.
            self.clock_off_ms = self.rng.random_range(-60_000..60_000);
            for node in &mut self.nodes {
                node.page = None;
            }
        }
    }

    fn note_reach(&mut self, at: usize) {
        let tick = self.tick;
        let node = &mut self.nodes[at];
        if node.is_away(tick) {
            node.reaches_since = tick + 1;
            if tick < node.cut_until {
                node.page = None;
            }
        }
    }

    fn read(&mut self, at: usize) {
        let (tick, store_ms) = (self.tick, self.store_ms());
        let reads_by_itself = self.without != Without::Reading || tick < BOUND;
        let is_late = self.chance(4);
        let lag = self.rng.random_range(1..3);
        let node = &mut self.nodes[at];
        if node.is_away(tick) {
            return;
        }
        if node.page.is_none() {
            let is_due = reads_by_itself && tick >= node.looked_at + READ_EVERY;
            if !is_due && !node.wants {
                return;
            }
            (node.wants, node.looked_at, node.reading_since) = (false, tick, tick);
            let since = node.reader.begin();
            let comes_at = tick + if is_late { lag } else { 0 };
            node.page = Some((self.store.read(since, store_ms), comes_at));
        }
        let Some((page, _)) = node.page.take_if(|(_, comes_at)| *comes_at <= tick) else {
            return;
        };
        let mut next = node.known.take(&page, &mut node.reader);
        loop {
            next = match next {
                Next::Ask(since) => {
                    let page = self.store.read(since, store_ms);
                    node.known.take(&page, &mut node.reader)
                }
                Next::WriteBack(_) if self.without == Without::WritingBack => {
                    node.reader.written_back(false)
                }
                Next::WriteBack(rows) => {
                    for rows in rows.chunks(BACK) {
                        let asked = rows.iter().map(Asked::from).collect();
                        let adding = adding(asked, node.known.read_to());
                        let added =
                            self.store
                                .add(&adding, store_ms, self.rng.random_range(0..1_024));
                        assert!(matches!(added, Added::Stored(_)), "there is room");
                        self.met.written_back += rows.len() as u64;
                    }
                    node.reader.written_back(true)
                }
                Next::Mend { .. } => {
                    self.store.mend(&Mending::default(), store_ms);
                    node.known.mended(&mut node.reader)
                }
                Next::Settled => break,
            };
        }
        node.known.settled(Instant::now(), &node.reader);
        node.read_at = node.reading_since;
    }

    fn beat(&mut self, at: usize) {
        let tick = self.tick;
        let node = &mut self.nodes[at];
        let is_news = node.told != node.known.read_to() && tick >= node.beat_at + 3;
        if !node.is_away(tick) && (is_news || tick >= node.beat_at + BEAT_EVERY) {
            (node.beat_at, node.told) = (tick, node.known.read_to());
        }
    }

    /// Ends the sessions of which the news speak, if the table agrees.
    fn scan(&mut self, at: usize) -> Verdict {
        let node = &mut self.nodes[at];
        if self.tick < node.stopped_until || node.known.take_news().is_empty() {
            return Ok(());
        }
        let known = &node.known;
        let (asked, met) = (&self.asked, &mut self.met);
        let mut wrong = None;
        node.sessions.retain(|session| {
            let is_over = refuses(known, session.user, session.issued);
            if is_over {
                met.ended += 1;
                if session.issued >= asked[session.user as usize] {
                    wrong = Some(session.user);
                }
            }
            !is_over
        });
        match wrong {
            Some(user) => Err(format!("a session of user {user} was ended for nothing")),
            None => Ok(()),
        }
    }

    fn revoke(&mut self) {
        let by = self.rng.random_range(0..NODES);
        if self.nodes[by].is_away(self.tick) {
            return;
        }
        let user = self.rng.random_range(0..USERS);
        // Some are of before another one of the same user.
        let before = self.now_ms() / 1_000 - self.rng.random_range(0..20);
        let asked = Asked {
            name: name(user),
            issued_before: Some(before),
            until_ms: None,
        };
        let adding = adding(vec![asked], self.nodes[by].known.read_to());
        let store_ms = self.store_ms();
        let chance = self.rng.random_range(0..1_024);
        let added = self.store.add(&adding, store_ms, chance);
        assert_eq!(added, Added::Stored(before));
        let known = &mut self.asked[user as usize];
        *known = before.max(*known);
        for node in 0..NODES {
            let is_heard = !self.chance(3);
            self.nodes[node].wants |= is_heard || node == by;
        }
        self.calls.push(Call {
            by,
            user,
            issued_before: before,
            called_at: self.tick,
        });
    }

    fn answer_calls(&mut self) {
        let tick = self.tick;
        let calls = std::mem::take(&mut self.calls);
        for call in calls {
            let by = &self.nodes[call.by];
            if tick < by.stopped_until {
                self.calls.push(call);
                continue;
            }
            let names = [name(call.user)];
            let has_read = self.nodes.iter().enumerate().all(|(at, node)| {
                let is_live = tick < node.beat_at + LEASE;
                let told = if at == call.by {
                    node.known.read_to()
                } else {
                    node.told
                };
                !is_live || by.known.covers(told, &names, call.issued_before)
            });
            if has_read {
                let promised = &mut self.promised[call.user as usize];
                *promised = call.issued_before.max(*promised);
                self.met.promises += 1;
            } else if tick < call.called_at + PATIENCE {
                self.calls.push(call);
            } else {
                self.met.late += 1;
            }
        }
    }

    fn connect(&mut self) -> Verdict {
        let at = self.rng.random_range(0..NODES);
        let (number, age) = (
            self.rng.random_range(0..USERS),
            self.rng.random_range(0..40),
        );
        let issued = self.now_ms() / 1_000 - age;
        let (tick, promised) = (self.tick, self.promised[number as usize]);
        let node = &mut self.nodes[at];
        if tick < node.stopped_until {
            return Ok(());
        }
        if tick >= node.read_at + STALE || refuses(&node.known, number, issued) {
            self.met.refused += 1;
            return Ok(());
        }
        if issued < promised {
            return Err(format!(
                "tick {tick}: node {at} took a token of user {number} of {issued}, and all before {promised} are revoked"
            ));
        }
        node.sessions.push(Session {
            user: number,
            issued,
        });
        Ok(())
    }

    fn check_sessions(&self) -> Verdict {
        let tick = self.tick;
        for (at, node) in self.nodes.iter().enumerate() {
            let reaches = !node.is_away(tick) && tick >= node.reaches_since + BOUND;
            if !reaches || tick < self.broke_at + 2 * BOUND {
                continue;
            }
            let promised =
                |session: &&Session| session.issued < self.promised[session.user as usize];
            if let Some(session) = node.sessions.iter().find(promised) {
                return Err(format!(
                    "tick {tick}: node {at} still has a session of user {}",
                    session.user
                ));
            }
        }
        Ok(())
    }
}

fn adding(asked: Vec<Asked>, above: u64) -> Adding {
    Adding {
        asked,
        kept_ms: KEPT_MS,
        above,
        most: 1_000,
        ..Adding::default()
    }
}

fn refuses(known: &Revocations, number: u64, issued: u64) -> bool {
    known.refuses(Bearer {
        app: &App::default_app(),
        user: &user(number),
        id: None,
        issued,
    })
}

#[test]
fn whoever_is_put_out_stays_out_and_nobody_else_is() {
    let mut met = Met::default();
    let are_all = seeds::each(300, |seed| {
        let mut world = World::new(seed, Without::Nothing);
        let verdict = world.run();
        let of = world.met;
        met.promises += of.promises;
        met.late += of.late;
        met.ended += of.ended;
        met.refused += of.refused;
        met.lost += of.lost;
        met.written_back += of.written_back;
        verdict
    });
    for (what, count) in [
        ("promises", met.promises),
        ("late", met.late),
        ("ended", met.ended),
        ("refused", met.refused),
        ("lost", met.lost),
        ("written back", met.written_back),
    ] {
        assert!(!are_all || count > 100, "{what}: {count}");
    }
}

#[test]
fn the_doorbell_alone_is_not_enough() {
    let failed = seeds::first_failure(|seed| World::new(seed, Without::Reading).run());
    assert!(failed.is_some(), "a lost doorbell must be seen");
}

#[test]
fn without_writing_back_a_failover_lets_them_in_again() {
    let failed = seeds::first_failure(|seed| World::new(seed, Without::WritingBack).run());
    let (_, what) = failed.expect("what a failover lost must be seen");
    assert!(what.contains("user"), "{what}");
}
