//! What the hub costs: finding a topic's members for a delivery, and a session that joins and
//! leaves, beside few members and many.
//!
//! In: topics with a number of members. Out: criterion's figures. Joining and leaving must cost
//! the same whatever the number.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use fanfare::worker::hub::{Hub, Reference, SessionKey};
use fanfare_protocol::ids::{App, Topic};
use slotmap::SlotMap;

const MEMBERS: [u64; 3] = [1, 1_000, 100_000];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("hub");
    let topic = Topic::new(&App::default_app(), "orders:7").expect("a topic");
    for count in MEMBERS {
        let mut hub = Hub::default();
        let mut sessions: SlotMap<SessionKey, Vec<Reference>> = SlotMap::with_key();
        for _ in 0..count {
            let key = sessions.insert(Vec::new());
            hub.join(&topic, true, key, &mut sessions[key]);
        }
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("visit {count} members"), |b| {
            b.iter(|| visit(&hub, black_box(&topic)));
        });
        let newcomer = sessions.insert(Vec::new());
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("join and leave beside {count}"), |b| {
            b.iter(|| {
                let references = &mut sessions[newcomer];
                hub.join(&topic, true, newcomer, references);
                let (left, _) = hub.leave(references, 0);
                assert!(
                    left.moved_session().is_none(),
                    "the last one leaves no hole"
                );
            });
        });
    }
    group.finish();
    criterion.final_summary();
}

fn visit(hub: &Hub, topic: &Topic) {
    let key = hub.find(topic).expect("it has members");
    let topic = hub.get(key).expect("it has members");
    for member in &topic.members {
        black_box(member.session);
    }
}
