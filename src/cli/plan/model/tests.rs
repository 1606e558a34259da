//! The model against what was measured, and that more of anything never needs less.

use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

const LARGE: Machines = Machines {
    node_sessions_max: 10_000,
    node_cores: 2.0,
    node_memory_bytes: 4 * GIB,
    node_cache_bytes: 2 * GIB,
    redis_memory_bytes: 16 * GIB,
    network_bits_per_s: 1_000_000_000,
};

const QUIET: Demand = Demand {
    users: 1,
    topics: 1,
    publications_per_s: 1,
    fanout: 1,
    body_bytes: 200,
    history_entries: 0,
    history_age_s: 86_400,
    inbox_entries: 0,
    session_s: 1_800,
    queued_percent: 0,
};

/// An input of a demand.
type Input = fn(&mut Demand) -> &mut u64;

/// Each input of a demand, to be changed.
const INPUTS: [(&str, Input); 9] = [
    ("users", |demand| &mut demand.users),
    ("topics", |demand| &mut demand.topics),
    ("rate", |demand| &mut demand.publications_per_s),
    ("fanout", |demand| &mut demand.fanout),
    ("bytes", |demand| &mut demand.body_bytes),
    ("history", |demand| &mut demand.history_entries),
    ("age", |demand| &mut demand.history_age_s),
    ("inbox", |demand| &mut demand.inbox_entries),
    ("queued", |demand| &mut demand.queued_percent),
];

fn is_near(value: f64, measured: f64, tolerance: f64) -> bool {
    (value / measured - 1.0).abs() <= tolerance
}

fn micros(seconds: f64) -> f64 {
    seconds * 1e6
}

#[test]
fn a_fan_out_costs_what_was_measured() {
    // docs/performance.md: 40 publications a second to 1,000 sessions over Redis.
    let demand = Demand {
        users: 1_000,
        publications_per_s: 40,
        fanout: 1_000,
        ..QUIET
    };
    let load = Load::new(&demand, &LARGE);
    let used = load.cores(1) - costs::RESTING.value;
    let each = micros(used) / load.deliveries_per_s;
    assert!(is_near(each, 8.85, 0.05), "{each} µs a delivery");
}

#[test]
fn one_message_to_one_session_costs_what_was_measured() {
    let demand = Demand {
        users: 1_000,
        topics: 1_000,
        publications_per_s: 5_000,
        ..QUIET
    };
    let load = Load::new(&demand, &LARGE);
    let used = load.cores(1) - costs::RESTING.value;
    assert!(is_near(micros(used) / 5_000.0, 106.0, 0.01), "{used}");
    let (redis, ..) = load.master(Resource::RedisCpu, 1, 1);
    assert!(is_near(micros(redis) / 5_000.0, 58.2, 0.01), "{redis}");
}

#[test]
fn redis_keeps_as_many_bytes_as_were_measured() {
    // docs/redis.md, stream-node-max-bytes 512, bodies of 230 bytes.
    let inbox = Demand {
        users: 1_000,
        body_bytes: 230,
        inbox_entries: 1,
        ..QUIET
    };
    let inbox = Load::new(&inbox, &LARGE);
    assert!(is_near(inbox.inboxes_bytes / 1_000.0, 960.0, 0.001));
    let stream = Demand {
        body_bytes: 230,
        history_entries: 1_000,
        ..QUIET
    };
    let stream = Load::new(&stream, &LARGE);
    assert!(is_near(stream.topics_bytes, 588e3, 0.01));
}

#[test]
fn a_topic_keeps_no_more_than_was_published_within_its_age() {
    let demand = Demand {
        topics: 1_000_000,
        history_entries: 1_000,
        history_age_s: 60,
        publications_per_s: 10,
        ..QUIET
    };
    let kept = Load::new(&demand, &LARGE).topics_bytes;
    let entry = costs::ENTRY_BYTES.value + 200.0 + costs::KEYS_BYTES.value;
    assert!(is_near(kept, 600.0 * entry, 0.001), "{kept}");
}

#[test]
fn a_publication_is_heard_where_chance_put_its_sessions() {
    let heard = |fanout, nodes| {
        let demand = Demand {
            users: 1_000_000,
            fanout,
            ..QUIET
        };
        Load::new(&demand, &LARGE).heard_by(nodes)
    };
    assert!(is_near(heard(1, 100), 1.0, 1e-6));
    assert!(is_near(heard(1_000, 1), 1.0, 1e-6));
    assert!(is_near(heard(2, 2), 1.5, 1e-6));
    assert!(is_near(heard(1_000_000, 100), 100.0, 1e-6));
}

#[test]
fn the_resource_that_is_short_binds() {
    let plan = |demand: &Demand, machines: &Machines| plan(demand, machines).expect("a plan");
    let users = 1_000_000;
    let demand = Demand { users, ..QUIET };
    let found = plan(&demand, &LARGE);
    assert_eq!(found.nodes, 125, "a million at 8,000 each");
    assert_eq!(found.binds_first, Resource::Sessions);

    let loud = Demand {
        users: 10_000,
        publications_per_s: 2_000,
        fanout: 500,
        ..QUIET
    };
    assert_eq!(plan(&loud, &LARGE).binds_first, Resource::Cpu);
    let slow = Machines {
        network_bits_per_s: 100_000_000,
        ..LARGE
    };
    assert_eq!(plan(&loud, &slow).binds_first, Resource::Network);
    let alone = Demand {
        users: 100_000,
        publications_per_s: 60_000,
        ..QUIET
    };
    assert_eq!(plan(&alone, &LARGE).binds_first, Resource::RedisCpu);
    let kept = Demand {
        users: 20_000_000,
        inbox_entries: 100,
        ..QUIET
    };
    let large = Machines {
        node_sessions_max: 100_000,
        node_memory_bytes: 16 * GIB,
        ..LARGE
    };
    let found = plan(&kept, &large);
    let memory = found.needs.iter();
    let memory = memory.filter(|need| need.resource == Resource::RedisMemory);
    assert!(memory.map(|need| need.needed).eq([found.redis_masters]));
    assert!(found.redis_masters > 16 && found.redis_partitions >= 64 * found.redis_masters);
}

