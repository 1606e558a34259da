//! Members of topics: who is there, and the changes on the presence topic `%T`.
//!
//! In: sessions that come and go. Out: per member one entry of the hash `…:h` of `%T`, one of the
//! sorted set `…:n`, a count of its owner in `…:o`, and one change on `%T`, made by one script, so
//! that list, counts and changes share positions. Owns nothing: members live in Redis until their
//! owner, or whoever cleans up after it, removes them. Bounds: a page, or [`REAPED_PER_STEP`]
//! members, a call.

use fred::types::Value;

use super::{RedisBroker, reply};
use crate::broker::member::{Entered, MemberCounts, MemberEntry, MemberPage, PRESENCE_RETENTION};
use crate::broker::{BrokerError, Page, publication};
use crate::redis::script::text;
use fanfare_protocol::event::Member;
use fanfare_protocol::ids::{Owner, SessionId, Topic};

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
        generation: u64,
    ) -> Result<Entered, BrokerError> {
        let mut args = vec![
            text(member.session),
            text(owner),
            text(generation),
            publication::encode_member(member),
            publication::encode_presence_head(true, owner),
        ];
        args.extend(appending());
        let changes = topic.presence();
        let keys = self.presence_keys(&changes);
        let answer = self
            .eval(&changes, |scripts| &scripts.enter, &keys, &args)
            .await?;
        let [position, owners] = reply::parts(answer)?;
        Ok(Entered {
            counts: counts(owners)?,
            position: reply::position(&position)?,
        })
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
        generation: u64,
    ) -> Result<(), BrokerError> {
        let mut args = vec![
            text(session),
            text(&owner.node),
            text(generation),
            publication::encode_presence_head(false, owner),
        ];
        args.extend(appending());
        let changes = topic.presence();
        let keys = self.presence_keys(&changes);
        self.eval(&changes, |scripts| &scripts.leave, &keys, &args)
            .await?;
        Ok(())
    }

    /// As [`crate::broker::Broker::reap`], in steps of about [`REAPED_PER_STEP`] members.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn reap(&self, topic: &Topic, owner: &Owner) -> Result<u64, BrokerError> {
        let changes = topic.presence();
        let keys = self.presence_keys(&changes);
        let (mut cursor, mut removed_count) = (text(0), 0);
        loop {
            let mut args = vec![
                text(owner),
                cursor,
                text(REAPED_PER_STEP),
                publication::encode_presence_head(false, owner),
            ];
            args.extend(appending());
            let answer = self
                .eval(&changes, |scripts| &scripts.reap, &keys, &args)
                .await?;
            let [next, removed] = reply::parts(answer)?;
            removed_count += reply::number(&removed)?;
            cursor = reply::bytes(next)?.to_vec();
            if cursor == b"0" {
                return Ok(removed_count);
            }
        }
    }

    /// As [`crate::broker::Broker::members`]. A member that cannot be read is left out and counted.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn members(
        &self,
        topic: &Topic,
        after: Option<SessionId>,
        page: Page,
    ) -> Result<MemberPage, BrokerError> {
        let changes = topic.presence();
        let keys = [
            self.keys().stream(&changes),
            self.keys().last(&changes),
            self.keys().hash(&changes),
            self.keys().member_names(&changes),
            self.keys().member_counts(&changes),
        ];
        // One more than asked for says whether there is another page.
        let args = [
            after.map_or_else(Vec::new, text),
            text(u64::from(page.entries_max) + 1),
            text(page.bytes_max),
        ];
        let answer = self
            .ask(&changes, |scripts| &scripts.members, &keys, &args)
            .await?;
        let [position, owners, sessions, entries] = reply::parts(answer)?;
        let (mut sessions, mut entries) = (reply::list(sessions)?, reply::list(entries)?);
        entries.truncate(page.entries_max as usize);
        let is_more = sessions.len() > entries.len();
        sessions.truncate(entries.len());
        let last = sessions.pop().filter(|_| is_more);
        let next = last
            .map(|last| reply::session(&last))
            .transpose()?
            .or(after);
        let mut page = MemberPage {
            next: next.filter(|_| is_more),
            counts: counts(owners)?,
            position: reply::position(&position)?,
            entries: Vec::with_capacity(entries.len()),
        };
        for value in entries {
            let read = value.as_bytes().and_then(member_of);
            match read {
                Some(member) => page.entries.push(member),
                None => self.metrics.control.unreadable_damaged.add(1),
            }
        }
        Ok(page)
    }

    fn presence_keys(&self, changes: &Topic) -> [String; 6] {
        [
            self.masters.channel(changes),
            self.keys().stream(changes),
            self.keys().last(changes),
            self.keys().hash(changes),
            self.keys().member_names(changes),
            self.keys().member_counts(changes),
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

/// `{owner, its members, …}`. Owners that nobody can be are left out: no view shows them.
fn counts(value: Value) -> Result<MemberCounts, BrokerError> {
    let flat = reply::list(value)?;
    let masters = flat.chunks_exact(2).filter_map(|pair| {
        let owner = std::str::from_utf8(pair[0].as_bytes()?).ok()?;
        Some((owner.parse().ok()?, pair[1].as_u64()?))
    });
    Ok(masters.collect())
}

/// As `scripts/enter.lua` writes it: owner, generation, unix milliseconds and member, a space
/// between each two.
fn member_of(value: &[u8]) -> Option<MemberEntry> {
    let mut parts = value.splitn(4, |byte| *byte == b' ');
    let mut word = || std::str::from_utf8(parts.next()?).ok();
    Some(MemberEntry {
        owner: word()?.parse().ok()?,
        generation: word()?.parse().ok()?,
        since_ms: word()?.parse().ok()?,
        member: publication::decode_member(parts.next()?).ok()?,
    })
}
