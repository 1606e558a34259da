//! The table of keys: what can be set, its kind, default and meaning, and the field that it sets.
//!
//! In: nothing; the table is the one place where a key is written down, those of `[telemetry]` in
//! `telemetry_keys`. Out: [`Key`]s, from which come reading every source, `config show`, `config init`,
//! the documentation and the names that a fault suggests; and the sections of
//! [`crate::config::Config`], made from [`Values`]. A field without a row does not compile.

use std::sync::OnceLock;

use crate::config::forms;
use crate::config::key::{Initial, Key, section};
use crate::config::own_topics::{OWN_TOPICS, OwnTopics};
use crate::config::queue::Queue;
use crate::config::telemetry_keys::TELEMETRY;
use crate::config::value::{ALLOW, Kind, LOG_FORMAT, PRIORITY, Unit, bytes, count, ms, s};
use crate::config::values::Values;
use crate::config::{
    Admission, Api, Auth, Cache, Cluster, Drain, Health, Log, Memory, Metrics, Namespace,
    Rebalance, Redis, RedisAccess, Server, Session,
};

mod alerts;

use Initial::{BySize, Found, Is, Unset};
use Kind::{Flag, List, Text};

section!(SERVER, "server" => Server {
    listen: "listen", Text(forms::PUBLIC_ADDRESS), Is("0.0.0.0:8080"),
        "Where clients connect; none for a node that serves the API and takes no sessions, which needs redis.url. With --dev 127.0.0.1:8080. Flag --listen.";
    workers: "workers", count(1, 1_024), Found("one a core", "4"),
        "Threads that own sockets. Flag --workers.";
    node_id: "node_id", Text(forms::NODE_NAME), Found("the host's name; with a random end where that is localhost or empty; random with --dev", "fanfare-0"),
        "The node's name in the cluster, different on every node. Flag --node-id.";
    advertise: "advertise", Text(forms::ADVERTISED), Unset("wss://node-0.example.com"),
        "The address under which clients reach this very node, told in welcome.home and GET /v1/route. Without a scheme ws:// is meant. Flag --advertise.";
    connections_max: "connections_max", count(1, 10_000_000), Found("by --size; without it the file limit less a fortieth, from 500 to 2500", "10000"),
        "Most sessions at once on this node; more are refused with 503. The file limit must be 500 above it, and 8 for each master of Redis beyond a dozen: what is left is for Redis, the API, and connections that are no session yet.";
    handshake_timeout: "handshake_timeout_ms", ms(100, 60_000), Is("5000"),
        "Longest time for the head of a request.";
    echo: "echo", Flag, Is("false"),
        "Whether /echo sends back what anybody sends, up to 16 MiB a message, for conformance suites. Flag --echo.";
} and { dev: Values::dev, environment: Values::environment });

section!(API, "api" => Api {
    listen: "listen", Text(forms::ADDRESS), Is("127.0.0.1:8081"),
        "Where the HTTP API, health and metrics are served. Never public. Flag --api-listen.";
    keys: "keys", List(forms::API_KEY), Is(""),
        "Keys that callers of the API present. Whoever has one may do everything; [[api.clients]] are for callers that may do a part of it. With --dev the key is dev. Without a key or a client only health and metrics answer.";
    body_bytes_max: "body_bytes_max", bytes(1_024, 1 << 30), Is("8388608"),
        "Longest body of a call.";
    targets_max: "targets_max", count(1, 100_000), Is("1000"),
        "Most targets of one publication, and most items of one batch.";
} and { file_keys: Values::file_keys, clients: Values::api_clients });

/// The file with more keys of the API. It has no field: its keys have one.
pub const API_KEYS_FILE: Key = Key {
    section: "api",
    name: "keys_file",
    kind: Text(forms::ANY),
    default: Unset("/run/secrets/fanfare-api-keys"),
    doc: "A file with more keys as those of api.keys, one a line; empty lines and those that begin with # are left out. It is looked at every 10 seconds and read again when it has changed.",
};

section!(METRICS, "metrics" => Metrics {
    listen: "listen", Text(forms::ADDRESS), Unset("0.0.0.0:9090"),
        "Where /metrics and the paths of /health are served and nothing else, so that a scraper need not reach the API. They are served on api.listen all the same, and without this key only there.";
});

