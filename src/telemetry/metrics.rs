//! The instruments: one struct per stage, made at start, handed down, summed when read.
//!
//! In: stages add to their own cells. Out: [`Metrics::families`], one description for all forms.
//! Each worker has its own struct and is its only writer, so that counting on the hot path is a
//! plain load and store and no cache line is shared between cores. Bound: [`SERIES_MAX`].

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::RuntimeMetrics;
use tokio::sync::Notify;

use super::alerts;
use super::api_metrics::ApiMetrics;
use super::app_metrics::AppMetrics;
use super::authorizer_metrics::AuthorizerMetrics;
use super::busy;
pub use super::counter::Counter;
use super::counter::{Longest, Seconds};
use super::exemplar::TracedHistogram;
use super::facts::Facts;
use super::family::{Family, Kind, Sample, Table, Value};
use super::histogram::Histogram;
use super::instruments::instruments;
use super::labels::{CommandType, Lane};
use super::otlp_metrics::TelemetryMetrics;
use super::process;
use super::queue_metrics::QueueMetrics;
use super::revocation_metrics::RevocationMetrics;
use super::token_metrics::TokenMetrics;
use super::trace::metrics::TraceMetrics;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::error::ErrorCode;
use fanfare_protocol::ids::Priority;

/// Most series of a node, whatever it serves. A histogram has one for each bound, and three.
pub const SERIES_MAX: usize = 1_800;

/// Messages that wait for a worker from which on publishers are held to its pace: so many are
/// merged into one write, and with 1,000 sessions on the topic they are some milliseconds of work.
pub const BEHIND_FROM: u64 = 16;

instruments! {
    /// Counted by one worker thread, its only writer.
    WorkerCounters {
        connections: "counter" "fanfare_connections_total" "TCP connections accepted on the public listener.",
        connections_refused: "counter" "fanfare_connections_refused_total" ["reason" = "capacity"] "TCP connections on the public listener that were closed at once, because it had as many as it may have.",
        sessions_opened: "counter" "fanfare_sessions_opened_total" "WebSocket sessions that completed the upgrade.",
        sessions: "gauge" "fanfare_sessions" "WebSocket sessions open now.",
        subscriptions: "gauge" "fanfare_subscriptions" "Topics joined by local sessions now, inboxes and everyone included.",
        refused_origin: "counter" "fanfare_handshakes_refused_total" ["reason" = "origin"] "Handshakes refused before the upgrade.",
        refused_capacity: "counter" "fanfare_handshakes_refused_total" ["reason" = "capacity"] "Handshakes refused before the upgrade.",
        refused_rate: "counter" "fanfare_handshakes_refused_total" ["reason" = "rate"] "Handshakes refused before the upgrade.",
        refused_memory: "counter" "fanfare_handshakes_refused_total" ["reason" = "memory"] "Handshakes refused before the upgrade.",
        refused_unauthorized: "counter" "fanfare_handshakes_refused_total" ["reason" = "unauthorized"] "Handshakes refused before the upgrade.",
        refused_request: "counter" "fanfare_handshakes_refused_total" ["reason" = "bad_request"] "Handshakes refused before the upgrade.",
        refused_draining: "counter" "fanfare_handshakes_refused_total" ["reason" = "draining"] "Handshakes refused before the upgrade.",
        refused_unavailable: "counter" "fanfare_handshakes_refused_total" ["reason" = "unavailable"] "Handshakes refused before the upgrade.",
        disconnects_unknown: "counter" "fanfare_disconnects_unknown_total" "Sessions let in while more users were sent away than are remembered for those on their way in; theirs may have been among them.",
        queued: "gauge" "fanfare_delivery_backlog_messages" "Messages of the dispatcher that a worker has not written yet.",
        queued_bytes: "gauge" "fanfare_delivery_backlog_bytes" "The bytes of their frames, each frame once and not for each session.",
        slow: "gauge" "fanfare_slow_sessions" "Sessions whose sockets take nothing more at the moment.",
        deliveries: "counter" "fanfare_deliveries_total" "Messages pushed to a session's outbox.",
        frames_written: "counter" "fanfare_frames_written_total" "Frames taken whole by a socket.",
        bytes_written: "counter" "fanfare_bytes_written_total" "Bytes taken by sockets.",
        bytes_read: "counter" "fanfare_bytes_read_total" "Bytes of messages read from sessions, without the heads of their frames.",
        writes: "counter" "fanfare_socket_writes_total" "Write calls to sockets.",
        gaps_told: "counter" "fanfare_gaps_sent_total" "Gap events sent to sessions.",
        replayed: "counter" "fanfare_replayed_total" "Messages sent from history to catching-up sessions.",
        taken_back: "counter" "fanfare_push_to_pull_total" "Times that a topic of a slow session was moved back to history, to be read as its socket drains.",
        conflated: "counter" "fanfare_conflated_total" "Messages for which a newer one of the same key stood, because a slow session had no room.",
        rebalanced: "counter" "fanfare_rebalanced_total" "Sessions that were told to go, because the node had more than its share.",
        rebalancing: "gauge" "fanfare_rebalancing_sessions" "Those of them that have not gone yet.",
        recent_hits: "counter" "fanfare_recent_cache_reads_total" ["result" = "hit"] "Catch-up reads, by whether the recent cache (hit) or the broker (miss) served them.",
        recent_misses: "counter" "fanfare_recent_cache_reads_total" ["result" = "miss"] "Catch-up reads, by whether the recent cache (hit) or the broker (miss) served them.",
        shared_read_hits: "counter" "fanfare_shared_reads_total" ["result" = "hit"] "Reads of history for a session, by whether the read of another one brought the page.",
        shared_read_misses: "counter" "fanfare_shared_reads_total" ["result" = "miss"] "Reads of history for a session, by whether the read of another one brought the page.",
        recent_bytes: "gauge" "fanfare_recent_bytes" "Memory of the window of recent publications.",
        dropped_slow: "counter" "fanfare_dropped_total" ["reason" = "slow_session"] "Messages that a session did not get, by reason.",
        dropped_behind: "counter" "fanfare_dropped_total" ["reason" = "slow_worker"] "Messages that a session did not get, by reason.",
        dropped_unreadable: "counter" "fanfare_dropped_total" ["reason" = "unreadable"] "Messages that a session did not get, by reason.",
    }
}

