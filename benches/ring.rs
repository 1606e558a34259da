//! What the ring costs: dealing all partitions when the nodes change, and finding one home.
//!
//! In: names of nodes. Out: criterion's figures. The ring is built anew on each change of the
//! members and asked at each connect.

use std::hint::black_box;

use criterion::Criterion;
use fanfare::cluster::ring::Ring;
use fanfare_protocol::ids::{App, NodeId, Topic};

const PARTITIONS_COUNT: u32 = 256;
const NODES: [usize; 3] = [3, 10, 100];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("ring");
    let topic = Topic::new(&App::default_app(), "orders:7").expect("a topic");
    for count in NODES {
        let name = |number| NodeId::new(&format!("fanfare-{number}")).expect("a name");
        let nodes: Vec<_> = (0..count).map(name).collect();
        group.bench_function(format!("deal to {count} nodes"), |b| {
            b.iter(|| Ring::new(black_box(&nodes), PARTITIONS_COUNT));
        });
        let ring = Ring::new(&nodes, PARTITIONS_COUNT);
        group.bench_function(format!("home among {count} nodes"), |b| {
            b.iter(|| ring.home(black_box(&topic)).is_some());
        });
    }
    group.finish();
    criterion.final_summary();
}