section!(REDIS, "redis" => Redis {
    url: "url", Text(forms::REDIS_URL), Unset("redis://127.0.0.1:6379"),
        "The Redis or Valkey that joins the nodes: one server, the sentinels of a master, or some nodes of a Redis Cluster. Without it the node runs alone. Flag --redis.";
    shards: "shards", List(forms::REDIS_URL), Is(""),
        "Further deployments, each independent of the others, over which partitions are spread together with redis.url, with all their topics. The cluster's own keys stay in redis.url. Every node must have the same ones in the same order, each with ?name=NAME, redis.url too: where a partition is follows from the names. A node that differs from the others exits 64; fanfare redis adopt changes what they agreed on.";
    prefix: "prefix", Text(forms::PREFIX), Is("ff"),
        "First part of every key in Redis.";
    command_timeout: "command_timeout_ms", ms(10, 60_000), Is("2000"),
        "Longest wait for one command. After it the outcome is unknown and the caller is told unavailable. The connection that hears is built anew when it does not answer for as long: at least 1000 and at most redis.probe_fresh_ms.";
    probe_interval: "probe_interval_ms", ms(100, 60_000), Is("1000"),
        "How often the feed is probed from end to end.";
    probe_fresh: "probe_fresh_ms", ms(200, 300_000), Is("5000"),
        "The node is ready only while its last probe is younger than this. At least twice redis.probe_interval_ms.";
    lease: "lease_ms", ms(1_000, 60_000), Is("5000"),
        "How long a node that does not report counts as alive. It reports five times as often. At least 2.5 times redis.command_timeout_ms. All nodes should have the same: see docs/redis.md.";
    partitions: "partitions", count(1, 16_384), Is("256"),
        "Into how many parts users and topics are dealt, to nodes and to the masters of Redis. 256 are enough for 8 masters, 1024 for 16. Stored in Redis at first start and not changed after it, because topics would begin anew; a node with another number exits 64, see docs/redis.md. At most 4 for each millisecond of redis.lease_ms, in which they are held.";
} and { access: RedisAccess::from_redis, replicas_min: Values::replicas_min });

section!(REDIS_ACCESS, "redis" => RedisAccess {
    user: "user", Text(forms::ANY), Unset("fanfare"),
        "The ACL user, where redis.url names none. Needs a password. Which rights it needs stands in docs/redis.md.";
    password_file: "password_file", Text(forms::ANY), Unset("/run/secrets/redis-password"),
        "A file with the password and nothing else. It is read for every new connection, so a changed password is taken up without a restart.";
    tls_ca_file: "tls_ca_file", Text(forms::ANY), Unset("/etc/fanfare/redis-ca.pem"),
        "Certificates (PEM) that are trusted instead of the system's. TLS itself is asked for by rediss:// or valkeys:// in redis.url.";
    tls_certificate_file: "tls_certificate_file", Text(forms::ANY), Unset("/etc/fanfare/redis-client.pem"),
        "The certificate (PEM) that this node shows to Redis. Needs redis.tls_key_file.";
    tls_key_file: "tls_key_file", Text(forms::ANY), Unset("/etc/fanfare/redis-client.key"),
        "The key (PEM) of redis.tls_certificate_file.";
    tls_server_name: "tls_server_name", Text(forms::ANY), Unset("redis.internal"),
        "The name that must stand in the certificate of Redis, where it is not the host of redis.url.";
});

impl RedisAccess {
    /// From the values of the section that it is a part of.
    fn from_redis(values: &Values) -> Self {
        Self::from_values(values, "redis")
    }
}

section!(CLUSTER, "cluster" => Cluster {
    alone: "alone", Flag, Is("false"),
        "Says that this node is meant to run without Redis, and so without other nodes: what it keeps ends with it. With --env production a node without redis.url needs it.";
});

const BROKER_MEMORY: Kind = bytes(1 << 20, 1 << 50);

section!(EMBEDDED, "memory" => Memory {
    bytes_max: "bytes_max", BROKER_MEMORY, Found("a quarter of the memory that the control group allows or the machine has", "268435456"),
        "Most memory of topics, their history and idempotency keys of a node without redis.url. At the bound the oldest is forgotten, of topics without sessions first; what was forgotten is told as retention. The durable queue may have half of it, and keeps what waits.";
});