instruments! {
    /// Counted by the control side: dispatcher, broker, API.
    ControlCounters {
        feed_deliveries: "counter" "fanfare_feed_deliveries_total" "Publications that arrived on the feed.",
        feed_breaks: "counter" "fanfare_feed_breaks_total" "Breaks of the feed (reconnect, overrun, lost probe).",
        feed_dropped: "counter" "fanfare_feed_dropped_total" "Messages of the feed that found a queue of this node full; a break follows, and what was published is read from the stream.",
        duplicates_dropped: "counter" "fanfare_feed_duplicates_total" "Publications that arrived more than once and were dropped.",
        repairs: "counter" "fanfare_repairs_total" "Topics held and repaired from the stream.",
        repaired: "counter" "fanfare_repaired_publications_total" "Publications delivered from the stream by a repair.",
        gaps: "counter" "fanfare_gaps_total" "Gaps that no repair could close.",
        questions: "counter" "fanfare_questions_total" "Questions of the dispatcher to the broker: newest ids of topics and pages of their streams.",
        question_errors: "counter" "fanfare_question_errors_total" "Those that were not answered; they are asked again.",
        questions_waiting: "gauge" "fanfare_questions_waiting" "Topics that wait to be asked about.",
        held_overflow: "counter" "fanfare_repair_buffer_overflows_total" "Held queues that were thrown away at their bound and read again.",
        worker_queue_full: "counter" "fanfare_worker_queue_full_total" "Deliveries that a worker's full queue turned into a catch-up.",
        orders_dropped: "counter" "fanfare_orders_dropped_total" "Orders to end sessions that a worker did not take, because too many waited for it.",
        control_ignored: "counter" "fanfare_control_ignored_total" "Control messages of another release or form, ignored.",
        unreadable_newer: "counter" "fanfare_unreadable_total" ["reason" = "newer"] "Bodies from the broker that this node cannot read: of a newer release's kind, or damaged.",
        unreadable_damaged: "counter" "fanfare_unreadable_total" ["reason" = "damaged"] "Bodies from the broker that this node cannot read: of a newer release's kind, or damaged.",
        broker_embedded: "gauge" "fanfare_broker_info" ["kind" = "embedded"] "1 for the broker that this node uses: Redis, or the one inside the process.",
        broker_redis: "gauge" "fanfare_broker_info" ["kind" = "redis"] "1 for the broker that this node uses: Redis, or the one inside the process.",
        embedded_bytes: "gauge" "fanfare_embedded_bytes" "Memory of the topics of the broker inside the process, as it is bounded by memory.bytes_max.",
        embedded_topics: "gauge" "fanfare_embedded_topics" "Topics that the broker inside the process knows.",
        forgotten_entries: "counter" "fanfare_embedded_forgotten_total" ["kind" = "entry"] "What the broker inside the process forgot before its time, because memory.bytes_max was reached.",
        forgotten_keys: "counter" "fanfare_embedded_forgotten_total" ["kind" = "idempotency_key"] "What the broker inside the process forgot before its time, because memory.bytes_max was reached.",
        forgotten_topics: "counter" "fanfare_embedded_forgotten_total" ["kind" = "topic"] "What the broker inside the process forgot before its time, because memory.bytes_max was reached.",
        refused_memory: "counter" "fanfare_embedded_refused_total" "Publications to topics that were not known, refused because what is in use filled memory.bytes_max.",
        published: "counter" "fanfare_published_total" "Publications that the broker accepted from this node.",
        publish_duplicates: "counter" "fanfare_publish_duplicates_total" "Publications answered from their idempotency key.",
        publish_errors: "counter" "fanfare_publish_errors_total" "Publications that the broker did not accept or did not answer.",
        publish_held: "counter" "fanfare_publish_throttled_total" "Publications whose answer waited because a worker was behind.",
        publish_refused: "counter" "fanfare_publish_refused_total" "Publications refused because the publish queue was full.",
        publish_unawaited: "counter" "fanfare_publish_unawaited_total" "Publications whose caller went away before the broker answered; the broker may have them all the same.",
        publish_unconfirmed: "counter" "fanfare_publish_unconfirmed_total" "Publications that fewer replicas confirmed in time than their namespace asks for; their outcome was told as unknown.",
        redis_reconnects: "counter" "fanfare_redis_reconnects_total" "Connections to Redis that were built anew.",
        circuits_closed: "gauge" "fanfare_redis_circuits" ["state" = "closed"] "Links to Redis by the state of their circuit; commands are sent only where it is closed.",
        circuits_half_open: "gauge" "fanfare_redis_circuits" ["state" = "half_open"] "Links to Redis by the state of their circuit; commands are sent only where it is closed.",
        circuits_open: "gauge" "fanfare_redis_circuits" ["state" = "open"] "Links to Redis by the state of their circuit; commands are sent only where it is closed.",
        circuits_closed_total: "counter" "fanfare_redis_circuit_transitions_total" ["to" = "closed"] "Changes of a circuit's state.",
        circuits_half_opened_total: "counter" "fanfare_redis_circuit_transitions_total" ["to" = "half_open"] "Changes of a circuit's state.",
        circuits_opened_total: "counter" "fanfare_redis_circuit_transitions_total" ["to" = "open"] "Changes of a circuit's state.",
        away_urgent: "gauge" "fanfare_redis_links_away" ["link" = "urgent"] "Links to masters of Redis that take no commands now, by what they are for.",
        away_bulk: "gauge" "fanfare_redis_links_away" ["link" = "bulk"] "Links to masters of Redis that take no commands now, by what they are for.",
        away_replicated: "gauge" "fanfare_redis_links_away" ["link" = "replicated"] "Links to masters of Redis that take no commands now, by what they are for.",
        away_publications: "gauge" "fanfare_redis_links_away" ["link" = "publications"] "Links to masters of Redis that take no commands now, by what they are for.",
        followers: "gauge" "fanfare_redis_followers" "Replicas that follow the masters of Redis now, all together; counted where a namespace has replicas_min.",
        slots_unserved: "gauge" "fanfare_redis_slots_unserved" "Slots of Redis Clusters that have no master now.",
        refusing_noreplicas: "gauge" "fanfare_redis_refusing" ["reason" = "noreplicas"] "Masters of Redis that refuse commands now, or only writes, by the word in which they do.",
        refusing_misconf: "gauge" "fanfare_redis_refusing" ["reason" = "misconf"] "Masters of Redis that refuse commands now, or only writes, by the word in which they do.",
        refusing_oom: "gauge" "fanfare_redis_refusing" ["reason" = "oom"] "Masters of Redis that refuse commands now, or only writes, by the word in which they do.",
        refusing_readonly: "gauge" "fanfare_redis_refusing" ["reason" = "readonly"] "Masters of Redis that refuse commands now, or only writes, by the word in which they do.",
        refusing_masterdown: "gauge" "fanfare_redis_refusing" ["reason" = "masterdown"] "Masters of Redis that refuse commands now, or only writes, by the word in which they do.",
        refusing_loading: "gauge" "fanfare_redis_refusing" ["reason" = "loading"] "Masters of Redis that refuse commands now, or only writes, by the word in which they do.",
        refusing_busy: "gauge" "fanfare_redis_refusing" ["reason" = "busy"] "Masters of Redis that refuse commands now, or only writes, by the word in which they do.",
        refusing_clusterdown: "gauge" "fanfare_redis_refusing" ["reason" = "clusterdown"] "Masters of Redis that refuse commands now, or only writes, by the word in which they do.",
        refusing_noauth: "gauge" "fanfare_redis_refusing" ["reason" = "noauth"] "Masters of Redis that refuse commands now, or only writes, by the word in which they do.",
        refusing_wrongpass: "gauge" "fanfare_redis_refusing" ["reason" = "wrongpass"] "Masters of Redis that refuse commands now, or only writes, by the word in which they do.",
        refusing_noperm: "gauge" "fanfare_redis_refusing" ["reason" = "noperm"] "Masters of Redis that refuse commands now, or only writes, by the word in which they do.",
        refusing_denied: "gauge" "fanfare_redis_refusing" ["reason" = "denied"] "Masters of Redis that refuse commands now, or only writes, by the word in which they do.",
        refusing_maxclients: "gauge" "fanfare_redis_refusing" ["reason" = "maxclients"] "Masters of Redis that refuse commands now, or only writes, by the word in which they do.",
        refusing_noproto: "gauge" "fanfare_redis_refusing" ["reason" = "noproto"] "Masters of Redis that refuse commands now, or only writes, by the word in which they do.",
        refusing_database: "gauge" "fanfare_redis_refusing" ["reason" = "database"] "Masters of Redis that refuse commands now, or only writes, by the word in which they do.",
        refusing_nocluster: "gauge" "fanfare_redis_refusing" ["reason" = "nocluster"] "Masters of Redis that refuse commands now, or only writes, by the word in which they do.",
        refusing_nosentinel: "gauge" "fanfare_redis_refusing" ["reason" = "nosentinel"] "Masters of Redis that refuse commands now, or only writes, by the word in which they do.",
        topics_moved: "counter" "fanfare_topics_moved_total" "Topics that are heard at another master of Redis since its slots moved or it was replaced.",
        topics: "gauge" "fanfare_topics" "Topics with local interest now.",
        owed: "gauge" "fanfare_worker_backlog_topics" "Topics that workers with full queues are owed now.",
        api_unauthorized: "counter" "fanfare_api_unauthorized_total" "Requests to the HTTP API without a valid key.",
        reloads_taken: "counter" "fanfare_reloads_total" ["result" = "taken"] "Times that the configuration was read again on SIGHUP, by what became of it.",
        reloads_refused: "counter" "fanfare_reloads_total" ["result" = "refused"] "Times that the configuration was read again on SIGHUP, by what became of it.",
        rebalance_excess: "gauge" "fanfare_rebalance_excess_sessions" "Sessions above the node's share, which are sent away unless rebalancing pauses; 0 within the tolerance.",
        rebalance_futile: "counter" "fanfare_rebalance_futile_total" "Times that sessions which were told to go came back, so that rebalancing paused for ten minutes.",
        draining: "gauge" "fanfare_draining" "1 from when the node begins to leave, by an order or a signal, to its end.",
        drain_sessions: "gauge" "fanfare_drain_sessions" "Sessions that were here when the node began to leave; 0 before.",
        drained: "gauge" "fanfare_drained_sessions" "How many of them have gone.",
        ready: "gauge" "fanfare_ready" "1 while the node is ready.",
        presence_forgotten: "counter" "fanfare_presence_forgotten_total" "Leaves that were forgotten before their time, because more are remembered than there is room for.",
        reaped_members: "counter" "fanfare_reaped_total" ["kind" = "member"] "What was removed of what dead nodes left: members, and topics in which they had sessions or members.",
        reaped_topics: "counter" "fanfare_reaped_total" ["kind" = "topic"] "What was removed of what dead nodes left: members, and topics in which they had sessions or members.",
        reaping_failing: "gauge" "fanfare_reaping_failing" "Partitions whose home this node is and in which what dead nodes left could not be read or removed when that was tried last.",
        partitions: "gauge" "fanfare_partitions" "Partitions for which this node may act.",
        nodes: "gauge" "fanfare_cluster_nodes" "Nodes with a lease, as this node saw them when a heartbeat was answered last; see the age of the view.",
        nodes_differing: "gauge" "fanfare_cluster_nodes_differing" "Other nodes that have settings otherwise than this one which all nodes should have alike.",
        heartbeats_answered: "counter" "fanfare_heartbeats_total" ["result" = "answered"] "Heartbeats of this node, by what became of them: answered, refused because Redis takes no writes, or missed, without an answer.",
        heartbeats_refused: "counter" "fanfare_heartbeats_total" ["result" = "refused"] "Heartbeats of this node, by what became of them: answered, refused because Redis takes no writes, or missed, without an answer.",
        heartbeats_missed: "counter" "fanfare_heartbeats_total" ["result" = "missed"] "Heartbeats of this node, by what became of them: answered, refused because Redis takes no writes, or missed, without an answer.",
        incarnations_changed: "counter" "fanfare_incarnation_changes_total" "New incarnations of this node after its first: each time its lease had ended.",
    }
}

