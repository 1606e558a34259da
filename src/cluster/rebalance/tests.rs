//! The plan by values, and a cluster of plans: whoever gets the sessions, the load evens out, no
//! node goes below the mean, and then all is quiet.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::cluster::view::{NodeDetails, NodeInfo};

const S: Duration = Duration::from_secs(1);

fn config() -> Rebalance {
    Rebalance {
        enabled: true,
        tolerance_percent: 20,
        sessions_per_s: 20,
        settle: 10 * S,
    }
}

/// A node's name and first life.
fn owner(nth: usize) -> Owner {
    format!("n{nth}~1").parse().expect("an owner")
}

/// The same with nodes that have room for so many.
fn view_with_room(nodes: &[(&str, u64)], rooms: &[u64]) -> View {
    let mut view = view(nodes);
    for (node, room) in view.nodes.iter_mut().zip(rooms) {
        node.details.sessions_max = *room;
    }
    view
}

/// The view of the first of these nodes, given by state and sessions.
fn view(nodes: &[(&str, u64)]) -> View {
    let info = |(nth, (state, sessions)): (usize, &(&str, u64))| NodeInfo {
        owner: owner(nth),
        details: NodeDetails {
            state: (*state).to_owned(),
            sessions: *sessions,
            ..NodeDetails::default()
        },
    };
    View {
        nodes: nodes.iter().enumerate().map(info).collect(),
        ..View::alone(owner(0), NodeDetails::default(), 8)
    }
}

fn here(sessions: u64) -> Here {
    Here {
        sessions,
        ..Here::default()
    }
}

/// A rebalancer that has seen this view for long enough.
fn settled(view: &View) -> (Rebalancer, Instant) {
    let mut rebalancer = Rebalancer::new(config());
    let start = Instant::now();
    assert_eq!(rebalancer.plan(view, here(0), start), Plan::default());
    (rebalancer, start + 10 * S)
}

#[test]
fn a_node_above_the_tolerance_sheds_at_its_pace_down_to_half_of_it() {
    let even = [("ready", 1_000), ("ready", 1_000), ("ready", 0)];
    let (mut rebalancer, now) = settled(&view(&even));
    // The mean is 667; 800 would be tolerated, and 733 is the end.
    let plan = rebalancer.plan(&view(&even), here(1_000), now);
    assert_eq!((plan.excess, plan.tell), (267, 20));
    let near = [("ready", 760), ("ready", 760), ("ready", 480)];
    let plan = rebalancer.plan(&view(&near), here(760), now);
    assert_eq!(
        (plan.excess, plan.tell),
        (27, 7),
        "it goes on below the tolerance"
    );
    let told = Here {
        told: 27,
        ..here(760)
    };
    let done = rebalancer.plan(&view(&near), told, now);
    assert_eq!(
        done,
        Plan::default(),
        "those on their way out are not counted twice"
    );
    let again = rebalancer.plan(&view(&near), here(760), now);
    assert_eq!(
        again,
        Plan::default(),
        "it begins anew only above the tolerance"
    );
}

#[test]
fn nobody_is_sent_away_for_a_node_that_is_full() {
    let nodes = [("ready", 180), ("ready", 20)];
    let full = view_with_room(&nodes, &[1_000, 20]);
    let (mut rebalancer, now) = settled(&full);
    let plan = rebalancer.plan(&full, here(180), now);
    assert_eq!(plan, Plan::default());
    // A third one has room: what the small one cannot take is shared by two.
    let nodes = [("ready", 180), ("ready", 20), ("ready", 0)];
    let three = view_with_room(&nodes, &[1_000, 20, 1_000]);
    let (mut rebalancer, now) = settled(&three);
    let plan = rebalancer.plan(&three, here(180), now);
    assert_eq!(plan.excess, 180 - 99);
    // All are full, also by less than they have now.
    let all = view_with_room(&nodes[..2], &[150, 20]);
    let (mut rebalancer, now) = settled(&all);
    let plan = rebalancer.plan(&all, here(180), now);
    assert_eq!(plan, Plan::default());
}

#[test]
fn a_few_sessions_are_no_reason() {
    let few = [("ready", 12), ("ready", 0)];
    let (mut rebalancer, now) = settled(&view(&few));
    assert_eq!(rebalancer.plan(&view(&few), here(12), now), Plan::default());
}