section!(AUTH, "auth" => Auth {
    issuer: "issuer", Text(forms::ANY), Unset("https://login.example.com"),
        "The iss that every token must have.";
    audience: "audience", Text(forms::ANY), Unset("fanfare"),
        "The aud that every token must have.";
    anonymous: "anonymous", Flag, Is("false"),
        "Whether sessions without a token are let in. They have no user and no inbox. On with --dev.";
    cookie: "cookie", Text(forms::COOKIE), Unset("fanfare_token"),
        "Name of the cookie that may carry the token. Needs auth.origins.";
    origins: "origins", List(forms::ORIGIN), Is(""),
        "Origins whose pages may connect, each as scheme, host and port: there are no wildcards, and a default port is left out. Empty: all of them.";
    authorize_connect: "authorize_connect", Text(forms::AUTHORIZER), Unset("backend"),
        "The authorizer that is asked about each session, one of [[authorizers]]. It may let a session without a token in.";
    timeout: "timeout_ms", ms(100, 300_000), Is("10000"),
        "How long a session may stay without authentication (4004).";
    leeway: "leeway_s", s(0, 300), Is("5"),
        "Tolerance for exp, nbf and iat, because clocks differ.";
    token_life_max: "token_life_max_s", s(60, 31_536_000), Is("604800"),
        "How long a token may live, from its iat and from now. A later exp is refused. A revocation is kept for as long. The same on every node.";
    token_bytes_max: "token_bytes_max", bytes(256, 65_536), Is("8192"),
        "Longest token.";
    expiring: "expiring_s", s(0, 3_600), Is("60"),
        "How long before its end a token is announced as expiring.";
    expired_grace: "expired_grace_s", s(0, 3_600), Is("10"),
        "How long a session outlives its token (4001).";
} and { keys: Values::token_keys, issuers: Values::issuers });

/// The one token key that the environment can carry. It has no field: it joins `auth.keys`.
pub const HMAC_SECRET: Key = Key {
    section: "auth",
    name: "hmac_secret",
    kind: Text(forms::SECRET),
    default: Unset(forms::EXAMPLE_SECRET),
    doc: "The secret of one HS256 token key, beside those of [[auth.keys]].",
};

/// The file with the secret of one more. It has no field either.
pub const HMAC_SECRET_FILE: Key = Key {
    section: "auth",
    name: "hmac_secret_file",
    kind: Text(forms::ANY),
    default: Unset("/run/secrets/fanfare-hmac-secret"),
    doc: "A file with the secret of one HS256 token key, beside auth.hmac_secret and [[auth.keys]]; one line break at its end is left out. It is looked at every 10 seconds and read again when it has changed.",
};

section!(SESSION, "session" => Session {
    message_bytes_max: "message_bytes_max", bytes(1_024, 16 << 20), Is("65536"),
        "Longest message, whole or in fragments (1009).";
    fragments_max: "fragments_max", count(1, 65_536), Is("256"),
        "Most fragments of one message.";
    topics_max: "topics_max", count(1, 100_000), Is("128"),
        "Most topics that one session joins.";
    per_user_max: "per_user_max", count(1, 100_000), Is("100"),
        "Most sessions of one user on each node (4006).";
    key_bytes_max: "key_bytes_max", bytes(16, 1_024), Is("128"),
        "Longest key and idempotency_key.";
    info_bytes_max: "info_bytes_max", bytes(0, 65_536), Is("2048"),
        "Largest info claim, as JSON.";
    ping: "ping_ms", PING, Is("25000"),
        "How often the server pings.";
    pong: "pong_ms", ms(200, 7_200_000), Is("60000"),
        "Silence for so long ends the session (4200). At least 1.5 times session.ping_ms.";
    idle: "idle_s", s(1, 604_800), Is("1800"),
        "Silence for so long ends the session (4201), only where pings are off.";
    outbox_messages_max: "outbox_messages_max", count(16, 1_000_000), Is("1024"),
        "Most messages that wait for one socket.";
    outbox_bytes_max: "outbox_bytes_max", bytes(65_536, 1 << 30), Is("1048576"),
        "Most bytes that wait for one socket. At least session.message_bytes_max.";
    commands_in_flight_max: "commands_in_flight_max", count(1, 4_096), Is("64"),
        "Commands of one session that wait for the broker at once. At the bound the session is not read.";
    replies_max: "replies_max", count(1, 65_536), Is("256"),
        "Replies that may wait for one socket before it is not read any more.";
    replies_bytes_max: "replies_bytes_max", bytes(1_024, 64 << 20), Is("65536"),
        "The same in bytes.";
    replies_timeout: "replies_timeout_ms", ms(100, 3_600_000), Is("30000"),
        "How long a client may leave its replies unread (4103).";
    close_timeout: "close_timeout_ms", ms(100, 60_000), Is("5000"),
        "How long a close frame waits for its answer.";
    idempotency: "idempotency_s", s(1, 86_400), Is("300"),
        "How long an idempotency_key is remembered.";
    resume: "resume_s", s(1, 604_800), Is("300"),
        "How far back a session without the right history is caught up. What is older counts as not retained for it.";
    page_max: "page_max", count(1, 10_000), Is("1000"),
        "Most publications in a page of history, and members in a page of presence.";
    page_bytes_max: "page_bytes_max", bytes(65_536, 64 << 20), Is("1048576"),
        "Most bytes of a page, counted in the longer of its two wire forms, unless its first entry alone has more. At least session.message_bytes_max.";
});

