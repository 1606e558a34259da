//! The configuration as the node uses it: plain values, checked, nothing optional left open.
//!
//! In: preset, file, environment and flags, merged by [`load::load`] in that order. Out: one
//! [`Config`], read-only for the life of the process. A leaf: it imports nothing but the
//! protocol's names. Time is a `Duration` here and a number with its unit in the key outside.

pub mod alerts;
pub mod api_clients;
pub mod app;
pub mod app_json;
pub mod app_keys;
pub mod app_reader;
pub mod authorizer;
pub mod authorizers;
pub mod checks;
pub mod client_list;
mod entry;
pub mod environment;
pub mod example;
pub mod faults;
pub mod file;
pub mod file_shares;
pub mod file_text;
pub mod forms;
pub mod headers_file;
pub mod inputs;
pub mod issuer;
pub mod issuers;
pub mod key;
pub mod key_file;
pub mod keys;
pub mod load;
pub mod log_filter;
pub mod machine;
pub mod observing;
pub mod origin;
pub mod otel;
pub mod otlp_forms;
pub mod own_topics;
pub mod presets;
pub mod queue;
mod redis_login;
pub mod redis_url;
mod secret;
mod sections;
pub mod show;
pub mod telemetry;
pub mod telemetry_keys;
pub mod token_keys;
pub mod value;
pub mod values;
pub mod watched;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use api_clients::Api;
pub use authorizer::Authorizer;
pub use issuer::{Issuer, Jwks, TokenKey};
pub use observing::{Health, Log, LogFormat, Metrics};
pub use secret::Secret;

use fanfare_protocol::ids::{App, NodeId, Priority};

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Sockets, workers, the node's name.
    pub server: Server,
    /// The HTTP API.
    pub api: Api,
    /// Where metrics are served beside it.
    pub metrics: Metrics,
    /// The distributed broker; without a URL the node runs alone.
    pub redis: Redis,
    /// Whether the node is meant to be alone.
    pub cluster: Cluster,
    /// The broker inside the process.
    pub memory: Memory,
    /// Who may come in.
    pub auth: Auth,
    /// Backends that are asked whether a session may do something.
    pub authorizers: Vec<Authorizer>,
    /// Bounds of one session.
    pub session: Session,
    /// Whom the node lets in.
    pub admission: Admission,
    /// How the node leaves.
    pub drain: Drain,
    /// How sessions are evened out over the nodes.
    pub rebalance: Rebalance,
    /// The durable queue.
    pub queue: queue::Queue,
    /// The size of the window of recent publications.
    pub cache: Cache,
    /// When the node says that it is not live.
    pub health: Health,
    /// From where on something is wrong.
    pub alerts: alerts::Alerts,
    /// Log output.
    pub log: Log,
    /// What is sent to a collector.
    pub telemetry: telemetry::Telemetry,
    /// Options by namespace; `default` is always there.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Options of all inboxes.
    pub inbox: Namespace,
    /// Options of the topic `@`.
    pub everyone: Namespace,
    /// Further apps beside `default`, which has the sections above.
    pub apps: BTreeMap<App, app::AppSettings>,
    /// What an app that is given to the API starts from.
    pub inherited: Arc<app_reader::Inherited>,
}

/// `[server]`
#[derive(Debug, Clone)]
pub struct Server {
    /// The public listener. `None`: a node for the API only, which takes no sessions.
    pub listen: Option<SocketAddr>,
    /// Worker threads. Default: one per core.
    pub workers: usize,
    /// The node's name. Default: the host's name ([`machine::name_apart`]), or random with `--dev`.
    pub node_id: NodeId,
    /// The public address of this node, for `home` and `/v1/route`.
    pub advertise: Option<String>,
    /// Development mode: `?user=NAME`, API key `dev`, the page at `/`.
    pub dev: bool,
    /// `development`, `staging` or `production`.
    pub environment: Environment,
    /// Most sessions at once on this node. More are refused with 503.
    pub connections_max: usize,
    /// Longest time for one HTTP request head, in `handshake_timeout_ms`.
    pub handshake_timeout: Duration,
    /// Whether there is the echo endpoint.
    pub echo: bool,
}