#[test]
fn nothing_is_shed_before_the_nodes_have_been_the_same_for_long_enough() {
    let two = view(&[("ready", 1_000), ("ready", 0)]);
    let mut rebalancer = Rebalancer::new(config());
    let start = Instant::now();
    let sheds = |rebalancer: &mut Rebalancer, view: &View, s: u32| {
        rebalancer.plan(view, here(1_000), start + s * S).excess > 0
    };
    assert!(!sheds(&mut rebalancer, &two, 0), "just started");
    assert!(!sheds(&mut rebalancer, &two, 9));
    assert!(sheds(&mut rebalancer, &two, 10));
    let joined = view(&[("ready", 1_000), ("ready", 0), ("ready", 0)]);
    assert!(!sheds(&mut rebalancer, &joined, 11), "somebody came");
    assert!(sheds(&mut rebalancer, &joined, 21));
    let leaving = view(&[("ready", 1_000), ("ready", 0), ("draining", 0)]);
    assert!(!sheds(&mut rebalancer, &leaving, 22), "somebody leaves");
    assert!(sheds(&mut rebalancer, &leaving, 32), "and has no share");
    let stale = View {
        fresh: false,
        ..leaving.clone()
    };
    assert!(!sheds(&mut rebalancer, &stale, 33), "Redis is away");
    assert!(!sheds(&mut rebalancer, &leaving, 34));
    assert!(sheds(&mut rebalancer, &leaving, 44));
}

#[test]
fn a_node_that_leaves_or_is_alone_sheds_nothing() {
    for nodes in [
        &[("draining", 1_000), ("ready", 0)][..],
        &[("starting", 1_000), ("ready", 0)],
        &[("ready", 1_000)],
        &[("ready", 1_000), ("draining", 0)],
    ] {
        let view = view(nodes);
        let (mut rebalancer, now) = settled(&view);
        let plan = rebalancer.plan(&view, here(1_000), now);
        assert_eq!(plan, Plan::default(), "{nodes:?}");
    }
}

/// Where a balancer sends those who come.
#[derive(Debug, Clone, Copy)]
enum Balancer {
    /// Anywhere, also back.
    Random,
    /// To whoever has least, as it knows.
    Least,
    /// To one after the other.
    Turns,
    /// Back to where they were, as by a hash of the user.
    Hash,
}

/// A cluster of nodes that shed by what each tells the others, late.
struct Cluster {
    rng: StdRng,
    balancer: Balancer,
    turn: usize,
    nodes: Vec<Rebalancer>,
    /// What became of each node's batch. Nobody is known in every other cluster.
    batches: Vec<Batch>,
    are_known: bool,
    sessions: Vec<u64>,
    /// A view of these nodes, to be filled with numbers.
    empty: View,
    /// What each node said of itself, newest last.
    said: Vec<Vec<u64>>,
    /// Those who were told, by the second in which they leave, per node.
    leaving: Vec<Vec<u64>>,
    second: usize,
    shed: u64,
}

/// Seconds between being told and being gone.
const GRACE_S: usize = 4;
/// Seconds by which what others say may be old.
const LATE_S: usize = 2;

impl Cluster {
    fn new(seed: u64, balancer: Balancer) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = rng.random_range(2..=10);
        let most = [100, 1_000, 4_000][rng.random_range(0..3)];
        // At least one is new and empty, as after a scale-out.
        let mut sessions: Vec<u64> = (0..count).map(|_| rng.random_range(0..most)).collect();
        sessions[count - 1] = 0;
        Self {
            rng,
            balancer,
            turn: 0,
            nodes: (0..count).map(|_| Rebalancer::new(config())).collect(),
            batches: vec![Batch::default(); count],
            are_known: seed.is_multiple_of(2),
            said: sessions.iter().map(|n| vec![*n; LATE_S + 1]).collect(),
            leaving: vec![vec![0; GRACE_S]; count],
            empty: view(&vec![("ready", 0); count]),
            sessions,
            second: 0,
            shed: 0,
        }
    }

    fn place(&mut self, from: usize) -> usize {
        let count = self.sessions.len();
        self.turn += 1;
        match self.balancer {
            Balancer::Random => self.rng.random_range(0..count),
            Balancer::Turns => self.turn % count,
            Balancer::Hash => from,
            Balancer::Least => (0..count).min_by_key(|n| self.sessions[*n]).expect("some"),
        }
    }

    /// What node `me` knows: itself now, others late.
    fn view(&mut self, me: usize) -> View {
        let mut view = View {
            me: owner(me),
            ..self.empty.clone()
        };
        for (nth, node) in view.nodes.iter_mut().enumerate() {
            let late = self.rng.random_range(0..=LATE_S);
            let known = self.said[nth][LATE_S - late];
            node.details.sessions = if nth == me { self.sessions[me] } else { known };
        }
        view
    }

    /// One second. Returns how many were told.
    fn step(&mut self, start: Instant) -> u64 {
        let now = start + S * u32::try_from(self.second).expect("minutes");
        let mean = self.sessions.iter().sum::<u64>() / self.sessions.len() as u64;
        let mut told_now = 0;
        for me in 0..self.sessions.len() {
            let told = self.leaving[me].iter().sum();
            let here = Here {
                sessions: self.sessions[me],
                told,
                batch: self.batches[me],
            };
            let view = self.view(me);
            let plan = self.nodes[me].plan(&view, here, now);
            let stay = here.sessions - told - plan.tell;
            // The others' numbers are two seconds old: what all may send in that time is the most
            // by which a node can misjudge the mean.
            let misjudged = LATE_S as u64 * 20;
            assert!(
                plan.tell == 0 || stay + misjudged >= mean,
                "{stay} of {mean} in {:?}",
                self.sessions
            );
            self.leaving[me][self.second % GRACE_S] = plan.tell;
            let batch = &mut self.batches[me];
            if plan.begins {
                *batch = Batch::default();
            }
            batch.told += plan.tell;
            batch.known += if self.are_known { plan.tell } else { 0 };
            told_now += plan.tell;
        }
        self.second += 1;
        // Those who were told first have waited long enough, and come back somewhere.
        for me in 0..self.sessions.len() {
            let go = std::mem::take(&mut self.leaving[me][self.second % GRACE_S]);
            for _ in 0..go {
                self.sessions[me] -= 1;
                let to = self.place(me);
                self.sessions[to] += 1;
                let is_seen = self.are_known && to == me;
                self.batches[me].returned += u64::from(is_seen);
            }
        }
        for (said, sessions) in self.said.iter_mut().zip(&self.sessions) {
            said.remove(0);
            said.push(*sessions);
        }
        self.shed += told_now;
        told_now
    }
}