const PING: Kind = Kind::Number {
    min: 100,
    max: 3_600_000,
    unit: Unit::Ms,
    zero: Some("for no pings"),
};

/// A number of things each second that 0 turns off.
const PER_S: Kind = Kind::Number {
    min: 1,
    max: 10_000_000,
    unit: Unit::Count,
    zero: Some("for no limit"),
};

/// A node without sessions has about 15 MiB.
const MEMORY: Kind = Kind::Number {
    min: 1 << 25,
    max: 1 << 50,
    unit: Unit::Bytes,
    zero: Some("for no limit"),
};

section!(ADMISSION, "admission" => Admission {
    handshakes_per_s: "handshakes_per_s", PER_S, Is("5000"),
        "Sessions that the node lets in each second in the long run. Others get 503 with Retry-After.";
    handshakes_burst: "handshakes_burst", count(1, 10_000_000), Is("10000"),
        "Sessions that it lets in at once after a quiet time.";
    memory_bytes_max: "memory_bytes_max", MEMORY, Found("nine tenths of what the control group allows; without such a limit 0", "966367641"),
        "Resident memory of the node above which no session is let in; they get 503 with Retry-After.";
});

section!(DRAIN, "drain" => Drain {
    window: "window_ms", ms(0, 3_600_000), Is("30000"),
        "Over how long the sessions of a leaving node are told to go, in its first half, and closed. With --dev 0.";
    sessions_per_s: "sessions_per_s", PER_S, Is("1000"),
        "Most sessions told a second. A node with more sessions than that takes longer than the window.";
    delay: "delay_ms", ms(0, 600_000), Is("0"),
        "How long a leaving node waits for the balancer before that.";
    commands: "commands_timeout_ms", ms(0, 60_000), Is("5000"),
        "How long commands at the broker are awaited at the end.";
});

section!(REBALANCE, "rebalance" => Rebalance {
    enabled: "enabled", Flag, Is("true"),
        "Whether a node with more sessions than its share sends some away (4102), so that nodes that were added get their part.";
    tolerance_percent: "tolerance_percent", count(1, 1_000), Is("20"),
        "How many percent above its share a node may be: what all ready nodes have, dealt equally, but to none more than it has room for.";
    sessions_per_s: "sessions_per_s", count(1, 100_000), Is("20"),
        "Most sessions that one node sends away a second.";
    settle: "settle_ms", ms(1_000, 3_600_000), Is("60000"),
        "For how long no node may have come, gone or begun to leave before sessions are sent away.";
});

section!(QUEUE, "queue" => Queue {
    capacity: "capacity", count(1, 100_000_000), BySize,
        "Entries of the durable queue, due and delayed, in the whole cluster. From 70, 80, 90, 100 % of it on those of priority low, normal, high, critical get 429. The same on every node.";
    workers: "workers", count(1, 1_024), BySize,
        "Most calls to Redis at once with which this node works off the queue, and at least one for each master. It uses as many as what waits asks for.";
    idempotency: "idempotency_s", s(1, 2_592_000), Is("86400"),
        "How long the idempotency_key of an entry is remembered. Each takes up about 128 bytes in Redis.";
});

section!(CACHE, "cache" => Cache {
    memory_bytes: "memory_bytes", bytes(1 << 20, 1 << 40), BySize,
        "Memory of the window of recent publications, from which resumes are served first.";
});

/// Not before the node is not ready.
const STUCK: Kind = Kind::Number {
    min: 5,
    max: 3_600,
    unit: Unit::S,
    zero: Some("for never"),
};

section!(HEALTH, "health" => Health {
    stuck: "stuck_s", STUCK, Is("30"),
        "How long a worker, a feed, the dispatcher, presence or the queue may not have taken a turn before /health/live is 503, by which an orchestrator restarts the node. After 5 seconds the node is not ready. The time in which the whole process stood still does not count.";
    interval: "interval_s", s(1, 300), Is("5"),
        "How often it is looked whether an alert is to be raised or cleared.";
});

section!(LOG, "log" => Log {
    format: "format", LOG_FORMAT, Is("auto"),
        "How lines look; auto is text on a terminal and JSON in a pipe. With --env development text.";
    level: "level", Text(forms::FILTER), Is("info"),
        "What is logged: a level (off, error, warn, info, debug, trace), and for single modules TARGET=LEVEL, separated by commas. With --env development info,fanfare=debug.";
    sessions: "sessions", Flag, Is("false"),
        "Whether each session is told of at level info, when it opens and when it ends; that one ends is told at level debug otherwise.";
    slow: "slow_ms", ms(0, 3_600_000), Is("1000"),
        "Commands of sessions and requests to the API that take longer than this are told, at level warn; 0 tells none.";
});