#[test]
fn where_nothing_is_enough_it_says_of_what() {
    let small = Machines {
        node_sessions_max: 100,
        ..LARGE
    };
    let users = 10_000_000_000;
    let all = Demand { users, ..QUIET };
    assert_eq!(plan(&all, &small), Err(NoPlan::Nodes(Resource::Sessions)));
    let many = Demand {
        users: 40_000_000,
        ..QUIET
    };
    assert_eq!(plan(&many, &LARGE), Err(NoPlan::Heartbeats(5_000)));
    let kept = Demand {
        users: 10_000_000,
        inbox_entries: 1_000_000,
        ..QUIET
    };
    assert_eq!(
        plan(&kept, &LARGE),
        Err(NoPlan::Masters(Resource::RedisMemory))
    );
}

fn demands() -> impl Strategy<Value = Demand> {
    // By powers, so that small and large numbers are as likely.
    let up_to =
        |most: u32| (0..=most, 1..10_u64).prop_map(|(power, digit)| digit * 10_u64.pow(power));
    (
        (up_to(7), up_to(7), up_to(5), up_to(4)),
        (up_to(4), up_to(4), up_to(5), up_to(2), 0..=100_u64),
    )
        .prop_map(
            |((users, topics, rate, fanout), (bytes, history, age, inbox, queued))| Demand {
                users: users.max(fanout),
                topics,
                publications_per_s: rate,
                fanout,
                body_bytes: bytes,
                history_entries: history,
                history_age_s: age,
                inbox_entries: inbox,
                session_s: 1_800,
                queued_percent: queued,
            },
        )
}

proptest! {
    #[test]
    fn more_of_anything_never_needs_less(
        demand in demands(),
        which in 0..INPUTS.len(),
        factor in 2..50_u64,
    ) {
        let mut more = demand;
        let (name, input) = INPUTS[which];
        *input(&mut more) *= factor;
        match (plan(&demand, &LARGE), plan(&more, &LARGE)) {
            (Ok(less), Ok(more)) => {
                prop_assert!(less.nodes <= more.nodes, "{name}: {less:?} {more:?}");
                prop_assert!(less.redis_masters <= more.redis_masters, "{name}: {less:?} {more:?}");
                prop_assert!(less.redis_bytes <= more.redis_bytes, "{name}: {less:?} {more:?}");
            }
            (Err(error), Ok(_)) => prop_assert!(false, "{name}: only less is too much: {error}"),
            (_, Err(_)) => {}
        }
    }

    #[test]
    fn a_plan_is_enough_and_one_less_is_not(demand in demands()) {
        if let Ok(found) = plan(&demand, &LARGE) {
            let load = Load::new(&demand, &LARGE);
            prop_assert!(found.needs.iter().all(|need| need.share <= 1.0));
            let nodes = found.nodes - 1;
            let lacks = Resource::NODE.iter().any(|r| load.node(*r, nodes).2 > 1.0);
            prop_assert!(nodes == 0 || lacks, "{found:?}");
            let masters = found.redis_masters - 1;
            let lacks = || Resource::REDIS.iter().any(|r| load.master(*r, found.nodes, masters).2 > 1.0);
            prop_assert!(masters == 0 || lacks(), "{found:?}");
        }
    }
}

#[test]
fn the_ends_of_all_inputs_are_counted_without_overflow() {
    let ends: [[u64; 2]; 9] = [
        [1, 10_000_000_000],
        [1, 10_000_000_000],
        [1, 1_000_000_000],
        [1, 10_000_000_000],
        [1, 16 << 20],
        [0, 1_000_000],
        [1, 31_536_000],
        [0, 1_000_000],
        [0, 100],
    ];
    let mut plans = 0;
    for corner in 0..1_usize << ends.len() {
        let mut demand = QUIET;
        for (index, (_, input)) in INPUTS.iter().enumerate() {
            *input(&mut demand) = ends[index][corner >> index & 1];
        }
        for machines in [
            LARGE,
            Machines {
                node_sessions_max: 10_000_000,
                node_cores: 1_024.0,
                node_memory_bytes: 16 << 40,
                node_cache_bytes: 2 * GIB,
                redis_memory_bytes: 16 << 40,
                network_bits_per_s: 1_000_000_000_000,
            },
        ] {
            let Ok(found) = plan(&demand, &machines) else {
                continue;
            };
            plans += 1;
            assert!((1..=NODES_MAX).contains(&found.nodes), "{demand:?}");
            let finite = |need: &Need| need.used.is_finite() && need.share.is_finite();
            assert!(found.needs.iter().all(finite), "{demand:?}: {found:?}");
            assert!(found.redis_bytes < u64::MAX, "{demand:?}");
        }
    }
    assert!(plans > 50, "{plans} of 1,024 have a plan");
}
