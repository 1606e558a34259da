//! Every form in which users run Redis: behind sentinels, as a cluster, as several deployments.
//!
//! In: real servers on free ports (`crates/testkit/src/redis_sentinels.rs`, `crates/testkit/src/redis_cluster.rs`).
//! Out: what is promised of a form beyond the suite that all engines share (`tests/conformance`):
//! masters are followed wherever they go, and what one of them does is no matter of the others.

mod blinks;
mod cluster;
mod encrypted;
mod leases;
mod probes;
mod queue;
#[path = "../redis_broker/queue_rig.rs"]
#[allow(dead_code, reason = "each test binary uses another part")]
mod queue_rig;
mod replicas;
#[path = "../redis_broker/rig.rs"]
#[allow(dead_code, reason = "each test binary uses another part")]
mod rig;
mod sentinels;
mod several;

use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::{http, wait};

/// Two nodes that see each other.
async fn two_nodes(url: &str) -> [Node; 2] {
    two_nodes_by(|name| Plan::clustered(name, url)).await
}

async fn two_nodes_by(plan: impl Fn(&str) -> Plan) -> [Node; 2] {
    let (one, two) = tokio::join!(plan("one").start(), plan("two").start());
    let nodes = [one, two];
    for node in &nodes {
        wait::until("both nodes to be seen", async || {
            let seen = http::get(node.api, "/v1/nodes").await.json();
            (seen["nodes"].as_array()?.len() == nodes.len()).then_some(())
        })
        .await;
    }
    nodes
}