instruments! {
    /// Counted where the log is written, for the whole process.
    LogCounters {
        dropped: "counter" "fanfare_log_lines_dropped_total" "Lines of the log that found no room, because it is read too slowly or by nobody.",
        failed: "counter" "fanfare_log_writes_failed_total" "Lines of the log that could not be written.",
        suppressed: "counter" "fanfare_log_lines_suppressed_total" "Lines of the log that were not written, because their event had more than 100 in a second.",
    }
}

instruments! {
    /// Counted where tokens are checked away from their worker, and where key sets are read.
    CheckCounters {
        away: "counter" "fanfare_token_checks_away_total" ["result" = "done"] "Checks of tokens that left their worker, because they cost more or had to wait for a key, by result.",
        away_full: "counter" "fanfare_token_checks_away_total" ["result" = "full"] "Checks of tokens that left their worker, because they cost more or had to wait for a key, by result.",
        away_late: "counter" "fanfare_token_checks_away_total" ["result" = "late"] "Checks of tokens that left their worker, because they cost more or had to wait for a key, by result.",
        sets_read: "counter" "fanfare_key_sets_read_total" ["result" = "taken"] "Key sets of issuers that were asked for, by result.",
        sets_refused: "counter" "fanfare_key_sets_read_total" ["result" = "refused"] "Key sets of issuers that were asked for, by result.",
        sets_failing: "gauge" "fanfare_key_sets_failing" "Key sets of issuers that could not be read when they were last asked for.",
    }
}