#[test]
fn whoever_gets_the_sessions_the_load_evens_out_and_then_all_is_quiet() {
    for seed in 0..100 {
        for balancer in [Balancer::Random, Balancer::Least, Balancer::Turns] {
            let mut cluster = Cluster::new(seed, balancer);
            let begin = cluster.sessions.clone();
            let start = Instant::now();
            let mut quiet_s = 0;
            // Longer than a pause after a trial that chance has spoiled.
            while quiet_s < 700 {
                quiet_s = if cluster.step(start) == 0 {
                    quiet_s + 1
                } else {
                    0
                };
                assert!(
                    cluster.second < 40_000,
                    "{seed} {balancer:?}: {begin:?} {:?}",
                    cluster.sessions
                );
            }
            let all: u64 = begin.iter().sum();
            assert_eq!(cluster.sessions.iter().sum::<u64>(), all);
            let mean = all.div_ceil(begin.len() as u64);
            let most = *cluster.sessions.iter().max().expect("some");
            let tolerated = (mean / 5).max(EXCESS_MIN);
            assert!(
                most <= mean + tolerated,
                "{seed} {balancer:?}: {:?}",
                cluster.sessions
            );
            // Everybody who is sent away comes to rest after a few moves at the most.
            let above: u64 = begin.iter().map(|n| n.saturating_sub(mean)).sum();
            let moves = match balancer {
                Balancer::Least => 2 * above,
                _ => 20 * above,
            };
            assert!(
                cluster.shed <= moves,
                "{} for {above} in {begin:?}",
                cluster.shed
            );
        }
    }
}

#[test]
fn behind_a_balancer_that_deals_by_a_hash_few_are_told_and_then_nobody_for_ten_minutes() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, Balancer::Hash);
        let (begin, start) = (cluster.sessions.clone(), Instant::now());
        let mean = begin.iter().sum::<u64>() / begin.len() as u64;
        let is_above = |count: &&u64| **count > mean + (mean / 5).max(EXCESS_MIN);
        let above_count = begin.iter().filter(is_above).count() as u64;
        for _ in 0..300 {
            cluster.step(start);
        }
        assert_eq!(cluster.sessions[begin.len() - 1], 0, "nobody moves");
        // Each of the nodes that are far above the mean, once.
        let told = cluster.shed;
        assert!(told <= trial::SESSIONS * above_count, "{told} of {begin:?}");
        assert!(above_count == 0 || told > 0, "{begin:?}");
        for _ in 0..300 {
            cluster.step(start);
        }
        assert_eq!(cluster.shed, told, "{begin:?}");
    }
}

#[test]
fn a_node_that_takes_no_sessions_has_no_share() {
    let mut two = view(&[("ready", 1_000), ("ready", 0)]);
    two.nodes[1].details.api_only = true;
    let (mut rebalancer, now) = settled(&two);
    let plan = rebalancer.plan(&two, here(1_000), now);
    assert_eq!(plan, Plan::default());
    // Nor is it a change of nodes when one comes or goes.
    let mut three = view(&[("ready", 1_000), ("ready", 0), ("ready", 0)]);
    three.nodes[2].details.api_only = true;
    let (mut rebalancer, now) = settled(&view(&[("ready", 1_000), ("ready", 0)]));
    let plan = rebalancer.plan(&three, here(1_000), now);
    assert_eq!((plan.excess, plan.tell), (450, 20));
}
