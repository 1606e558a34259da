//! Sentinels and a Redis Cluster behind TLS, users and passwords, as managed services give them.
//!
//! Every server also has a plain port, by which the test looks at it. Nodes are told of the TLS
//! port only, and that they use no other is asked of the servers.

use fanfare::config::RedisAccess;

use crate::cluster::{slot, topic_at};
use crate::rig::{Peer, settings};
use crate::sentinels::hold_writes;
use crate::two_nodes_by;
use fanfare_protocol::form::Encoding;
use fanfare_testkit::certificates::{Authority, Encryption, NAME};
use fanfare_testkit::load::{Listening, Load};
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_cluster::RedisCluster;
use fanfare_testkit::redis_sentinels::RedisSentinels;
use fanfare_testkit::redis_server::{self, RedisServer};
use fanfare_testkit::wait::{self, PATIENCE};

/// The connections of two nodes to a master: of each, one for commands and one that hears.
const AT_A_MASTER: usize = 4;

/// Trusts whoever signed for the servers, and expects their name.
fn trusting(encryption: &Encryption) -> RedisAccess {
    RedisAccess {
        tls_ca_file: Some(encryption.ca_file()),
        tls_server_name: Some(NAME.to_owned()),
        ..RedisAccess::default()
    }
}

/// The same for a node.
fn plan(name: &str, url: &str, encryption: &Encryption) -> Plan {
    Plan::clustered(name, url)
        .env("FANFARE_REDIS__TLS_CA_FILE", &encryption.ca_file())
        .env("FANFARE_REDIS__TLS_SERVER_NAME", NAME)
}

/// A steady load on a topic, and who hears it at the other node.
struct Flow {
    load: Load,
    listening: Listening,
    first: u64,
}

impl Flow {
    async fn start([one, two]: &[Node; 2], wire: Encoding, topic: &str) -> Self {
        let load = Load::start(one, topic).await;
        let listening = Listening::start(two, &format!("ear-of-{topic}"), wire, topic).await;
        let first = load.answered();
        let flow = Self {
            load,
            listening,
            first,
        };
        flow.goes_on().await;
        flow
    }

    async fn goes_on(&self) {
        self.load.goes_on(20).await;
        self.listening.goes_on(20).await;
    }

    /// Everything that was answered was heard, once and in order.
    async fn end(self) {
        let answered = self.load.end().await;
        self.listening.heard_all(&answered, self.first).await;
    }
}