section!(NAMESPACE, "namespaces.NAME" => Namespace {
    history_entries_max: "history_entries_max", count(0, 1_000_000), Is("1000"),
        "Publications kept per topic; 0 is no history.";
    history_age: "history_age_s", s(1, 31_536_000), Is("86400"),
        "Age of the oldest publication kept.";
    presence: "presence", Flag, Is("false"),
        "Whether members are kept and shown.";
    priority: "priority", PRIORITY, Is("normal"),
        "Priority of publications that name none.";
    conflate: "conflate", Flag, Is("false"),
        "Whether a newer message of the same key may stand for an older one that still waits.";
    trace: "trace", Flag, Is("false"),
        "Whether a message that is traced is sent with its traceparent, so that a client can go on with the trace.";
    subscribe: "subscribe", ALLOW, Is("token"),
        "Who may join. The word token asks for a matching can, or a token for that topic.";
    publish: "publish", ALLOW, Is("token"),
        "Who may publish. The HTTP API always may.";
    history: "history", ALLOW, Is("token"),
        "Who may read history.";
    presence_allow: "presence_allow", ALLOW, Is("token"),
        "Who may be a member and see members.";
    authorize_subscribe: "authorize_subscribe", Text(forms::AUTHORIZER), Unset("backend"),
        "The authorizer that is asked about each joining that the rules permit, one of [[authorizers]].";
    authorize_publish: "authorize_publish", Text(forms::AUTHORIZER), Unset("backend"),
        "The authorizer that is asked about each publication of a session that the rules permit, one of [[authorizers]]. The HTTP API is not asked about.";
    replicas_min: "replicas_min", count(0, 16), Is("0"),
        "Replicas of Redis that must have a publication before it is answered ok. With fewer the answer is unavailable and the outcome unknown. With 1, a failover to the newest replica loses nothing that was answered ok.";
    replicas_timeout: "replicas_timeout_ms", ms(10, 10_000), Is("1000"),
        "How long these replicas are waited for. Below redis.command_timeout_ms.";
});

/// The options of a namespace, under the section `namespaces.NAME`.
#[must_use]
pub fn namespace_options() -> &'static [Key] {
    NAMESPACE
}

/// Every key with one place in the file: all but the options of namespaces and `[[auth.keys]]`.
#[must_use]
pub fn all() -> &'static [Key] {
    static ALL: OnceLock<Vec<Key>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all = [
            SERVER,
            API,
            &[API_KEYS_FILE],
            METRICS,
            REDIS,
            REDIS_ACCESS,
            &[HMAC_SECRET, HMAC_SECRET_FILE],
            AUTH,
        ]
        .concat();
        all.extend([CLUSTER, EMBEDDED, SESSION, ADMISSION, DRAIN, REBALANCE].concat());
        all.extend([QUEUE, CACHE, HEALTH, alerts::ALERTS, LOG].concat());
        all.extend(TELEMETRY.iter().flat_map(|rows| *rows));
        all.extend(OWN_TOPICS.iter().flat_map(own_keys));
        all
    })
}

fn own_keys(own: &OwnTopics) -> impl Iterator<Item = Key> {
    own.offered.iter().map(|&(name, default)| Key {
        section: own.section,
        // What need not be set has no value here either.
        default: match option(name).default {
            Unset(example) => Unset(example),
            _ => Is(default),
        },
        ..*option(name)
    })
}

/// The row of a namespace's option.
///
/// # Panics
/// When the table has no such option: only names of the table are asked for.
#[must_use]
pub fn option(name: &str) -> &'static Key {
    let found = NAMESPACE.iter().find(|key| key.name == name);
    found.expect("the option stands in the table")
}

/// The key of this path, for example `server.listen`; for `namespaces.chat.history` the option.
#[must_use]
pub fn find(path: &str) -> Option<&'static Key> {
    match path.strip_prefix("namespaces.") {
        Some(rest) => {
            let name = rest.rsplit('.').next()?;
            NAMESPACE.iter().find(|key| key.name == name)
        }
        None => all().iter().find(|key| key.path() == path),
    }
}

/// The sections of the file in the order of the table, without `namespaces`.
#[must_use]
pub fn sections() -> Vec<&'static str> {
    let mut sections: Vec<_> = all().iter().map(|key| key.section).collect();
    sections.dedup();
    sections
}
