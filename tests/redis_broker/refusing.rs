//! Each word in which Redis refuses, provoked at a real server: what goes on, and what is told.

use fanfare::broker::{BrokerError, BrokerHealth, HistoryQuery, Page};
use fanfare::config;
use fanfare::redis::refusal::{Effect, REFUSALS, Refusal};
use fanfare_protocol::error::ErrorCode;
use fanfare_protocol::ids::{Position, SessionId, Topic};
use tokio::io::AsyncWriteExt as _;

use crate::rig::{HISTORY, Peer, settings, topic};
use fanfare_protocol::form::Encoding;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait::PATIENCE;
use fanfare_testkit::{http, resp, wait};

fn set(server: &RedisServer, name: &str, value: &str) {
    let answer = server.command(&["CONFIG", "SET", name, value]);
    assert_eq!(answer.as_deref(), Some("+OK"), "{name} {value}");
}

/// The gauge that belongs to a word.
fn gauge(peer: &Peer, word: &str) -> u64 {
    let row = REFUSALS.iter().find(|row| row.word == word);
    (row.expect("a word of the table").gauge)(&peer.metrics.control).get()
}

/// Waits until the broker is read only in this word.
async fn is_read_only(peer: &Peer, word: &str) {
    let mut health = peer.broker.health();
    let is_it = |health: &BrokerHealth| match health {
        BrokerHealth::ReadOnly(reason) => reason.contains(word),
        _ => false,
    };
    let waited = tokio::time::timeout(PATIENCE, health.wait_for(is_it)).await;
    assert!(waited.is_ok(), "{:?}", peer.broker.health().borrow());
    assert_eq!(gauge(peer, word), 1);
}

