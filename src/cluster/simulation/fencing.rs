//! What must hold of partitions and their tokens, whatever happens to processes and Redis.
//!
//! In: what the scripts answered when they ran, what each process heard, and with which token it
//! acts. Out: the first broken promise. Promised is:
//! - tokens only rise, unless Redis has forgotten some, and none is given to two processes or lives;
//! - nobody is admitted by a token that is not the newest that Redis knows;
//! - a process acts by a token of its present life that was confirmed within a lease, by its own
//!   clock, and that it has not heard to be lost;
//! - while clocks run alike, Redis keeps what it was told and connections keep order, nobody
//!   believes to hold what Redis has given to another node;
//! - when it has been calm, each partition is held by its home and by nobody else; and a node that
//!   then comes, leaves or is restarted has or has given its partitions before a lease could end.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::leases::Leases;
use super::process::{LEASE, Process};
use super::tokens::Tokens;
use crate::cluster::partition_store::LeaseAnswer;
use crate::cluster::ring::Ring;
use crate::seeds::Verdict;
use fanfare_protocol::ids::Owner;

/// What both clocks show.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) own: Instant,
    pub(super) redis_ms: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Fencing {
    /// To which life, and so to which process (its holder's mark), each token was given.
    given: BTreeMap<(u32, u64), (Owner, u64)>,
    /// The newest that Redis knows of each partition.
    newest: BTreeMap<u32, u64>,
    /// When each process asked what it was answered last about a partition, if it has it.
    confirmed: BTreeMap<(u64, u32), Instant>,
}

fn must(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(what()) }
}

impl Fencing {
    /// `lead.lua` ran. Returns whether the lease went from one node to another.
    pub(super) fn led(
        &mut self,
        partition: u32,
        owner: &Owner,
        holder: u64,
        bid: LeaseAnswer,
    ) -> Result<bool, String> {
        let LeaseAnswer::Held { token } = bid else {
            return Ok(false);
        };
        let newest = self.newest.insert(partition, token).unwrap_or_default();
        must(token >= newest, || {
            format!("{partition}: token {token} was given after {newest}")
        })?;
        let before = self.given.get(&(partition, newest));
        let is_from_another = before.is_some_and(|(before, _)| before.node != owner.node);
        let (me, of) = ((owner.clone(), holder), (partition, token));
        let of = self.given.entry(of).or_insert_with(|| me.clone());
        must(*of == me, || {
            format!("{partition}: token {token} is of {of:?} and of {me:?}")
        })?;
        Ok(is_from_another)
    }

    /// Redis has lost what it was told last: tokens rise from here. None is given a second time.
    pub(super) fn forgotten(&mut self, tokens: &Tokens) {
        self.newest.retain(|partition, newest| {
            let lease = tokens.lease(*partition);
            *newest = lease.map_or(0, |lease| lease.token);
            lease.is_some()
        });
    }

    /// A process was answered what it had asked then, about the lease of a partition.
    pub(super) fn heard(
        &mut self,
        holder: u64,
        partition: u32,
        asked_at: Instant,
        bid: LeaseAnswer,
    ) {
        match bid {
            LeaseAnswer::Held { .. } => self.confirmed.insert((holder, partition), asked_at),
            LeaseAnswer::Other { .. } => self.confirmed.remove(&(holder, partition)),
        };
    }

    /// A process acts, in the belief that it holds the lease.
    pub(super) fn acts(
        &self,
        process: &Process,
        partition: u32,
        token: u64,
        now: Instant,
    ) -> Verdict {
        let me = &process.duty.leases.me;
        let of = self.given.get(&(partition, token));
        let is_mine = of.is_some_and(|(owner, _)| owner == me);
        must(is_mine, || {
            format!("{me} acts for {partition} by {token} of {of:?}")
        })?;
        let confirmed = self.confirmed.get(&(process.holder, partition));
        let ago = confirmed.map(|asked_at| now.duration_since(*asked_at));
        must(ago.is_some_and(|ago| ago < LEASE), || {
            format!("{me} acts for {partition}, what it heard last is {ago:?} old")
        })
    }

    /// The same while nothing has disturbed clocks, memory and order, and nobody else has the name.
    pub(super) fn holds(
        process: &Process,
        partition: u32,
        token: u64,
        (tokens, leases): (&Tokens, &Leases),
        now: Now,
    ) -> Verdict {
        let me = &process.duty.leases.me;
        if leases.newest(&me.node).map(|(newest, _)| newest) != Some(me.incarnation) {
            return Ok(());
        }
        let lease = tokens.lease(partition);
        let is_held = lease.is_some_and(|lease| {
            let is_mine = lease.owner.as_ref() == Some(me) && lease.token == token;
            is_mine && lease.end_ms > now.redis_ms
        });
        must(is_held, || {
            format!("{me} believes to hold {partition} by {token}, Redis has {lease:?}")
        })
    }

    /// A script has compared this token and went on.
    pub(super) fn admitted(&self, partition: u32, token: u64) -> Verdict {
        let newest = self.newest.get(&partition);
        must(newest == Some(&token), || {
            format!("{partition}: {token} was admitted, the newest is {newest:?}")
        })
    }

    /// Nothing has happened for long enough.
    pub(super) fn at_rest(
        processes: &[Process],
        partitions: &[u32],
        ring: &Ring,
        tokens: &Tokens,
        now: Now,
    ) -> Verdict {
        for (process, partition) in processes
            .iter()
            .flat_map(|process| {
                partitions
                    .iter()
                    .map(move |partition| (process, *partition))
            })
            .filter(|(process, _)| process.is_running())
        {
            let me = &process.course.view.me;
            let is_home = ring.home_of_partition(partition) == Some(&me.node);
            let held = process.duty.shown.token_at(partition, now.own);
            must(held.is_some() == is_home, || {
                format!("{me} holds {partition} by {held:?}, it is the home: {is_home}")
            })?;
            let lease = tokens.lease(partition).filter(|_| is_home);
            let in_redis = lease.map(|lease| (lease.owner.as_ref(), lease.token));
            let in_its_eyes = held.map(|token| (Some(me), token));
            must(in_redis == in_its_eyes, || {
                format!("{me} holds {partition} by {held:?}, Redis has {lease:?}")
            })?;
        }
        Ok(())
    }
}