/// All that one worker counts.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    /// Plain counters.
    pub counters: WorkerCounters,
    /// Session ends by reason.
    pub ends: Table<CloseReason, Counter>,
    /// Commands read, by what they ask for.
    pub commands: Table<CommandType, Counter>,
    /// Commands answered with an error.
    pub command_errors: Table<ErrorCode, Counter>,
    /// From a command to its answer.
    pub command_seconds: Table<CommandType, Histogram>,
    /// From a connection to `welcome`.
    pub connect_seconds: Histogram,
    /// From the feed to the last socket.
    pub delivery_seconds: Table<Priority, Histogram>,
    /// What waits for sockets that take nothing more.
    pub outbox_messages: Table<Lane, Counter>,
    /// Its bytes.
    pub outbox_bytes: Table<Lane, Counter>,
    /// The longest command.
    pub longest: Longest,
    /// The runtime of the worker's thread.
    runtime: OnceLock<RuntimeMetrics>,
    /// Told when this worker is not behind any more.
    relieved: Notify,
}

impl WorkerMetrics {
    /// So many messages of so many bytes are for the worker no more: they are written, or were not
    /// taken.
    pub fn done(&self, count: u64, bytes: u64) {
        self.counters.queued_bytes.sub(bytes);
        let before = self.counters.queued.sub(count);
        if before >= BEHIND_FROM && before.saturating_sub(count) < BEHIND_FROM {
            self.relieved.notify_waiters();
        }
    }