/// Publishing is refused in this word, and everything can be read and heard.
async fn only_reads(peer: &mut Peer, word: &str, topic: &Topic, kept: Position) {
    is_read_only(peer, word).await;
    match peer.publish(topic, 2).await {
        Err(BrokerError::Refused(refusal)) => {
            assert_eq!((refusal.word, refusal.effect), (word, Effect::ReadOnly));
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
    assert_eq!(peer.retained(topic).await, [(kept, 1)]);
    for was_there in [true, false] {
        let last = peer.broker.last(topic, HISTORY, was_there).await;
        assert_eq!(last, Ok(Some(kept)));
    }
    let query = HistoryQuery {
        topic: topic.clone(),
        retention: HISTORY,
        since: None,
        until: None,
        limit: 10,
        bytes_max: 1_000,
        reverse: false,
    };
    let page = peer.broker.history(query).await.expect("it can be read");
    assert_eq!(page.entries.len(), 1);
    let page = Page {
        entries_max: 10,
        bytes_max: 1_000,
    };
    let since = peer.broker.since(topic, kept, HISTORY, page).await;
    assert_eq!(since.expect("it can be read").gap, None);
    let inbox = peer.broker.inbox(topic, HISTORY).await;
    assert_eq!(inbox.expect("it can be read").last, kept);
    let members = peer.broker.members(topic, None, page).await;
    members.expect("it can be read");
    peer.broker.check(topic).expect("it can be joined");
    peer.hear(&crate::rig::topic(&format!("new-{word}"))).await;
}

/// Everything is as before.
async fn takes_writes(peer: &Peer, word: &str, topic: &Topic) {
    peer.is_up().await;
    assert_eq!(gauge(peer, word), 0);
    peer.publish(topic, 3).await.expect("up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_without_enough_replicas_is_read_only() {
    let server = RedisServer::start().await;
    let (mut peer, room) = (Peer::up(server.url()).await, topic("@ada"));
    let kept = peer.publish(&room, 1).await.expect("up").position;
    set(&server, "min-replicas-to-write", "1");
    only_reads(&mut peer, "NOREPLICAS", &room, kept).await;
    set(&server, "min-replicas-to-write", "0");
    takes_writes(&peer, "NOREPLICAS", &room).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_cannot_save_is_read_only() {
    let server = ["--appendonly", "no", "--save", "3600 1"];
    let mut server = RedisServer::with(&server);
    server.restart().await;
    let (mut peer, room) = (Peer::up(server.url()).await, topic("@ada"));
    let kept = peer.publish(&room, 1).await.expect("up").position;
    std::fs::remove_dir_all(server.directory()).expect("a directory of the test");
    server.command(&["BGSAVE"]).expect("the server runs");
    only_reads(&mut peer, "MISCONF", &room, kept).await;
    set(&server, "stop-writes-on-bgsave-error", "no");
    takes_writes(&peer, "MISCONF", &room).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_master_is_read_only_and_lets_go_of_things() {
    let server = RedisServer::start().await;
    let (mut peer, inbox) = (Peer::up(server.url()).await, topic("@ada"));
    let kept = peer.publish(&inbox, 1).await.expect("up").position;
    set(&server, "maxmemory", "1");
    only_reads(&mut peer, "OOM", &inbox, kept).await;
    let session = SessionId::random();
    let acked = peer.broker.ack(&inbox, kept, session, HISTORY).await;
    acked.expect("a cursor is small");
    set(&server, "maxmemory", "0");
    takes_writes(&peer, "OOM", &inbox).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_busy_is_away_in_its_word() {
    let server = RedisServer::start().await;
    let peer = Peer::up(server.url()).await;
    set(&server, "busy-reply-threshold", "20");
    let port = server.port();
    let looping = tokio::task::spawn_blocking(move || {
        let address = ([127, 0, 0, 1], port).into();
        let words = ["EVAL", "while true do end", "0"];
        std::panic::catch_unwind(|| fanfare_testkit::redis_server::ask(address, &words))
    });
    peer.is_down_for("BUSY").await;
    assert_eq!(gauge(&peer, "BUSY"), 1);
    match peer.publish(&topic("room"), 1).await {
        Err(BrokerError::Refused(refusal)) => assert_eq!(refusal.word, "BUSY"),
        other => panic!("expected a refusal, got {other:?}"),
    }
    let killed = server.command(&["SCRIPT", "KILL"]);
    assert_eq!(killed.as_deref(), Some("+OK"));
    takes_writes(&peer, "BUSY", &topic("room")).await;
    let _ = looping.await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_loads_its_data_is_away_in_its_word() {
    let options = [
        ["--appendonly", "no"],
        ["--rdbcompression", "no"],
        ["--key-load-delay", "50000"],
        ["--loading-process-events-interval-bytes", "1024"],
    ];
    let mut server = RedisServer::with(options.as_flattened());
    server.restart().await;
    let peer = Peer::up(server.url()).await;
    for n in 0..80 {
        let set = server.command(&["SET", &format!("k{n}"), &"x".repeat(200)]);
        assert_eq!(set.as_deref(), Some("+OK"));
    }
    assert_eq!(server.command(&["SAVE"]).as_deref(), Some("+OK"));
    server.kill();
    tokio::join!(server.restart(), peer.is_down_for("LOADING"));
    takes_writes(&peer, "LOADING", &topic("room")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_every_command_out_is_told_with_what_to_do() {
    let server = RedisServer::start().await;
    let replica = RedisServer::start().await;
    let port = server.port().to_string();
    replica.command(&["REPLICAOF", "127.0.0.1", &port]);
    let peer = Peer::start(replica.url());
    peer.is_down_for("redis.url must lead to the master").await;
    let peer = Peer::start(format!("{}/99", server.url()));
    peer.is_down_for("the server has no database of that number")
        .await;
    let of_cluster = server.url().replace("redis://", "redis-cluster://");
    let peer = Peer::start(of_cluster);
    peer.is_down_for("write redis:// and not redis-cluster://")
        .await;
    let of_sentinels = server.url().replace("redis://", "redis-sentinel://");
    let peer = Peer::start(format!("{of_sentinels}?master=main"));
    peer.is_down_for("what answers is no sentinel").await;

    let mut full = RedisServer::with(&["--maxclients", "1"]);
    full.restart().await;
    let peer = Peer::start(full.url());
    peer.is_down_for("as many connections as maxclients allows")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_down_is_away_in_its_word() {
    let mut server = RedisServer::with(&["--cluster-enabled", "yes"]);
    server.restart().await;
    let all = ["CLUSTER", "ADDSLOTSRANGE", "0", "16383"];
    server.ask(&all).expect("the server runs");
    let url = server.url().replace("redis://", "redis-cluster://");
    let peer = Peer::start_with(&settings(url, config::RedisAccess::default()));
    peer.is_up().await;
    let taken = server.command(&["CLUSTER", "DELSLOTS", "7"]);
    assert_eq!(taken.as_deref(), Some("+OK"));
    peer.is_down_for("CLUSTERDOWN").await;
    let given = server.command(&["CLUSTER", "ADDSLOTS", "7"]);
    assert_eq!(given.as_deref(), Some("+OK"));
    peer.is_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_is_refused_is_told_in_the_word_to_who_would_join() {
    let server = RedisServer::start().await;
    let mut peer = Peer::up(server.url()).await;
    let room = topic("room");
    let take = server.command(&["ACL", "SETUSER", "default", "-subscribe"]);
    assert_eq!(take.as_deref(), Some("+OK"));
    server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    peer.is_down_for("the user lacks a right").await;
    let told = wait::until("the word", async || match peer.broker.check(&room) {
        Err(BrokerError::Refused(refusal)) => Some(refusal.word),
        _ => None,
    });
    assert_eq!(told.await, "NOPERM");
    assert_eq!(gauge(&peer, "NOPERM"), 1);
    peer.publish(&room, 1).await.expect("by another connection");
    let give = server.command(&["ACL", "SETUSER", "default", "+subscribe"]);
    assert_eq!(give.as_deref(), Some("+OK"));
    peer.is_up().await;
    assert_eq!(gauge(&peer, "NOPERM"), 0);
    peer.hear(&room).await;
}

/// The user may not publish on the channel of one topic: its script fails when all is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_is_broken_off_is_told_as_unknown_in_the_word_and_counted() {
    let server = RedisServer::start().await;
    let mut words = vec![
        "ACL", "SETUSER", "ff", "on", ">pw", "~ff:*", "~{ff:*", "+@all",
    ];
    words.extend([
        "resetchannels",
        "&ff:probe*",
        "&ff:ctl",
        "&ff:{*}{default:@*",
    ]);
    assert_eq!(server.command(&words).as_deref(), Some("+OK"));
    let peer = Peer::up(server.url().replace("redis://", "redis://ff:pw@")).await;
    let room = topic("room");
    let told = peer
        .publish(&room, 1)
        .await
        .expect_err("it is refused")
        .told();
    assert_eq!(told.code, ErrorCode::Unavailable);
    let expected = "the outcome is unknown, because Redis cannot be used: NOPERM, ";
    assert!(told.message.starts_with(expected), "{}", told.message);
    assert_eq!(peer.retained(&room).await.len(), 1);
    assert_eq!(gauge(&peer, "NOPERM"), 1);
    peer.publish(&topic("@anna"), 1)
        .await
        .expect("of another channel");
    assert_eq!(gauge(&peer, "NOPERM"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_scripts_lack_is_told_in_the_word() {
    let server = RedisServer::start().await;
    let before = Peer::up(server.url()).await;
    let take = server.command(&["ACL", "SETUSER", "default", "-publish"]);
    assert_eq!(take.as_deref(), Some("+OK"));
    before.is_down_for("the user lacks a right").await;
    let refused = before.publish(&topic("room"), 1).await;
    let word = Refusal::of("NOPERM").expect("a row");
    assert_eq!(refused, Err(BrokerError::Refused(word)));
    let peer = Peer::start(server.url());
    peer.is_down_for("the user lacks a right").await;
    assert_eq!(gauge(&peer, "NOPERM"), 1);
}

/// A connection that is there before the server refuses others.
struct Beside(tokio::io::BufReader<tokio::net::TcpStream>);

impl Beside {
    async fn connect(server: &RedisServer) -> Self {
        let socket = tokio::net::TcpStream::connect(server.address()).await;
        Self(tokio::io::BufReader::new(socket.expect("it runs")))
    }

    /// The text of an answer that has one.
    async fn ask(&mut self, command: &str) -> String {
        let line = format!("{command}\r\n");
        let sent = self.0.get_mut().write_all(line.as_bytes()).await;
        sent.expect("it runs");
        let frame = resp::read_frame(&mut self.0).await.expect("an answer");
        String::from_utf8(frame).expect("text")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_its_bulk_link_is_not_ready_and_says_why() {
    let server = RedisServer::start().await;
    let node = Plan::clustered("one", &server.url()).start().await;
    let mut beside = Beside::connect(&server).await;
    // Its probe is a ROLE, so that is the last command of its connection.
    let (clients, bulk) = wait::until_within(PATIENCE, "the bulk link", async || {
        let mut beside = Beside::connect(&server).await;
        let clients = beside.ask("CLIENT LIST").await;
        let is_it = |line: &&str| line.contains(" cmd=role ");
        let line = clients.lines().find(is_it)?.to_owned();
        let id = line.strip_prefix("id=")?.split(' ').next()?.to_owned();
        // One of them is this question's.
        let others = clients.lines().filter(|line| line.contains("id="));
        Some((others.count() - 1, id))
    })
    .await;
    let lower = format!("CONFIG SET maxclients {}", clients - 1);
    assert!(beside.ask(&lower).await.contains("OK"));
    let killed = beside.ask(&format!("CLIENT KILL ID {bulk}")).await;
    assert!(killed.contains(":1"), "{killed}");
    let reasons = wait::until_within(PATIENCE, "the node to tell", async || {
        let ready = http::get(node.api, "/health/ready").await;
        (ready.status == 503).then(|| ready.text())
    })
    .await;
    assert!(
        reasons.contains("by its bulk link") && reasons.contains("maxclients"),
        "{reasons}"
    );
    let away = |link: &str| format!("fanfare_redis_links_away{{link=\"{link}\"}}");
    let refusing = "fanfare_redis_refusing{reason=\"maxclients\"}";
    assert_eq!(node.metric(&away("bulk")).await, 1);
    assert_eq!(node.metric(&away("urgent")).await, 0);
    assert_eq!(node.metric(refusing).await, 1);
    let lost = node.until_told("redis_lost").await;
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0].to_string().contains("by its bulk link"), "{lost:?}");

    assert!(beside.ask("CONFIG SET maxclients 100").await.contains("OK"));
    node.until_ready().await;
    assert_eq!(node.metric(&away("bulk")).await, 0);
    assert_eq!(node.metric(refusing).await, 0);
    // Once at the start, and once now.
    wait::until("both lines", async || {
        (node.log_lines("redis_recovered").len() == 2).then_some(())
    })
    .await;
}

/// Who would be a member is told in this word, within less than a session waits for an answer.
async fn no_member_joins(bob: &mut Talk, word: &str) {
    bob.be_patient(std::time::Duration::from_secs(4));
    for topic in ["room", "room", "hall"] {
        let join = serde_json::json!({"type": "subscribe", "topic": topic, "presence": true});
        let error = bob.refused(join, "unavailable").await;
        let message = error["message"].to_string();
        assert!(message.contains(word), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_told_at_once_that_the_index_is_refused() {
    let server = RedisServer::start().await;
    let node = Plan::clustered("one", &server.url()).start().await;
    let (mut bob, _) = Talk::welcomed(&node.connect_url("?user=bob"), Encoding::Json).await;
    let take = server.command(&["ACL", "SETUSER", "default", "-zadd"]);
    assert_eq!(take.as_deref(), Some("+OK"));
    no_member_joins(&mut bob, "NOPERM").await;
    // Nothing else is wrong.
    assert_eq!(partial(&node).await, None);
    bob.publish("room", serde_json::json!(1)).await;
    let give = server.command(&["ACL", "SETUSER", "default", "+zadd"]);
    assert_eq!(give.as_deref(), Some("+OK"));
    let join = serde_json::json!({"type": "subscribe", "topic": "room", "presence": true});
    bob.ok(join).await;
}

/// The one element that a health answer has for what is partly wrong.
pub(crate) async fn partial(node: &Node) -> Option<String> {
    let ready = http::get(node.api, "/health/ready").await;
    assert_eq!(ready.status, 200);
    let partial = ready.json()["partial"].as_array()?.clone();
    Some(partial.first()?.as_str()?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_tells_publishers_and_operators_why_nothing_is_written() {
    let server = RedisServer::start().await;
    let plan = Plan::clustered("one", &server.url())
        .env("FANFARE_REDIS__LEASE_MS", "2000")
        .env("FANFARE_REDIS__COMMAND_TIMEOUT_MS", "700");
    let node = plan.start().await;
    let (mut ada, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
    ada.be_patient(PATIENCE);
    ada.ok(serde_json::json!({"type": "subscribe", "topic": "t"}))
        .await;
    let publish = serde_json::json!({"topic": "t", "data": 1});
    assert_eq!(
        http::post(node.api, "/v1/publish", &publish).await.status,
        200
    );
    ada.message("t").await;

    set(&server, "min-replicas-to-write", "1");
    let told =
        wait::until_within(PATIENCE, "the node to tell", async || partial(&node).await).await;
    assert!(
        told.contains("NOREPLICAS") && told.contains("bring them back"),
        "{told}"
    );
    let refused = http::post(node.api, "/v1/publish", &publish).await;
    assert_eq!(refused.status, 503);
    let command = serde_json::json!({"type": "publish", "topic": "t", "data": 2});
    let error = ada.refused(command, "unavailable").await;
    for message in [refused.text(), error["message"].to_string()] {
        assert!(
            message.contains("NOREPLICAS") && message.contains("bring them back"),
            "{message}"
        );
    }
    let reason = "fanfare_redis_refusing{reason=\"noreplicas\"}";
    assert_eq!(node.metric(reason).await, 1);
    // Two leases later it is still a member, reads and lets join.
    let beats = || async { http::get(node.api, "/v1/nodes").await.json()["nodes"][0].clone() };
    let before = beats().await["incarnation"].clone();
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    assert!(partial(&node).await.is_some());
    let (mut bob, _) = Talk::welcomed(&node.connect_url("?user=bob"), Encoding::Json).await;
    bob.be_patient(PATIENCE);
    bob.ok(serde_json::json!({"type": "subscribe", "topic": "t"}))
        .await;
    let history = bob
        .ok(serde_json::json!({"type": "history", "topic": "t"}))
        .await;
    assert_eq!(
        history["publications"].as_array().map(Vec::len),
        Some(1),
        "{history}"
    );
    assert_eq!(beats().await["incarnation"], before);
    no_member_joins(&mut bob, "NOREPLICAS").await;
    assert_eq!(node.until_told("redis_writes_refused").await.len(), 1);

    set(&server, "min-replicas-to-write", "0");
    wait::until_within(PATIENCE, "the node to be whole", async || {
        partial(&node).await.is_none().then_some(())
    })
    .await;
    assert_eq!(
        http::post(node.api, "/v1/publish", &publish).await.status,
        200
    );
    ada.message("t").await;
}
