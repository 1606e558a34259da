//! Revocations under weather: three nodes, one store with a replica that is behind, users who come
//! with tokens of all ages.
//!
//! In: a seed. Out: nothing, or the promise that was broken. Promised is: no token is accepted that
//! was revoked, from the moment at which all live nodes were said to know; its sessions end within
//! a second of the moment from which their node reaches the store; nobody else is ended. The weather:
//! doorbells are lost, pages come late, nodes stand still or are cut off, end and begin anew, the store
//! fails over to a replica that lacks the last changes, with another clock, or begins empty, and nodes
//! add at the same time. Each node knows the others by its own heartbeats only (`calls.rs`). Not in it: a node that begins, or goes on after it stood still, in the moment in which
//! the store lost something (docs/revocation.md says what that costs).

use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::adding::{Added, Adding, Asked, Mending};
use super::known::Revocations;
use super::memory::Held;
use super::reader::{BACK, Next, Page, Reader, STAGGER_MAX};
use super::table::Bearer;
use super::user_name;
use crate::seeds::{self, Verdict};
use fanfare_protocol::ids::{App, User};

mod calls;

use calls::Call;

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
    /// What was read before the node became a member counts.
    Joining,
    /// Who lives is taken from a heartbeat that was sent before the entry was stored.
    FreshView,
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
    /// It has a lease, of its present life, since this tick.
    is_member: bool,
    joined_at: u64,
    /// Before this it looks whether somebody else has its name.
    joins_at: u64,
    /// Of each node whether it lives and what it told, as its last heartbeat said.
    view: Vec<(bool, u64)>,
    view_at: u64,
    sessions: Vec<Session>,
}

impl Node {
    fn new(tick: u64, joins_at: u64) -> Self {
        Self {
            known: Revocations::default(),
            reader: Reader::default(),
            page: None,
            reading_since: 0,
            wants: true,
            read_at: 0,
            looked_at: tick,
            stopped_until: 0,
            cut_until: 0,
            reaches_since: tick,
            beat_at: 0,
            told: 0,
            is_member: false,
            joined_at: 0,
            joins_at,
            view: Vec::new(),
            view_at: 0,
            sessions: Vec::new(),
        }
    }

    fn is_live(&self, tick: u64) -> bool {
        self.is_member && tick < self.beat_at + LEASE
    }

    fn is_away(&self, tick: u64) -> bool {
        tick < self.stopped_until || tick < self.cut_until
    }
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
    begun: u64,
}

fn user(number: u64) -> User {
    User::new(&format!("user-{number}")).expect("it is a user's name")
}

fn name(number: u64) -> Box<str> {
    user_name(&App::default_app(), &user(number))
}

impl World {
    fn new(seed: u64, without: Without) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            without,
            tick: 0,
            store: Held::default(),
            replica: Held::default(),
            clock_off_ms: 0,
            broke_at: 0,
            nodes: (0..NODES).map(|_| Node::new(0, 0)).collect(),
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
        if tick > self.broke_at + 2 * settled && self.chance(150) {
            self.calls.retain(|call| call.by != node);
            self.nodes[node] = Node::new(tick, tick + lasts / 4);
            self.met.begun += 1;
        }
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
            node.reader.stagger(self.rng.random_range(0..=STAGGER_MAX));
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
        let knows_joining = self.without == Without::Joining || node.read_at > node.joined_at;
        let takes_tokens = node.is_member && knows_joining && tick < node.read_at + STALE;
        if !takes_tokens || refuses(&node.known, number, issued) {
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
        met.begun += of.begun;
        verdict
    });
    for (what, count) in [
        ("promises", met.promises),
        ("late", met.late),
        ("ended", met.ended),
        ("refused", met.refused),
        ("lost", met.lost),
        ("written back", met.written_back),
        ("begun", met.begun),
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

#[test]
fn a_node_that_joins_must_read_anew() {
    let failed = seeds::first_failure(|seed| World::new(seed, Without::Joining).run());
    let (_, what) = failed.expect("what was promised without a node that then joins must be seen");
    assert!(what.contains("took a token"), "{what}");
}

#[test]
fn who_lives_must_be_asked_after_the_entry_was_stored() {
    let failed = seeds::first_failure(|seed| World::new(seed, Without::FreshView).run());
    let (_, what) = failed.expect("a node that nobody waited for must be seen");
    assert!(what.contains("took a token"), "{what}");
}
