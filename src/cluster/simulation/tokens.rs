//! The scripts `lead.lua` and `release.lua`, and how the others compare a token, in a few lines over
//! leases in memory.
//!
//! In: what a home asks, and the time by Redis' clock. Out: what the scripts answer. That they do
//! is a test over a real Redis, `tests/cluster/scripts.rs`, which includes this file. Bound: one
//! lease a partition. One of the rules may be missing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::cluster::partition_store::LeaseAnswer;
use fanfare_protocol::ids::Owner;

/// A rule of the scripts that can be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Another owner gets another token.
    NewTokens,
    /// A token is above the one before also when the clock stepped back.
    Rising,
    /// Where the clock is behind, the next token is not the one after the last.
    Spread,
    /// Who has a lease is left alone until its end.
    Exclusion,
    /// No lease of another lasts longer than one from now on, also where the clock stepped back.
    Caps,
    /// A lease that has ended may be taken.
    Ends,
    /// A later life of a node need not wait for the earlier one's lease.
    Lives,
    /// A lease is given back only by its own token.
    OwnRelease,
    /// Who acts shows the token of the present lease.
    Fence,
}

impl Rule {
    /// All of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::NewTokens,
        Self::Rising,
        Self::Spread,
        Self::Exclusion,
        Self::Caps,
        Self::Ends,
        Self::Lives,
        Self::OwnRelease,
        Self::Fence,
    ];
}

/// The lease of a partition, as it is in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    /// `None`: it was given back.
    pub(crate) owner: Option<Owner>,
    pub(crate) token: u64,
    pub(crate) end_ms: u64,
}

/// As the key holds it.
impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Some(owner) => write!(f, "{owner} {} {}", self.token, self.end_ms),
            None => write!(f, "- {} {}", self.token, self.end_ms),
        }
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    leases: BTreeMap<u32, Lease>,
    without: Option<Rule>,
}

impl Tokens {
    pub(crate) fn new(without: Option<Rule>) -> Self {
        Self {
            leases: BTreeMap::new(),
            without,
        }
    }

    fn lacks(&self, rule: Rule) -> bool {
        self.without == Some(rule)
    }

    /// `lead.lua`.
    pub(crate) fn lead(
        &mut self,
        partition: u32,
        owner: &Owner,
        lease: Duration,
        now_us: u64,
        random: u64,
    ) -> LeaseAnswer {
        let lease_ms = u64::try_from(lease.as_millis()).expect("short");
        let new_end_ms = now_us.div_ceil(1_000) + lease_ms;
        let known = self.leases.get(&partition);
        let before = known.and_then(|known| known.owner.as_ref());
        let last = known.map_or(0, |known| known.token);
        let token = if before == Some(owner) {
            last
        } else {
            let end_ms = known.map_or(0, |known| known.end_ms);
            let left_ms = end_ms.saturating_sub(now_us / 1_000);
            let is_over = left_ms == 0 && !self.lacks(Rule::Ends);
            let is_later = |before: &Owner| {
                let is_life = before.node == owner.node && !self.lacks(Rule::Lives);
                is_life && before.incarnation < owner.incarnation
            };
            let must_wait = before.is_some_and(|before| !is_later(before) && !is_over);
            if must_wait && !self.lacks(Rule::Exclusion) {
                return self.others(partition, now_us / 1_000, new_end_ms);
            }
            match last {
                last if last > 0 && self.lacks(Rule::NewTokens) => last,
                _ if self.lacks(Rule::Rising) => now_us,
                last if now_us > last => now_us,
                last if self.lacks(Rule::Spread) => last + 1,
                last => last + 1 + random,
            }
        };
        let held = Lease {
            owner: Some(owner.clone()),
            token,
            end_ms: new_end_ms,
        };
        self.leases.insert(partition, held);
        LeaseAnswer::Held { token }
    }

    /// The lease is another's, for no longer than a new one would last.
    fn others(&mut self, partition: u32, now_ms: u64, new_end_ms: u64) -> LeaseAnswer {
        let caps = !self.lacks(Rule::Caps);
        let lease = self.leases.get_mut(&partition);
        let end_ms = lease.map_or(0, |lease| {
            if caps {
                lease.end_ms = lease.end_ms.min(new_end_ms);
            }
            lease.end_ms
        });
        let left = Duration::from_millis(end_ms.saturating_sub(now_ms));
        LeaseAnswer::Other { left }
    }

    /// `release.lua`: whether it was given back.
    pub(crate) fn release(&mut self, partition: u32, token: u64) -> bool {
        let is_free = self.lacks(Rule::OwnRelease);
        let known = self.leases.get_mut(&partition);
        let Some(lease) = known.filter(|lease| is_free || lease.token == token) else {
            return false;
        };
        *lease = Lease {
            owner: None,
            token,
            end_ms: 0,
        };
        true
    }

    /// `index.lua`, `unindex.lua`: whether who shows this token may act.
    pub(crate) fn admits(&self, partition: u32, token: u64) -> bool {
        let known = self.leases.get(&partition);
        self.lacks(Rule::Fence) || known.is_some_and(|lease| lease.token == token)
    }

    /// What Redis has of a partition.
    pub(crate) fn lease(&self, partition: u32) -> Option<&Lease> {
        self.leases.get(&partition)
    }

    pub(crate) fn forget(&mut self, partition: u32) {
        self.leases.remove(&partition);
    }
}
