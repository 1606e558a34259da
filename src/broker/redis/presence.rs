//! Members of topics: who is there, and the changes on the presence topic `%T`.
//!
//! In: sessions that come and go. Out: one entry of the hash `…:h` of `%T` per member, and one
//! change on `%T`, made by one script, so that the list and the changes share positions. Owns
//! nothing: members live in Redis until their owner, or whoever cleans up after it, removes them.

use super::{RedisBroker, reply, text};
use crate::broker::publication;
use crate::broker::{BrokerError, MemberEntry, PRESENCE_RETENTION};
use crate::protocol::event::Member;
use crate::protocol::ids::{Owner, Position, SessionId, Topic};

/// So many members are looked at in one call, each of which may have to be told as a leave: some
/// milliseconds of Redis.
const REAPED_PER_STEP: usize = 100;

impl RedisBroker {
    /// As [`crate::broker::Broker::enter`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn enter(
        &self,
        topic: &Topic,
        member: &Member,
        owner: &Owner,
    ) -> Result<(u64, Position), BrokerError> {
        let mut args = vec![
            text(member.session),
            text(owner),
            publication::encode_member(member),
            publication::encode_presence_head(true, owner),
        ];
        args.extend(appending());
        let keys = self.presence_keys(&topic.presence());
        let answer = self.eval(|scripts| &scripts.enter, &keys, &args).await?;
        let [count, position] = reply::parts(answer)?;
        Ok((reply::number(&count)?, reply::position(&position)?))
    }

    /// As [`crate::broker::Broker::leave`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn leave(
        &self,
        topic: &Topic,
        session: SessionId,
        owner: &Owner,
    ) -> Result<(), BrokerError> {
        let mut args = vec![
            text(session),
            text(&owner.node),
            publication::encode_presence_head(false, owner),
        ];
        args.extend(appending());
        let keys = self.presence_keys(&topic.presence());
        self.eval(|scripts| &scripts.leave, &keys, &args).await?;
        Ok(())
    }

    /// As [`crate::broker::Broker::reap`], in steps of about [`REAPED_PER_STEP`] members.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn reap(&self, topic: &Topic, owner: &Owner) -> Result<u64, BrokerError> {
        let keys = self.presence_keys(&topic.presence());
        let (mut cursor, mut removed_count) = (text(0), 0);
        loop {
            let mut args = vec![
                text(owner),
                cursor,
                text(REAPED_PER_STEP),
                publication::encode_presence_head(false, owner),
            ];
            args.extend(appending());
            let answer = self.eval(|scripts| &scripts.reap, &keys, &args).await?;
            let [next, removed] = reply::parts(answer)?;
            removed_count += reply::number(&removed)?;
            cursor = reply::bytes(next)?.to_vec();
            if cursor == b"0" {
                return Ok(removed_count);
            }
        }
    }

    /// As [`crate::broker::Broker::members`], in the order of their sessions' names. A member that cannot
    /// be read is left out and counted.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn members(
        &self,
        topic: &Topic,
    ) -> Result<(Vec<MemberEntry>, Position), BrokerError> {
        let changes = topic.presence();
        let keys = [
            self.keys().stream(&changes),
            self.keys().last(&changes),
            self.keys().hash(&changes),
        ];
        let answer = self.eval(|scripts| &scripts.members, &keys, &[]).await?;
        let [position, values] = reply::parts(answer)?;
        let mut members = Vec::new();
        for value in reply::list(values)? {
            match member_of(&reply::bytes(value)?) {
                Some(member) => members.push(member),
                None => self.metrics.control.unreadable_damaged.add(1),
            }
        }
        members.sort_unstable_by_key(|entry| entry.member.session);
        Ok((members, reply::position(&position)?))
    }

    fn presence_keys(&self, changes: &Topic) -> [String; 4] {
        [
            self.links.channel(changes),
            self.keys().stream(changes),
            self.keys().last(changes),
            self.keys().hash(changes),
        ]
    }
}

/// What the presence scripts need for `append`.
fn appending() -> [Vec<u8>; 4] {
    [
        text(rand::random::<u32>()),
        text(PRESENCE_RETENTION.entries_max),
        text(PRESENCE_RETENTION.age_ms),
        text(PRESENCE_RETENTION.last_life_ms()),
    ]
}

/// As `scripts/enter.lua` writes it: owner, space, unix milliseconds, space, member.
fn member_of(value: &[u8]) -> Option<MemberEntry> {
    let mut parts = value.splitn(3, |byte| *byte == b' ');
    let owner = std::str::from_utf8(parts.next()?).ok()?;
    let since_ms = std::str::from_utf8(parts.next()?).ok()?;
    Some(MemberEntry {
        owner: owner.parse().ok()?,
        since_ms: since_ms.parse().ok()?,
        member: publication::decode_member(parts.next()?).ok()?,
    })
}
