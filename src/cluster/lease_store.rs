//! Node leases in Redis: three scripts and the reading of their answers.
//!
//! In: `membership`, once per heartbeat. Out: what Redis decided. Every decision that needs to
//! be atomic (who holds a name, when a lease ended, which incarnation is newest) is made in the
//! scripts, by Redis time; here is no state but the process's own mark and what it was told. Bounds:
//! one answer holds one entry per node with a lease, and in quiet times none: only what changed
//! since the one before (`roster`); a lease that ended is forgotten after [`FORGET_AFTER`].
//!
//! Keys: `{ff:nodes}` (leases, a sorted set by their end), `{ff:nodes}:i` (newest incarnations),
//! `{ff:nodes}:d` (details), `{ff:nodes}:t` (the last heartbeat of all: while Redis was away,
//! no lease ends) and `{ff:nodes}:c` (who changed when). They are used together in one script, so they share the hash tag `ff:nodes`,
//! without which Redis Cluster would refuse it as cross-slot. `ff` stands for the configured prefix.

use std::time::Duration;

use super::own_lease::OwnLease;
use super::roster::{Beat, Roster, Saying, read_answer};
use super::view::NodeDetails;
use crate::redis::holders::holder_of;
use crate::redis::keyspace::Keyspace;
use crate::redis::{Keys, RedisError, Script};
use fanfare_protocol::ids::NodeId;

/// For so long the incarnation of a node whose lease ended is remembered, so that the next is
/// higher even when the clock of Redis stepped back.
const FORGET_AFTER: Duration = Duration::from_secs(3_600);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Redis is away or refused. What was asked may have been done.
    #[error("Redis did not carry out the heartbeat")]
    Redis(#[source] RedisError),
    /// No answer came within this time.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// Not what these scripts answer: another program uses the keys.
    #[error("unexpected answer to the heartbeat: {0}")]
    Unexpected(&'static str),
}

impl LeaseError {
    /// Whether Redis is there and takes no writes: nobody can write a lease, so nobody's ends.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Redis(error) if error.is_read_only())
    }

    /// Whether Redis surely did nothing, mostly because there is no link to it.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        matches!(self, Self::Redis(error) if error.is_not_done())
    }
}

/// The leases as one process uses them.
#[derive(Debug)]
pub struct LeaseStore {
    keyspace: Keyspace,
    heartbeat: Script,
    leave: Script,
    own_lease: Script,
    /// Leases, incarnations, details, the last heartbeat, changes.
    nodes_keys: [String; 5],
    /// Where a process that was sent away tells whom it met.
    contests_key: String,
    /// Tells this process from another of the same name.
    holder: String,
    roster: Roster,
    saying: Saying,
}

impl LeaseStore {
    /// Leases under these names.
    #[must_use]
    pub fn new(keyspace: impl Into<Keyspace>, keys: &Keys) -> Self {
        Self {
            keyspace: keyspace.into(),
            heartbeat: Script::new(include_str!("scripts/heartbeat.lua")),
            leave: Script::new(include_str!("scripts/leave.lua")),
            own_lease: Script::new(concat!(
                "#!lua flags=no-writes\n",
                include_str!("../broker/scripts/frozen.lua"),
                include_str!("scripts/own_lease.lua")
            )),
            nodes_keys: [
                keys.nodes(),
                keys.node_incarnations(),
                keys.node_details(),
                keys.node_heartbeat(),
                keys.node_changes(),
            ],
            contests_key: keys.node_contests(),
            holder: format!("{:016x}", rand::random::<u64>()),
            roster: Roster::default(),
            saying: Saying::default(),
        }
    }

