//! The link for publications: cut while many are in flight, and away alone.

use std::time::Duration;

use fanfare::broker::{BrokerError, Published};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;

use crate::rig::{HISTORY, Peer, request, topic};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait;

/// Ends the connections for publications; how many there were.
fn cut(server: &RedisServer) -> usize {
    let clients = server.ask(&["CLIENT", "LIST"]).expect("the server runs");
    let lines = clients[0].lines();
    let ours = lines.filter(|line| line.contains(" name=fanfare-publications "));
    let ids = ours.filter_map(|line| line.strip_prefix("id=")?.split(' ').next());
    ids.filter(|id| server.command(&["CLIENT", "KILL", "ID", id]).as_deref() == Some(":1"))
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_loses_doubles_and_reorders_nothing() {
    const COUNT: u64 = 3_000;
    let server = RedisServer::start().await;
    let peer = Peer::up(server.url()).await;
    let room = topic("room");
    let (mut accepted, mut unknown, mut refused, mut cuts) = (Vec::new(), 0, 0, 0);
    let mut answers = FuturesOrdered::new();
    for n in 1..=COUNT {
        // Many are in flight at a time, and each hundred finds the connection cut somewhere.
        let (peer, room) = (&peer, &room);
        answers.push_back(async move { (n, peer.broker.publish(request(room, n)).await) });
        if n % 100 == 0 {
            let cutting = async {
                tokio::time::sleep(Duration::from_millis(n % 7)).await;
                cut(&server)
            };
            let taking = async {
                while let Some((n, answer)) = answers.next().await {
                    match answer {
                        Ok(Published { position, .. }) => accepted.push((position, n)),
                        Err(BrokerError::Unknown(_)) => unknown += 1,
                        Err(BrokerError::Unavailable(_)) => refused += 1,
                        other => panic!("expected no such answer: {other:?}"),
                    }
                }
            };
            let (count, ()) = tokio::join!(cutting, taking);
            cuts += count;
            peer.is_up().await;
        }
    }
    let retained = peer.retained(&room).await;
    assert!(
        retained.is_sorted_by(|(_, a), (_, b)| a < b),
        "{retained:?}"
    );
    let missing: Vec<_> = accepted.iter().filter(|a| !retained.contains(a)).collect();
    assert!(missing.is_empty(), "accepted but not retained: {missing:?}");
    let told = accepted.len() + unknown + refused;
    assert_eq!(told as u64, COUNT, "each is answered once");
    assert!(
        retained.len() <= accepted.len() + unknown,
        "what was refused is there"
    );
    assert!(cuts > 5, "{cuts} cuts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_takes_no_publications_is_down_and_its_other_links_stand() {
    let server = RedisServer::start().await;
    let peer = Peer::up(server.url_of_user()).await;
    let user = |rule: &str| {
        let set = server.command(&["ACL", "SETUSER", "fanfare", "resetpass", rule]);
        assert_eq!(set.as_deref(), Some("+OK"));
    };
    let control = &peer.metrics.control;
    let away = || {
        [
            control.away_publications.get(),
            control.away_urgent.get(),
            control.away_bulk.get(),
        ]
    };
    assert_eq!(away(), [0, 0, 0]);
    // Connections that stand are not asked again.
    user(">another");
    assert_eq!(cut(&server), 1);
    peer.is_down_for("by its publications link: WRONGPASS")
        .await;
    assert_eq!(away(), [1, 0, 0]);
    let room = topic("room");
    match peer.publish(&room, 1).await {
        Err(BrokerError::Refused(refusal)) => assert_eq!(refusal.word, "WRONGPASS"),
        other => panic!("expected a refusal, got {other:?}"),
    }
    let last = peer.broker.last(&room, HISTORY, true);
    last.await.expect("the bulk link stands");
    user(">secret");
    peer.is_up().await;
    wait::until("all links", async || (away() == [0, 0, 0]).then_some(())).await;
    peer.publish(&room, 2).await.expect("up");
    assert_eq!(control.refusing_wrongpass.get(), 0);
}
