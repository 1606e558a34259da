//! What one thing costs: every figure with the place where it was measured.
//!
//! In: nothing. Out: constants for [`super::model`]. They are of runs beside other work, so that a
//! plan is rather too large. Times are seconds of one core, sizes are bytes. `docs/capacity.md` lists them, and a test holds the two together.

/// A figure and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Its name, as `docs/capacity.md` has it.
    pub name: &'static str,
    /// Seconds or bytes.
    pub value: f64,
    /// The page, and what it is called there.
    pub source: &'static str,
}

const fn cost(name: &'static str, value: f64, source: &'static str) -> Cost {
    Cost {
        name,
        value,
        source,
    }
}

const MICRO: f64 = 1e-6;

/// A node: one publication from the call of the API to its first session.
pub const PUBLICATION: Cost = cost(
    "node_publication_s",
    106.0 * MICRO,
    "performance.md, where one message to one session stands: 8 publishers over Redis",
);

/// The part of [`PUBLICATION`] in which a node hears it: the feed, the dispatcher, waking threads.
pub const HEARING: Cost = cost(
    "node_hearing_s",
    26.0 * MICRO,
    "performance.md, what a publication over Redis is made of: 5.1 + 3.7 + 17.2 µs",
);

/// The part of [`PUBLICATION`] that runs on the control side: 71 of 100.
pub const CONTROL: Cost = cost(
    "node_control_s",
    75.3 * MICRO,
    "performance.md, what a publication over Redis is made of: 71 % of 106 µs",
);

/// A node: one delivery more of the same publication.
pub const DELIVERY: Cost = cost(
    "node_delivery_s",
    8.85 * MICRO,
    "performance.md, the data plane: 40 a second over Redis",
);

/// A node: an entry of the durable queue, more than a publication.
pub const QUEUED: Cost = cost(
    "node_queued_s",
    15.4 * MICRO,
    "performance.md, the durable queue: 68.1 less 52.7 µs",
);

/// A node: a session that does nothing, each second.
pub const IDLE: Cost = cost(
    "node_idle_session_s",
    1.38 * MICRO,
    "performance.md, the data plane: idle, with an inbox, in a slow hour",
);

/// A node: one connect with a token by HS256.
pub const CONNECT: Cost = cost(
    "node_connect_s",
    207.0 * MICRO,
    "performance.md, the data plane: HS256 over Redis",
);

/// A node without sessions, each second.
pub const RESTING: Cost = cost(
    "node_resting_s",
    5_000.0 * MICRO,
    "performance.md, a node at rest: 0.50 % of a core",
);

/// Redis: one publication, heard by one node.
pub const REDIS_PUBLICATION: Cost = cost(
    "redis_publication_s",
    58.2 * MICRO,
    "performance.md, where one message to one session stands: 8 publishers",
);

/// Redis: telling one node more of a publication.
pub const REDIS_HEARD: Cost = cost(
    "redis_heard_s",
    3.3 * MICRO,
    "performance.md, the script of a publication: 14.1 less 10.8 µs",
);

/// Redis: an entry of the durable queue, more than a publication.
pub const REDIS_QUEUED: Cost = cost(
    "redis_queued_s",
    37.0 * MICRO,
    "performance.md, the durable queue: 89.1 less 52.1 µs",
);

/// Redis: one session that comes and joins its inbox.
pub const REDIS_CONNECT: Cost = cost(
    "redis_connect_s",
    44.0 * MICRO,
    "performance.md, what a session costs Redis",
);

/// The first master: a node, each second.
pub const REDIS_HEARTBEAT: Cost = cost(
    "redis_heartbeat_s",
    140.0 * MICRO,
    "performance.md, heartbeats: 100 nodes, 14 ms",
);

/// A node without sessions.
pub const NODE_BYTES: Cost = cost(
    "node_bytes",
    30e6,
    "performance.md, before the data plane: 49 MiB over Redis with 10,000 sessions, less these",
);

/// A session with its inbox.
pub const SESSION_BYTES: Cost = cost(
    "node_session_bytes",
    3_618.0,
    "performance.md, the data plane: 19,000 users with an inbox each, after a busy phase",
);

/// A session in a topic.
pub const MEMBERSHIP_BYTES: Cost = cost(
    "node_membership_bytes",
    64.0,
    "performance.md, memory: tens of bytes",
);

/// A topic of which a node has sessions.
pub const TOPIC_BYTES: Cost = cost(
    "node_topic_bytes",
    16_448.0,
    "performance.md, memory: 1,024 ids of 16 bytes, and its name",
);

/// What a publication is kept as for a minute: its body and the frames of both wire forms.
pub const RECENT_COPIES: Cost = cost(
    "node_recent_copies",
    3.0,
    "performance.md, memory: recent publications",
);

/// An entry of a stream, beside its body.
pub const ENTRY_BYTES: Cost = cost(
    "redis_entry_bytes",
    358.0,
    "redis.md, memory: a stream of 1,000 messages of 230 bytes with stream-node-max-bytes 512",
);

/// The keys of a topic with history, beside its entries.
pub const KEYS_BYTES: Cost = cost(
    "redis_keys_bytes",
    372.0,
    "redis.md, memory: an inbox with one message with stream-node-max-bytes 512",
);

/// A topic, for each node with sessions in it: occupancy, its index, the subscription.
pub const OCCUPIED_BYTES: Cost = cost(
    "redis_occupied_bytes",
    537.0,
    "performance.md, what a session costs Redis",
);

/// What is sent for a message beside its body: its other fields, and the headers of WebSocket, TCP
/// and IP.
pub const FRAME_BYTES: Cost = cost(
    "frame_bytes",
    240.0,
    "protocol.md, message: 150 beside the body; 90 for headers",
);

/// Every figure, in the order of the page.
pub const ALL: [Cost; 22] = [
    PUBLICATION,
    HEARING,
    CONTROL,
    DELIVERY,
    QUEUED,
    IDLE,
    CONNECT,
    RESTING,
    REDIS_PUBLICATION,
    REDIS_HEARD,
    REDIS_QUEUED,
    REDIS_CONNECT,
    REDIS_HEARTBEAT,
    NODE_BYTES,
    SESSION_BYTES,
    MEMBERSHIP_BYTES,
    TOPIC_BYTES,
    RECENT_COPIES,
    ENTRY_BYTES,
    KEYS_BYTES,
    OCCUPIED_BYTES,
    FRAME_BYTES,
];
