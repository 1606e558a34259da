//! Real nodes with real sessions: who is a member, what watchers are told, what is left in Redis.

use std::collections::BTreeSet;
use std::time::Duration;

use fanfare::redis::RedisLink;
use serde_json::{Value, json};
use tokio::time::timeout;

use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait;

/// The lease of these nodes: short, so that tests need not wait long, and longer than a busy
/// machine holds up a node.
pub(crate) const PROCESS_LEASE: Duration = Duration::from_secs(2);
/// What a killed node left is gone so long after the kill. Idle machines need its lease and five
/// seconds; this is what one needs on which two builds run as well.
pub(crate) const REAPED_WITHIN: Duration = Duration::from_secs(60);
/// For everything else that takes some heartbeats.
pub(crate) const SOME_BEATS: Duration = Duration::from_secs(60);

/// How such a node is started.
pub(crate) fn plan(redis: &RedisServer, name: &str) -> Plan {
    plan_over(&redis.url(), name)
}

/// The same over a Redis of any form.
pub(crate) fn plan_over(redis_url: &str, name: &str) -> Plan {
    let lease_ms = PROCESS_LEASE.as_millis().to_string();
    Plan::clustered(name, redis_url)
        .env("FANFARE_REDIS__LEASE_MS", &lease_ms)
        .env("FANFARE_REDIS__COMMAND_TIMEOUT_MS", "800")
        .env("FANFARE_DRAIN__WINDOW_MS", "500")
}

/// Waits until a node sees exactly these.
pub(crate) async fn sees(node: &Node, names: &[&str]) {
    wait::until_within(SOME_BEATS, "the nodes to be seen", async || {
        let answer = http::get(node.api, "/v1/nodes").await.json();
        let nodes = answer["nodes"].as_array()?;
        let seen: BTreeSet<_> = nodes.iter().filter_map(|n| n["node"].as_str()).collect();
        (seen == BTreeSet::from_iter(names.iter().copied())).then_some(())
    })
    .await;
}

/// `name~incarnation` of a node, as another one sees it.
pub(crate) async fn owner_of(name: &str, by: &Node) -> String {
    let answer = http::get(by.api, "/v1/nodes").await.json();
    let nodes = answer["nodes"].as_array().expect("a list");
    let node = nodes.iter().find(|node| node["node"] == name);
    let node = node.unwrap_or_else(|| panic!("no node {name} in {answer}"));
    format!("{name}~{}", node["incarnation"])
}

/// Members of a topic, one session each.
pub(crate) struct Members {
    pub(crate) talks: Vec<Talk>,
    pub(crate) sessions: BTreeSet<String>,
}

impl Members {
    /// So many sessions on this node enter.
    pub(crate) async fn enter(node: &Node, room: &str, count: usize) -> Self {
        let (mut talks, mut sessions) = (Vec::new(), BTreeSet::new());
        for number in 0..count {
            let url = node.connect_url(&format!("?user=member-{number}"));
            let (mut talk, welcome) = Talk::welcomed(&url, Encoding::Json).await;
            talk.ok(json!({"type": "subscribe", "topic": room, "presence": true}))
                .await;
            talks.push(talk);
            sessions.insert(welcome["session"].as_str().expect("its id").to_owned());
        }
        Self { talks, sessions }
    }
}

/// A session that watches the members of a topic.
pub(crate) struct Watcher {
    talk: Talk,
    room: String,
    pub(crate) joined: Vec<String>,
    pub(crate) left: Vec<String>,
}

impl Watcher {
    pub(crate) async fn start(node: &Node, wire: Encoding, room: &str) -> Self {
        let (mut talk, _) = Talk::welcomed(&node.connect_url("?user=watcher"), wire).await;
        talk.be_patient(SOME_BEATS);
        talk.ok(json!({"type": "subscribe", "topic": room, "presence": true}))
            .await;
        Self {
            talk,
            room: room.to_owned(),
            joined: Vec::new(),
            left: Vec::new(),
        }
    }

    /// Reads changes until that is so.
    pub(crate) async fn until(&mut self, within: Duration, what: &str, so: impl Fn(&Self) -> bool) {
        let reading = async {
            while !so(self) {
                let room = self.room.clone();
                let change = |event: &Value| {
                    event["topic"] == room
                        && (event["type"] == "presence" || event["type"] == "gap")
                };
                let event = self.talk.event(change).await;
                assert_eq!(event["type"], "presence", "{event}");
                self.joined.extend(sessions(&event["joined"]));
                self.left.extend(sessions(&event["left"]));
            }
        };
        let reached = timeout(within, reading).await.is_ok();
        let (joined, left) = (&self.joined, &self.left);
        assert!(
            reached,
            "waited {within:?} for {what}: {joined:?} joined, {left:?} left"
        );
    }

    /// Waits until all these have joined, and forgets what was told so far.
    pub(crate) async fn meets(&mut self, members: &Members) {
        self.until(SOME_BEATS, "the members to join", |seen| {
            members
                .sessions
                .iter()
                .all(|session| seen.joined.contains(session))
        })
        .await;
        (self.joined, self.left) = (Vec::new(), Vec::new());
    }

    /// Reads until the member that was told last comes, and returns all that was told before.
    pub(crate) async fn up_to(&mut self, last: &Members) -> (Vec<String>, Vec<String>) {
        let last = last.sessions.first().expect("there is one").clone();
        self.until(SOME_BEATS, "the last member to join", |seen| {
            seen.joined.contains(&last)
        })
        .await;
        self.joined.retain(|session| *session != last);
        self.joined.sort_unstable();
        self.left.sort_unstable();
        (self.joined.clone(), self.left.clone())
    }
}

fn sessions(members: &Value) -> Vec<String> {
    let members = members.as_array().expect("a list of members");
    let session = |member: &Value| member["session"].as_str().expect("its id").to_owned();
    members.iter().map(session).collect()
}

/// The sessions that a node lists as members.
pub(crate) async fn listed(node: &Node, room: &str) -> BTreeSet<String> {
    let path = format!("/v1/topics/{room}/presence?limit=1000");
    let answer = http::get(node.api, &path).await.json();
    sessions(&answer["members"]).into_iter().collect()
}

/// The keys in which something of this owner stands. Histories name it for as long as they last.
pub(crate) async fn keys_of(link: &RedisLink, owner: &str) -> Vec<String> {
    search(link, owner).await.expect("Redis answers")
}

/// As [`keys_of`]; `None` when Redis does not answer.
async fn search(link: &RedisLink, owner: &str) -> Option<Vec<String>> {
    const SEARCH: &str = "
        local found = {}
        for _, key in ipairs(redis.call('KEYS', '*')) do
          local read = {hash = {'HGETALL', key}, set = {'SMEMBERS', key}, string = {'GET', key},
            zset = {'ZRANGE', key, 0, -1}}
          local command = read[redis.call('TYPE', key).ok]
          local values = command and redis.call(unpack(command)) or {}
          if type(values) == 'string' then values = {values} end
          for _, value in ipairs(values) do
            if string.find(value, ARGV[1], 1, true) then found[#found + 1] = key; break end
          end
        end
        return found";
    let args = [b"0".to_vec(), owner.as_bytes().to_vec()];
    let found = link.command("EVAL", SEARCH, &args).await.ok()?;
    Some(found.convert().expect("a list of keys"))
}

/// Waits until nothing of this owner stands in Redis.
pub(crate) async fn nothing_left(link: &RedisLink, owner: &str) {
    wait::until_within(
        SOME_BEATS,
        "nothing of a dead node to be left",
        async || search(link, owner).await?.is_empty().then_some(()),
    )
    .await;
}