    /// Whether publishers have to wait for this worker.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.counters.queued.get() >= BEHIND_FROM
    }

    /// Waits until it is not behind. Cancel-safe.
    pub async fn relieved(&self) {
        loop {
            // It hears of every relief from here on, also of one before it waits.
            let relieved = self.relieved.notified();
            if !self.is_behind() {
                return;
            }
            relieved.await;
        }
    }

    /// The worker's thread has this runtime, which knows how long it was at work.
    pub fn runs_on(&self, runtime: RuntimeMetrics) {
        // A worker has one thread in its life.
        let _ = self.runtime.set(runtime);
    }

    /// How long the worker's thread was at work.
    pub(super) fn busy(&self) -> Duration {
        let runtime = self.runtime.get();
        runtime.map_or(Duration::ZERO, |it| it.worker_total_busy_duration(0))
    }

    fn families(&self) -> Vec<Family> {
        let mut all = self.counters.families();
        all.extend([
            Family::of(
                Kind::Counter,
                "fanfare_sessions_closed_total",
                "Ends of sessions by reason.",
                &self.ends,
            ),
            Family::of(
                Kind::Counter,
                "fanfare_commands_total",
                "Commands read from sessions, by what they ask for.",
                &self.commands,
            ),
            Family::of(
                Kind::Counter,
                "fanfare_command_errors_total",
                "Errors that sessions were told, by code; a welcome counts once, however many topics it refuses.",
                &self.command_errors,
            ),
            Family::of(
                Kind::Histogram,
                "fanfare_command_seconds",
                "From when a command was read to when its answer was there, the broker's part included.",
                &self.command_seconds,
            ),
            Family::of(
                Kind::Histogram,
                "fanfare_connect_seconds",
                "From when a connection was accepted (one that served other requests before: from the head of the handshake) to the session's welcome. What the client takes for its handshake and its connect is in it.",
                &self.connect_seconds,
            ),
            Family::of(
                Kind::Histogram,
                "fanfare_delivery_seconds",
                "From when a publication was taken from the feed to when the last of the sockets was written that got it: once a turn of a worker, for the oldest of each priority.",
                &self.delivery_seconds,
            ),
            Family::of(
                Kind::Gauge,
                "fanfare_outbox_messages",
                "What waits for sockets that take nothing more, by its lane; looked at four times a second.",
                &self.outbox_messages,
            ),
            Family::of(
                Kind::Gauge,
                "fanfare_outbox_bytes",
                "Its bytes. A message is counted for each session for which it waits, though they share it.",
                &self.outbox_bytes,
            ),
        ]);
        all
    }
}

