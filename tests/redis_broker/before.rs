//! The scripts of the release before, as its nodes run them beside those of this one.
//!
//! In: the same calls as a broker takes. Out: the same answers, by `tests/redis_broker/before`.

use std::sync::Arc;

use fanfare::broker::publication::encode_publication;
use fanfare::broker::redis::reply;
use fanfare::broker::{Acked, HistoryQuery, InboxSummary, OVERLAP_MS, Page, PublishRequest};
use fanfare::config::{self, Retention};
use fanfare::redis::{Keys, RedisLink, Script};
use fanfare::telemetry::metrics::Metrics;
use fanfare_protocol::ids::{Position, SessionId, Topic, TopicKind};
use fred::interfaces::ClientLike;
use fred::types::Value;

use crate::rig::settings;
use fanfare_testkit::wait::{self, PATIENCE};

const TELLS: &str = "local spread = 'PUBLISH'\n";
const RENEWS: &str = "local function renew(key, ms) redis.call('PEXPIRE', key, ms) end\n";
const POSITION: &str = include_str!("before/position.lua");
const APPEND: &str = include_str!("before/append.lua");

/// How the release before glues the script of a publication.
pub(crate) fn publish_script(parts: [&str; 3]) -> Script {
    Script::new(format!("#!lua\n{TELLS}{}", parts.concat()))
}

/// Its own parts of that.
pub(crate) const PUBLISH: [&str; 3] = [POSITION, APPEND, include_str!("before/publish.lua")];

fn reading(file: &str) -> Script {
    Script::new(format!("#!lua flags=allow-oom\n{RENEWS}{POSITION}{file}"))
}

/// Keys and arguments of a publication as the release before gives them.
pub(crate) fn arguments(
    keys: &Keys,
    request: &PublishRequest,
    random: u32,
) -> ([String; 5], [Vec<u8>; 7]) {
    let (topic, retention) = (&request.topic, request.retention);
    let (key, life_ms) = request.idempotency.clone().unwrap_or_default();
    let is_inbox = topic.kind() == TopicKind::Inbox;
    let keys = [
        keys.channel(topic),
        keys.stream(topic),
        keys.last(topic),
        keys.idempotency(topic, &key),
        keys.cursor(topic),
    ];
    let args = [
        encode_publication(&request.publication),
        text(random),
        text(retention.entries_max),
        text(retention.age_ms),
        text(retention.last_life_ms()),
        text(life_ms),
        text(u8::from(is_inbox)),
    ];
    (keys, args)
}

/// A node of the release before, as far as its scripts go.
pub(crate) struct Before {
    link: Arc<RedisLink>,
    keys: Keys,
    publish: Script,
    since: Script,
    last: Script,
    history: Script,
    inbox: Script,
    ack: Script,
}

impl Before {
    /// Connected to the Redis at this URL.
    pub(crate) async fn over(url: String) -> Self {
        let config = settings(url, config::RedisAccess::default());
        let link = RedisLink::new(&config, Arc::new(Metrics::new(0))).expect("a URL");
        link.renew().expect("a URL").connect();
        // No supervisor watches this link.
        link.circuit().close();
        wait::until_within(PATIENCE, "the link", async || {
            link.command("GET", "nothing", &[]).await.ok()
        })
        .await;
        Self {
            link: Arc::new(link),
            keys: Keys::new("ff", 256),
            publish: publish_script(PUBLISH),
            since: reading(include_str!("before/since.lua")),
            last: reading(include_str!("before/last.lua")),
            history: reading(include_str!("before/history.lua")),
            inbox: reading(include_str!("before/inbox.lua")),
            ack: Script::new(format!(
                "#!lua flags=allow-oom\n{TELLS}{POSITION}{APPEND}{}",
                include_str!("before/ack.lua")
            )),
        }
    }

    async fn eval(&self, script: &Script, keys: &[String], args: &[Vec<u8>]) -> Value {
        let answer = self.link.eval(script, keys, args).await;
        answer.expect("Redis answers")
    }

    /// Where it stands, and whether it did already.
    pub(crate) async fn publish(&self, request: &PublishRequest) -> (Position, bool) {
        let (keys, args) = arguments(&self.keys, request, rand::random());
        let answer = self.eval(&self.publish, &keys, &args).await;
        let [outcome, position] = reply::parts(answer).expect("two");
        let is_duplicate = outcome.as_bytes() == Some(b"duplicate");
        (
            reply::position(&position).expect("a position"),
            is_duplicate,
        )
    }

    pub(crate) async fn since(
        &self,
        topic: &Topic,
        since: Position,
        retention: Retention,
        page: Page,
    ) -> reply::RawPage {
        let keys = [self.keys.stream(topic), self.keys.last(topic)];
        let args = [
            text(since),
            text(retention.age_ms),
            text(retention.last_life_ms()),
            text(page.entries_max),
            text(page.bytes_max),
            text(OVERLAP_MS),
        ];
        reply::since(self.eval(&self.since, &keys, &args).await).expect("a page")
    }

    pub(crate) async fn last(&self, topic: &Topic, retention: Retention) -> Option<Position> {
        let args = [text(retention.last_life_ms())];
        let answer = self.eval(&self.last, &self.inbox_keys(topic), &args).await;
        reply::optional_position(&answer).expect("a position or none")
    }

    /// Positions, and whether there are more.
    pub(crate) async fn history(&self, query: &HistoryQuery) -> (Vec<Position>, bool) {
        let bound = |position: Option<Position>| position.map_or_else(Vec::new, text);
        let args = [
            bound(query.since),
            bound(query.until),
            text(query.retention.age_ms),
            text(query.limit),
            text(query.bytes_max),
            text(u8::from(query.reverse)),
        ];
        let keys = [self.keys.stream(&query.topic)];
        let answer = self.eval(&self.history, &keys, &args).await;
        let [more, entries] = reply::parts(answer).expect("two");
        let entries = reply::entries(entries).expect("entries");
        let positions = entries.iter().map(|entry| entry.position).collect();
        (positions, reply::is_one(&more))
    }

    pub(crate) async fn inbox(&self, inbox: &Topic, retention: Retention) -> InboxSummary {
        let args = [text(retention.age_ms), text(1_000)];
        let answer = self.eval(&self.inbox, &self.inbox_keys(inbox), &args).await;
        let [cursor, last, pending] = reply::parts(answer).expect("three");
        InboxSummary {
            cursor: reply::optional_position(&cursor).expect("a position or none"),
            last: reply::position(&last).expect("a position"),
            pending: reply::number(&pending).expect("a number"),
        }
    }

    pub(crate) async fn ack(
        &self,
        inbox: &Topic,
        position: Position,
        session: SessionId,
        retention: Retention,
    ) -> Acked {
        let mut keys = vec![self.keys.channel(inbox)];
        keys.extend(self.inbox_keys(inbox));
        let args = [
            text(position),
            text(session),
            text(retention.last_life_ms()),
        ];
        let answer = self.eval(&self.ack, &keys, &args).await;
        let [outcome, cursor] = reply::parts(answer).expect("two");
        match outcome.as_bytes() {
            Some(b"above") => Acked::AboveNewest,
            _ => Acked::Cursor(reply::position(&cursor).expect("a position")),
        }
    }

    fn inbox_keys(&self, topic: &Topic) -> [String; 3] {
        let keys = &self.keys;
        [keys.stream(topic), keys.last(topic), keys.cursor(topic)]
    }
}

fn text(value: impl std::fmt::Display) -> Vec<u8> {
    value.to_string().into_bytes()
}
