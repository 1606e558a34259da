//! The broker over one Redis or Valkey: scripts for what must be atomic, pub/sub for the feed.

use bytes::Bytes;
use tokio::sync::watch;

use super::interest::Interest;
use super::{
    Acked, BrokerError, BrokerHealth, HistoryPage, HistoryQuery, InboxSummary, MemberEntry, Page,
    PublishRequest, Published, SincePage,
};
use crate::config::Retention;
use crate::protocol::event::Member;
use crate::protocol::ids::{Owner, Position, SessionId, Topic};

/// See the module.
#[derive(Debug)]
pub struct RedisBroker {}

#[allow(missing_docs, unused_variables, clippy::unused_async)]
impl RedisBroker {
    pub fn start(
        _: &crate::config::Redis,
        _: std::sync::Arc<crate::telemetry::metrics::Metrics>,
    ) -> Result<(Self, super::Feed), crate::redis::RedisError> {
        todo!()
    }
    pub async fn stop(&self) {}
    pub fn maxmemory_policy(&self) -> Option<String> {
        None
    }
    pub async fn publish(&self, request: PublishRequest) -> Result<Published, BrokerError> {
        todo!()
    }
    pub async fn since(
        &self,
        topic: &Topic,
        since: Position,
        retention: Retention,
        page: Page,
    ) -> Result<SincePage, BrokerError> {
        todo!()
    }
    pub async fn last(
        &self,
        topics: &[(Topic, Retention)],
    ) -> Result<Vec<Option<Position>>, BrokerError> {
        todo!()
    }
    pub async fn history(&self, query: HistoryQuery) -> Result<HistoryPage, BrokerError> {
        todo!()
    }
    pub async fn inbox(
        &self,
        inbox: &Topic,
        retention: Retention,
    ) -> Result<InboxSummary, BrokerError> {
        todo!()
    }
    pub async fn ack(
        &self,
        inbox: &Topic,
        position: Position,
        session: SessionId,
        retention: Retention,
    ) -> Result<Acked, BrokerError> {
        todo!()
    }
    pub async fn enter(
        &self,
        topic: &Topic,
        member: &Member,
        owner: &Owner,
    ) -> Result<(u64, Position), BrokerError> {
        todo!()
    }
    pub async fn leave(
        &self,
        topic: &Topic,
        session: SessionId,
        owner: &Owner,
        silent: bool,
    ) -> Result<(), BrokerError> {
        todo!()
    }
    pub async fn members(
        &self,
        topic: &Topic,
    ) -> Result<(Vec<MemberEntry>, Position), BrokerError> {
        todo!()
    }
    pub async fn control(&self, message: Bytes) -> Result<(), BrokerError> {
        todo!()
    }
    pub fn interest(&self) -> &Interest {
        todo!()
    }
    pub fn health(&self) -> watch::Receiver<BrokerHealth> {
        todo!()
    }
}