/// All instruments of the node.
#[derive(Debug)]
pub struct Metrics {
    /// One per worker.
    pub workers: Vec<Arc<WorkerMetrics>>,
    /// The control side's.
    pub control: ControlCounters,
    /// How old the view of the cluster is. It grows while nothing happens: whoever tells it sets it.
    pub view_age: Seconds,
    /// How late the feed is; set like the age of the view.
    pub feed_lag: Seconds,
    /// Refused tokens, counted by the verifier.
    pub tokens: Arc<TokenMetrics>,
    /// Checks away from workers, and key sets.
    pub checks: Arc<CheckCounters>,
    /// What authorizers answered.
    pub authorizers: Arc<AuthorizerMetrics>,
    /// Those of apps.
    pub apps: Arc<AppMetrics>,
    /// Those of revocations.
    pub revocations: Arc<RevocationMetrics>,
    /// The durable queue's.
    pub queue: QueueMetrics,
    /// The API's.
    pub api: ApiMetrics,
    /// What is sent to a collector.
    pub telemetry: TelemetryMetrics,
    /// Those of traces, counted by the tracer.
    pub trace: Arc<TraceMetrics>,
    /// From a publication to the broker's answer that it has it.
    pub publish_seconds: TracedHistogram,
    /// From a probe to when the feed heard it.
    pub probe_seconds: Histogram,
    /// How alerts stand.
    pub alerts: alerts::Board,
    facts: Facts,
}

