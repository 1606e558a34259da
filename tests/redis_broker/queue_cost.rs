//! What an entry of the queue costs Redis, beside a publication of the same.
//!
//! In: a broker over a Redis of its own. Out: processor time of redis-server an entry, as it says itself:
//! by enqueuing in calls of 100, by fetching and moving in calls of 32 partitions, and by publishing
//! directly with 256 in flight. Inboxes whose streams are full, bodies of 200 bytes; nobody hears them. Who
//! begins changes from round to round.

use fanfare::broker::PublishRequest;
use fanfare::broker::queue::{
    EnqueueRequest, HeldPartition, MOVE_MAX, PARTITIONS_PER_CALL, Verdict,
};
use fanfare::config::Retention;
use fanfare_protocol::data::Data;
use fanfare_protocol::ids::{Priority, Topic};
use futures_util::StreamExt;

use crate::queue::hold;
use crate::queue_rig::{TOKEN, batch, partition_of, request};
use crate::rig::{Peer, topic};
use crate::script_cost::used_us;
use fanfare_testkit::redis_server::RedisServer;

const ENTRIES: usize = 24_000;
const ROUNDS: usize = 5;
const BODY_BYTES: usize = 200;
const RETENTION: Retention = Retention {
    entries_max: 100,
    age_ms: 86_400_000,
};

fn entry(target: &Topic) -> EnqueueRequest {
    let mut request = request(target, 0, Priority::Normal);
    let text = format!("\"{}\"", "x".repeat(BODY_BYTES));
    request.message.publication.data = Data::Json(text.into_bytes().into());
    request
}

async fn publish(peer: &Peer, topics: &[Topic]) {
    let requests = topics.iter().cycle().take(ENTRIES).map(|topic| {
        let publication = entry(topic).message.publication;
        PublishRequest::new(topic.clone(), publication, RETENTION)
    });
    let answers = futures_util::stream::iter(requests).map(|request| peer.broker.publish(request));
    answers
        .buffered(256)
        .for_each(|answer| {
            answer.expect("Redis takes it");
            std::future::ready(())
        })
        .await;
}

async fn enqueue(peer: &Peer, topics: &[Topic]) {
    let all: Vec<_> = topics.iter().cycle().take(ENTRIES).map(entry).collect();
    for call in all.chunks(100) {
        peer.enqueued(call.to_vec()).await;
    }
}

/// How many fetches and moves there were.
async fn drain(peer: &Peer, held: &[HeldPartition]) -> [usize; 2] {
    let (mut fetches, mut moves, mut moved) = (0, 0, 0);
    for from in 0.. {
        for held in held.chunks(PARTITIONS_PER_CALL) {
            let fetched = peer.broker.fetch(held, from).await.expect("up");
            fetches += 1;
            let mut all = batch(&fetched, held);
            for judged in &mut all.entries {
                if let Verdict::Publish { retention, .. } = &mut judged.verdict {
                    *retention = RETENTION;
                }
            }
            let entries = std::mem::take(&mut all.entries);
            for entries in entries.chunks(MOVE_MAX) {
                all.entries = entries.to_vec();
                all.held = held
                    .iter()
                    .filter(|held| entries.iter().any(|e| e.partition == held.partition))
                    .copied()
                    .collect();
                let ends = peer
                    .broker
                    .move_entries(all.clone())
                    .await
                    .expect("up")
                    .ends;
                moved += ends.len();
                moves += 1;
            }
        }
        if moved == ENTRIES {
            break;
        }
    }
    [fetches, moves]
}

/// A measurement; docs/performance.md has what came of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn what_an_entry_of_the_queue_costs_redis() {
    for topics_count in [1, 8, 1_000] {
        let mut server = RedisServer::with(&["--appendonly", "no"]);
        server.restart().await;
        let peer = Peer::up(server.url()).await;
        let topics: Vec<_> = (0..topics_count)
            .map(|n| topic(&format!("@user:{n}")))
            .collect();
        let mut partitions: Vec<_> = topics.iter().map(partition_of).collect();
        partitions.sort_unstable();
        partitions.dedup();
        let held = hold(&server, &partitions, TOKEN);
        for _ in 0..5 {
            publish(&peer, &topics).await;
        }
        let mut costs: [Vec<f64>; 3] = Default::default();
        let mut calls = [0, 0];
        for round in 0..ROUNDS {
            for step in 0..2 {
                if (round + step) % 2 == 0 {
                    let before_us = used_us(&server);
                    publish(&peer, &topics).await;
                    costs[0].push((used_us(&server) - before_us) / ENTRIES as f64);
                } else {
                    let before_us = used_us(&server);
                    enqueue(&peer, &topics).await;
                    let enqueued_us = used_us(&server);
                    calls = drain(&peer, &held).await;
                    costs[1].push((enqueued_us - before_us) / ENTRIES as f64);
                    costs[2].push((used_us(&server) - enqueued_us) / ENTRIES as f64);
                }
            }
        }
        let [publish, enqueue, moved] = costs.map(|mut costs| {
            costs.sort_by(f64::total_cmp);
            costs[costs.len() / 2]
        });
        println!(
            "{topics_count} inboxes in {} partitions, {calls:?} fetches and moves of {ENTRIES}: µs of \
             Redis, median of {ROUNDS}: publish {publish:.1}; enqueue {enqueue:.1} ({:.2}); fetch and \
             move {moved:.1} ({:.2})",
            held.len(),
            enqueue / publish,
            moved / publish
        );
    }
}