    /// Extends the lease, or takes the name. `mine`: the incarnation that this process has, so that
    /// another holder with a higher one is a newer process. Cancel-safe: if the answer is lost, the
    /// next call finds what this one did, and is told of all nodes.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn heartbeat(
        &mut self,
        node: &NodeId,
        mine: Option<u64>,
        lease: Duration,
        details: &NodeDetails,
    ) -> Result<Beat, LeaseError> {
        let nodes_count = self.roster.nodes_count();
        let all_look_beside = self.roster.all_look_beside();
        let said = self.saying.next(details, nodes_count, all_look_beside);
        let says = serde_json::to_vec(said);
        let numbers = self.roster.numbers();
        let args = [
            node.as_str().into(),
            self.holder.as_str().into(),
            mine.unwrap_or_default().to_string().into(),
            lease.as_millis().to_string().into(),
            says.expect("text and numbers always serialize"),
            FORGET_AFTER.as_millis().to_string().into(),
            apart().to_string().into(),
            numbers.beat.to_string().into(),
            numbers.taken.to_string().into(),
        ];
        let answer = self.eval(&self.heartbeat, &self.nodes_keys, &args).await?;
        let answer = read_answer(&answer).ok_or(LeaseError::Unexpected("not a heartbeat's"))?;
        let mut beat = self.roster.take(numbers.beat, answer);
        if let Beat::Held { nodes, .. } = &mut beat {
            // What this node says of itself may be a little behind.
            let mine = nodes.iter_mut().find(|info| info.owner.node == *node);
            mine.into_iter()
                .for_each(|mine| mine.details = details.clone());
        }
        Ok(beat)
    }

    /// What the present holder of a name said of itself last; `None` where nobody holds it, see
    /// [`holder_of`].
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn holder_of(&self, node: &NodeId) -> Result<Option<String>, LeaseError> {
        let [leases, _, details, ..] = &self.nodes_keys;
        let holder = holder_of(&self.keyspace, leases, details, node.as_str()).await;
        Ok(holder.map_err(LeaseError::Redis)?.map(|holder| holder.said))
    }

    /// Whether Redis takes writes. Changes nothing.
    ///
    /// # Errors
    /// [`LeaseError`]: it does not.
    pub async fn try_write(&self) -> Result<(), LeaseError> {
        // No node has this name.
        let nobody = [Vec::new()];
        let _: i64 = self.read("HDEL", &self.contests_key, &nobody).await?;
        Ok(())
    }

    /// Leaves word for the holder of a name that another process of that name was started.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn contest(&self, node: &NodeId) -> Result<(), LeaseError> {
        let args = [
            node.as_str().as_bytes().to_vec(),
            self.holder.clone().into(),
        ];
        let _: i64 = self.read("HSET", &self.contests_key, &args).await?;
        Ok(())
    }

    /// Whether such word was left for the holder of a name since it was asked last.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn was_contested(&self, node: &NodeId) -> Result<bool, LeaseError> {
        let name = [node.as_str().as_bytes().to_vec()];
        let taken: i64 = self.read("HDEL", &self.contests_key, &name).await?;
        Ok(taken > 0)
    }

    async fn read<T: fred::types::FromValue>(
        &self,
        command: &'static str,
        key: &str,
        args: &[Vec<u8>],
    ) -> Result<T, LeaseError> {
        let answer = self.keyspace.command(command, key, args).await;
        let answer = answer.map_err(LeaseError::Redis)?;
        answer
            .convert()
            .map_err(|_| LeaseError::Unexpected("of another type"))
    }

    /// This process's lease under the incarnation `mine`, also where Redis takes no writes; `None`
    /// where the name is not held under it.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn own_lease(
        &self,
        node: &NodeId,
        mine: u64,
    ) -> Result<Option<OwnLease>, LeaseError> {
        let [leases, incarnations, _, heartbeat, ..] = &self.nodes_keys;
        let keys = [leases, incarnations, heartbeat].map(String::clone);
        let name = [node.as_str().into()];
        let answer = self.eval(&self.own_lease, &keys, &name).await?;
        Ok(OwnLease::read(&answer, mine, &self.holder))
    }

    /// Ends the lease, if this process still holds the name. `is_bare`: the others need not look for
    /// what this node left behind.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn leave(&self, node: &NodeId, is_bare: bool) -> Result<(), LeaseError> {
        let args = [
            node.as_str().into(),
            self.holder.as_str().into(),
            u8::from(is_bare).to_string().into(),
        ];
        self.eval(&self.leave, &self.nodes_keys, &args).await?;
        Ok(())
    }

    async fn eval(
        &self,
        script: &Script,
        keys: &[String],
        args: &[Vec<u8>],
    ) -> Result<Vec<String>, LeaseError> {
        let answer = self.keyspace.eval(script, keys, args).await;
        let answer = answer.map_err(LeaseError::Redis)?;
        answer
            .convert()
            .map_err(|_| LeaseError::Unexpected("not a list of texts"))
    }
}

/// How far an incarnation or token lies above the last where the clock is behind: a failover may
/// have lost the one after the last, which must not be given again.
pub(super) fn apart() -> u32 {
    rand::random::<u32>() >> 12
}