impl Metrics {
    /// Instruments for so many workers.
    #[must_use]
    pub fn new(workers_count: usize) -> Self {
        Self {
            workers: (0..workers_count).map(|_| Arc::default()).collect(),
            control: ControlCounters::default(),
            view_age: Seconds::default(),
            feed_lag: Seconds::default(),
            tokens: Arc::default(),
            checks: Arc::default(),
            authorizers: Arc::default(),
            apps: Arc::default(),
            revocations: Arc::default(),
            queue: QueueMetrics::default(),
            api: ApiMetrics::default(),
            telemetry: TelemetryMetrics::default(),
            trace: Arc::default(),
            publish_seconds: TracedHistogram::default(),
            probe_seconds: Histogram::default(),
            alerts: alerts::Board::default(),
            facts: Facts::default(),
        }
    }

    /// The same of a node of which this is known.
    #[must_use]
    pub fn with_facts(self, facts: Facts) -> Self {
        Self { facts, ..self }
    }

    /// Sessions open on this node now.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.sum(|counters| &counters.sessions)
    }

    /// What is known of the node since its start.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// One of the workers' counters, over all of them.
    #[must_use]
    pub fn sum(&self, of: impl Fn(&WorkerCounters) -> &Counter) -> u64 {
        self.workers.iter().map(|w| of(&w.counters).get()).sum()
    }

    /// All that is counted, and what the system says of the process, as it stands now.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let mut all = self.facts.families();
        all.extend(self.of_workers());
        all.push(busy::family(
            self.workers.iter().map(|worker| worker.busy()),
        ));
        all.extend(self.control.families());
        all.push(Family::of(
            Kind::Gauge,
            "fanfare_cluster_view_age_seconds",
            "Seconds since the last answered heartbeat of this node, which told it who lives (before the first: since its start). Where that is more than a lease, nodes that are shown may be dead.",
            &self.view_age,
        ));
        all.push(Family::of(
            Kind::Gauge,
            "fanfare_feed_lag_seconds",
            "How late the feed of Redis is, the latest where there are several: what was published longer ago was heard. Known by probes of the node's own, one a second, so it is up to about a second at rest, and grows while a feed is deaf. 0 without Redis.",
            &self.feed_lag,
        ));
        all.extend(super::log_counters().families());
        all.extend(self.tokens.families());
        all.extend(self.checks.families());
        all.extend(self.authorizers.families());
        all.extend(self.apps.families());
        all.extend(self.revocations.families());
        all.extend(self.queue.families());
        all.extend(self.api.families());
        all.extend(self.telemetry.families());
        all.extend(self.trace.families());
        all.push(Family::of(
            Kind::Histogram,
            "fanfare_publish_seconds",
            "From when a publication was handed to the broker to its answer that it has it, or to when its caller went away. Entries of the queue are not among them.",
            &self.publish_seconds,
        ));
        all.push(Family::of(
            Kind::Histogram,
            "fanfare_probe_seconds",
            "From when a probe was published to Redis to when the feed heard it. Both are read from one clock. A probe that is lost is in none: fanfare_feed_lag_seconds is how late the feed is now. What a publication's own time says would differ by as much as the clocks of Redis and node do.",
            &self.probe_seconds,
        ));
        all.push(alerts::family(&self.alerts));
        all.extend(process::families());
        all
    }

    /// What workers count, added up.
    fn of_workers(&self) -> Vec<Family> {
        let mut workers = self.workers.iter().map(|worker| worker.families());
        let mut sums = workers.next().unwrap_or_default();
        for families in workers {
            for (sum, more) in sums.iter_mut().zip(&families) {
                sum.add(more);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests;