/// A server refused nobody anything, and nodes have no connection but by TLS: so many at least.
fn is_used_by_tls_alone(server: &RedisServer, count_min: usize) {
    assert_eq!(server.command(&["ACL", "LOG"]).as_deref(), Some("*0"));
    let clients = server.ask(&["CLIENT", "LIST"]).expect("the server runs");
    let of_nodes = clients[0].lines().filter(|c| c.contains(" user=fanfare "));
    let by_tls = format!(" laddr={} ", server.offered());
    assert_ne!(server.offered(), server.address());
    let mut count = 0;
    for client in of_nodes {
        assert!(client.contains(&by_tls), "{client}");
        count += 1;
    }
    assert!(count >= count_min, "{count} connections in {clients:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_used_by_tls_and_its_own_user_while_slots_and_masters_move() {
    let encryption = Encryption::new();
    let cluster = RedisCluster::encrypted(&encryption).await;
    let url = cluster.tls_url_of_user();
    let nodes = two_nodes_by(|name| plan(name, &url, &encryption)).await;
    let topics = [0, 1, 2].map(|at| topic_at(&cluster, at));
    let mut flows = Vec::new();
    for (topic, wire) in topics
        .iter()
        .zip([Encoding::Json, Encoding::MsgPack, Encoding::Json])
    {
        flows.push(Flow::start(&nodes, wire, topic.name()).await);
    }

    let slot = slot(&cluster, &topics[0]);
    cluster.move_slot(slot, 0, 1);
    cluster.is_at(slot, 1).await;
    for flow in &flows {
        flow.goes_on().await;
    }
    // The replica of the second master takes over what that has, the moved slot too.
    cluster.servers[4]
        .ask(&["CLUSTER", "FAILOVER"])
        .expect("the server runs");
    cluster.is_at(slot, 4).await;
    for flow in &flows {
        flow.goes_on().await;
    }
    for flow in flows {
        flow.end().await;
    }
    for (at, server) in cluster.servers.iter().enumerate() {
        let is_master = [0, 2, 4].contains(&at);
        is_used_by_tls_alone(server, if is_master { AT_A_MASTER } else { 0 });
    }
    for node in &nodes {
        assert!(node.metric("fanfare_topics_moved_total").await > 0);
        assert_eq!(node.metric("fanfare_gaps_total").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_master_without_the_user_is_named_and_keeps_nobody_from_the_others() {
    let encryption = Encryption::new();
    let cluster = RedisCluster::encrypted(&encryption).await;
    let url = cluster.tls_url_of_user();
    let replica = &cluster.servers[3];
    replica
        .ask(&["ACL", "DELUSER", "fanfare"])
        .expect("the server runs");
    let peer = Peer::start_with(&settings(url, trusting(&encryption)));
    peer.is_up().await;
    let (kept_out, well) = (topic_at(&cluster, 0), topic_at(&cluster, 1));
    replica
        .ask(&["CLUSTER", "FAILOVER"])
        .expect("the server runs");
    wait::until_within(PATIENCE, "the new master to be named", async || {
        let reason = peer.is_partly_up().await;
        let address = replica.offered().to_string();
        (reason.contains("WRONGPASS") && reason.contains(&address)).then_some(())
    })
    .await;
    peer.is_refused(&kept_out, 1).await;
    peer.publish(&well, 1).await.expect("its master is well");
    redis_server::make_user(replica.address(), "fanfare");
    peer.is_up().await;
    peer.publish(&kept_out, 2).await.expect("up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_and_masters_are_used_by_tls_and_users_of_their_own_through_a_failover() {
    let encryption = Encryption::new();
    let mut sentinels = RedisSentinels::encrypted(&encryption).await;
    let url = sentinels.tls_url_of_users();
    let password_file = encryption.files.write("password", "secret\n");
    let nodes = two_nodes_by(|name| {
        plan(name, &url, &encryption)
            .env("FANFARE_REDIS__USER", "fanfare")
            .env("FANFARE_REDIS__PASSWORD_FILE", &password_file)
    })
    .await;
    let flow = Flow::start(&nodes, Encoding::MsgPack, "t").await;
    let master = sentinels.master().expect("the sentinels run");
    is_used_by_tls_alone(&sentinels.servers[master], AT_A_MASTER);

    hold_writes(&sentinels, master);
    sentinels.servers[master].kill();
    sentinels.is_not(master).await;
    flow.goes_on().await;
    flow.end().await;
    is_used_by_tls_alone(&sentinels.servers[1 - master], AT_A_MASTER);
    for sentinel in &sentinels.sentinels {
        let refused = redis_server::ask(sentinel.address, &["ACL", "LOG"]);
        assert_eq!(refused, Some(Vec::new()));
    }
    for node in &nodes {
        assert_eq!(node.metric("fanfare_gaps_total").await, 0);
    }
}

/// Whatever keeps a node out is named, in the words of a single server, and may be mended.
async fn what_keeps_out_is_named(url: &str, encryption: &Encryption) {
    let settings = |access| settings(url.to_owned(), access);
    let nameless = RedisAccess {
        tls_server_name: None,
        ..trusting(encryption)
    };
    Peer::start_with(&settings(nameless))
        .is_down_for("the certificate of Redis is for another name: see redis.tls_server_name")
        .await;

    let files = &encryption.files;
    let access = RedisAccess {
        user: Some("fanfare".to_owned()),
        password_file: Some(files.write("password", "wrong")),
        tls_ca_file: Some(files.write("trusted.pem", &Authority::new().pem)),
        ..trusting(encryption)
    };
    let peer = Peer::start_with(&settings(access));
    peer.is_down_for("no CA that this node trusts has signed the certificate of Redis")
        .await;
    let signer = std::fs::read_to_string(encryption.ca_file()).expect("a file of the test");
    files.write("trusted.pem", &signer);
    peer.is_down_for("WRONGPASS invalid username-password pair or user is disabled. (look into")
        .await;
    files.write("password", "secret");
    peer.is_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_a_node_out_of_a_cluster_is_named() {
    let encryption = Encryption::new();
    let options = ["--cluster-enabled", "yes"];
    let mut server = RedisServer::encrypted(&options, Some(&encryption));
    server.restart().await;
    let all = ["CLUSTER", "ADDSLOTSRANGE", "0", "16383"];
    server.ask(&all).expect("the server runs");
    let cluster = RedisCluster {
        servers: vec![server],
    };
    let url = cluster.tls_url_of_user().replace("fanfare:secret@", "");
    what_keeps_out_is_named(&url, &encryption).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_a_node_out_of_sentinels_and_their_master_is_named() {
    let encryption = Encryption::new();
    let sentinels = RedisSentinels::encrypted(&encryption).await;
    let url = sentinels.tls_url_of_users();
    what_keeps_out_is_named(&url, &encryption).await;

    let stranger = url.replace("guide:secret", "guide:wrong");
    let stranger = Peer::start_with(&settings(stranger, trusting(&encryption)));
    stranger
        .is_down_for("WRONGPASS invalid username-password pair or user is disabled. (look into")
        .await;
}