impl Server {
    /// Most sessions at once; 0 on a node for the API only.
    #[must_use]
    pub fn sessions_max(&self) -> usize {
        self.listen.map_or(0, |_| self.connections_max)
    }
}

/// Where the node runs; it sets defaults and, in production, forbids what is unsafe there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// Text logs, debug level.
    Development,
    /// As production, without its refusals.
    Staging,
    /// Refuses `--dev`, secrets on the command line, a missing API key.
    Production,
}

/// `[redis]`
#[derive(Debug, Clone)]
pub struct Redis {
    /// Where Redis is, as [`redis_url`] says. `None`: the in-process broker.
    pub url: Option<Secret>,
    /// Further deployments of their own, over which partitions are spread together with the first.
    pub shards: Vec<Secret>,
    /// How a connection gets in.
    pub access: RedisAccess,
    /// First part of every key. Default `ff`.
    pub prefix: String,
    /// Longest wait for one command. Default 2 s.
    pub command_timeout: Duration,
    /// How often the feed is probed end to end. Default 1 s.
    pub probe_interval: Duration,
    /// A node is ready while its last probe is younger than this. Default 5 s.
    pub probe_fresh: Duration,
    /// Lease of a node; heartbeats come five times as often. Default 5 s.
    pub lease: Duration,
    /// Partitions of the cluster, stored in Redis at first start. Default 256.
    pub partitions: u32,
    /// The largest `replicas_min` of all namespaces; above 0 there is one more connection for commands.
    pub replicas_min: u32,
}

/// The part of `[redis]` that says as whom and with which certificates.
#[derive(Debug, Clone, Default)]
pub struct RedisAccess {
    /// The ACL user, where the URL names none.
    pub user: Option<String>,
    /// The file that holds the password.
    pub password_file: Option<String>,
    /// Certificates that are trusted instead of the system's, as PEM.
    pub tls_ca_file: Option<String>,
    /// The certificate of this node, as PEM; needs the key.
    pub tls_certificate_file: Option<String>,
    /// Its key.
    pub tls_key_file: Option<String>,
    /// The name in the server's certificate, where it is not the host of the URL.
    pub tls_server_name: Option<String>,
}

/// `[cluster]`
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Running without Redis is meant. Default false.
    pub alone: bool,
}

/// `[memory]`: the broker inside the process.
#[derive(Debug, Clone)]
pub struct Memory {
    /// Most bytes of topics, history and idempotency keys. Default: a quarter of the memory.
    pub bytes_max: u64,
}

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Keys that tokens may be signed with.
    pub keys: Vec<TokenKey>,
    /// Others who sign tokens, each with keys of its own.
    pub issuers: Vec<Issuer>,
    /// Required `iss`, when set.
    pub issuer: Option<String>,
    /// Required `aud`, when set.
    pub audience: Option<String>,
    /// Whether sessions without a token are let in as anonymous.
    pub anonymous: bool,
    /// Name of the cookie that may carry the token; needs `origins`.
    pub cookie: Option<String>,
    /// Origins that may open a WebSocket. Empty: any (unless a cookie is configured).
    pub origins: Vec<String>,
    /// The authorizer that is asked about each session, by name. `None`: no one is.
    pub authorize_connect: Option<String>,
    /// How long a session may stay unauthenticated. Default 10 s.
    pub timeout: Duration,
    /// Tolerance for `exp`, `nbf` and `iat`. Default 5 s.
    pub leeway: Duration,
    /// How long a token may live. Default 7 days.
    pub token_life_max: Duration,
    /// Longest token, in bytes. Default 8 KiB.
    pub token_bytes_max: usize,
    /// How long before its end a token is announced as `expiring`. Default 60 s.
    pub expiring: Duration,
    /// How long a session outlives its token. Default 10 s.
    pub expired_grace: Duration,
}

/// `[session]`
#[derive(Debug, Clone)]
pub struct Session {
    /// Longest message from a client, whole or in fragments. Default 64 KiB.
    pub message_bytes_max: usize,
    /// Most fragments of one message. Default 256.
    pub fragments_max: usize,
    /// Most topics that one session joins. Default 128.
    pub topics_max: usize,
    /// Most sessions of one user. Default 100.
    pub per_user_max: usize,
    /// Longest `key` and `idempotency_key`, in bytes. Default 128.
    pub key_bytes_max: usize,
    /// Largest `info` claim as JSON, in bytes. Default 2 KiB.
    pub info_bytes_max: usize,
    /// How often the server pings. `None`: pings are off. Default 25 s.
    pub ping: Option<Duration>,
    /// No sign of life for so long ends the session (4200). Default 60 s.
    pub pong: Duration,
    /// With pings off, silence for so long ends the session (4201). Default 30 min.
    pub idle: Duration,
    /// Most messages that wait for one socket. Default 1,024.
    pub outbox_messages_max: usize,
    /// Most bytes that wait for one socket. Default 1 MiB.
    pub outbox_bytes_max: usize,
    /// Commands of one session that wait for the broker at the same time. Default 64. At the
    /// bound the session is not read.
    pub commands_in_flight_max: usize,
    /// Replies that may wait unread before the session is not read any more. Default 256.
    pub replies_max: usize,
    /// The same in bytes. Default 64 KiB.
    pub replies_bytes_max: usize,
    /// How long a client may leave its replies unread (4103). Default 30 s.
    pub replies_timeout: Duration,
    /// How long a close frame may wait for its answer. Default 5 s.
    pub close_timeout: Duration,
    /// How long an idempotency key is remembered. Default 5 min.
    pub idempotency: Duration,
    /// How far back a session without the right `history` is caught up. Default 5 min.
    pub resume: Duration,
    /// Most publications in a page of history and members in a page of presence. Default 1,000.
    pub page_max: u32,
    /// Most bytes of a page, in the longer of its two wire forms. Default 1 MiB.
    pub page_bytes_max: usize,
}

/// `[admission]`
#[derive(Debug, Clone)]
pub struct Admission {
    /// Handshakes a second that the node takes in the long run. `None`: no limit. Default 5,000.
    pub handshakes_per_s: Option<u32>,
    /// Handshakes that it takes at once after a quiet time. Default 10,000.
    pub handshakes_burst: u32,
    /// Resident memory above which nobody is let in. `None`: no limit. Default: nine tenths of
    /// what the control group allows.
    pub memory_bytes_max: Option<u64>,
}

/// `[drain]`
#[derive(Debug, Clone)]
pub struct Drain {
    /// Over how long sessions are told to go. Default 30 s.
    pub window: Duration,
    /// Most sessions told a second; with more sessions the window grows. `None`: no limit.
    /// Default 1,000.
    pub sessions_per_s: Option<u32>,
    /// How long to wait for the balancer before that. Default 0.
    pub delay: Duration,
    /// How long commands at the broker are awaited at the end. Default 5 s.
    pub commands: Duration,
}

/// `[rebalance]`
#[derive(Debug, Clone)]
pub struct Rebalance {
    /// Whether a node with more than its share sends sessions away.
    pub enabled: bool,
    /// How many percent above the mean a node may be. Default 20.
    pub tolerance_percent: u32,
    /// Most sessions sent away a second. Default 20.
    pub sessions_per_s: u32,
    /// For how long no node may have come, gone or begun to leave. Default 60 s.
    pub settle: Duration,
}

/// `[cache]`: the window of recent publications.
#[derive(Debug, Clone)]
pub struct Cache {
    /// Bytes per node.
    pub memory_bytes: u64,
}

/// `[namespaces.NAME]`, `[inbox]`, `[everyone]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Entries kept per topic; 0: no history.
    pub history_entries_max: u32,
    /// Age of the oldest entry kept.
    pub history_age: Duration,
    /// Whether members are kept and shown.
    pub presence: bool,
    /// Priority of publications that name none.
    pub priority: Priority,
    /// Whether a newer message of the same key may stand for an older one.
    pub conflate: bool,
    /// Whether a message that is traced is sent with its `traceparent`.
    pub trace: bool,
    /// Who may join.
    pub subscribe: Allow,
    /// Who may publish.
    pub publish: Allow,
    /// Who may read history.
    pub history: Allow,
    /// Who may be a member and see members.
    pub presence_allow: Allow,
    /// The authorizer that is asked about each joining, by name. `None`: no one is.
    pub authorize_subscribe: Option<String>,
    /// The authorizer that is asked about each publication of a session, by name. `None`: no one is.
    pub authorize_publish: Option<String>,
    /// Replicas that must have a publication before it is answered `ok`.
    pub replicas_min: u32,
    /// How long they are waited for.
    pub replicas_timeout: Duration,
}

/// What a command's answer may be late by, for those who wait for it.
const ANSWER_LATE: Duration = Duration::from_secs(1);

impl Redis {
    /// By then a command that is asked for now has ended, whatever becomes of it: one that is on its
    /// way is waited for before it, and each has its time.
    #[must_use]
    pub fn commands_end(&self) -> Duration {
        self.command_timeout * 2 + ANSWER_LATE
    }
}

impl Namespace {
    /// What the broker keeps for topics of this namespace.
    #[must_use]
    pub fn retention(&self) -> Retention {
        Retention {
            entries_max: self.history_entries_max,
            age_ms: u64::try_from(self.history_age.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// What stands between a publication and its `ok`.
    #[must_use]
    pub fn replicas(&self) -> Replicas {
        Replicas {
            min: self.replicas_min,
            timeout: self.replicas_timeout,
        }
    }
}

/// How many replicas must have a publication before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replicas {
    /// So many; 0: the master is enough.
    pub min: u32,
    /// How long they are waited for.
    pub timeout: Duration,
}

/// By so much more than it needs others than publications renew the life of the last id.
pub const RENEWAL_MORE_MS: u64 = 60_000;

/// How much a topic keeps, as its namespace says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Most entries kept; 0: no history.
    pub entries_max: u32,
    /// Oldest entry kept, in milliseconds.
    pub age_ms: u64,
}

impl Retention {
    /// How long the last id outlives the newest publication: the history's age and an hour.
    #[must_use]
    pub fn last_life_ms(&self) -> u64 {
        const HOUR_MS: u64 = 3_600_000;
        if self.entries_max == 0 {
            HOUR_MS
        } else {
            self.age_ms.saturating_add(HOUR_MS)
        }
    }

    /// What others than publications renew that life by. A publication leaves it as it is where one
    /// of the same second has renewed it: so here is a minute more, also for a clock that steps back.
    #[must_use]
    pub fn renewal_ms(&self) -> u64 {
        self.last_life_ms().saturating_add(RENEWAL_MORE_MS)
    }
}

/// Who may do an operation in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allow {
    /// Every session.
    Anyone,
    /// Sessions of a user.
    Authenticated,
    /// Sessions whose token has a matching `can`, or a token for that topic.
    Token,
    /// No client; only the API.
    Nobody,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_age_does_not_overflow_the_life_of_the_last_id() {
        let life_ms = |entries_max, age_ms| {
            Retention {
                entries_max,
                age_ms,
            }
            .last_life_ms()
        };
        assert_eq!(life_ms(1, 1_000), 3_601_000);
        assert_eq!(life_ms(1, u64::MAX), u64::MAX);
        assert_eq!(life_ms(0, u64::MAX), 3_600_000);
    }
}
