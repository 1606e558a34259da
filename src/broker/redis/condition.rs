//! How the links to Redis are: asked for health, for warnings, and before a topic is joined.
//!
//! In: the pairs in use now. Out: their circuits, what they do when memory is full, whether a
//! topic's master can be used. Owns nothing; each answer is a look at that moment.

use super::RedisBroker;
use super::health::Line;
use super::link::policy::SAFE;
use super::link::{CommandLink, Purpose};
use super::overall::Part;
use crate::broker::unavailable::Unavailable;
use crate::broker::{BrokerError, BrokerHealth};
use crate::protocol::ids::Topic;
use crate::redis::circuit::Phase;

impl RedisBroker {
    /// What Redis does when its memory is full; where masters differ, what one does that evicts.
    /// `None` while it is not known or not told.
    #[must_use]
    pub fn maxmemory_policy(&self) -> Option<String> {
        let pairs = self.links.pairs();
        let known = pairs
            .iter()
            .filter_map(|pair| pair.shared.maxmemory_policy.known());
        known.max_by_key(|policy| policy != SAFE)
    }

    /// What an operator should mend though everything works.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let policy = self.maxmemory_policy().filter(|policy| policy != SAFE);
        let evicts = policy.map(|policy| {
            format!("Redis may evict keys (maxmemory-policy is {policy}); set {SAFE}")
        });
        let deployments = self.links.deployments().iter();
        let silent = deployments.flat_map(|deployment| deployment.silent());
        evicts.into_iter().chain(silent).collect()
    }

    /// Why what this node asks of the master that holds the leases of nodes is refused though its
    /// urgent link stands: the deployment is not compared yet, or the bulk link is away.
    #[must_use]
    pub fn lease_holder_away(&self) -> Option<String> {
        // The first deployment has the cluster's own keys.
        if let Some(reason) = self.overall.reason(Part::Agreement(0)) {
            return Some(reason);
        }
        let keys = self.keys();
        let pair = self.links.find(&keys.nodes()).ok()?.pair;
        pair.shared.health.reason(Line::Bulk)
    }

    /// The links to Redis: which server and what for, and where its circuit stands.
    #[must_use]
    pub fn circuits(&self) -> Vec<(String, Phase)> {
        let mut circuits = Vec::new();
        for pair in self.links.pairs() {
            for CommandLink { link, purpose, .. } in pair.shared.links().map(AsRef::as_ref) {
                let name = format!("{}, {}", link.server(), purpose.name());
                circuits.push((name, link.circuit().phase()));
            }
            let name = format!("{}, {}", pair.shared.server(), Purpose::Publications.name());
            circuits.push((name, pair.shared.publications.phase()));
        }
        circuits
    }

    /// As [`crate::broker::Broker::check`].
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`], or [`BrokerError::Refused`] in Redis' own word.
    pub fn check(&self, topic: &Topic) -> Result<(), BrokerError> {
        let pair = self.links.find_topic(topic)?.pair;
        match &*pair.shared.health.watch().borrow() {
            // A join asks for the topic's last position.
            BrokerHealth::Up | BrokerHealth::ReadOnly(_) | BrokerHealth::Partly(_) => {
                Ok(pair.shared.bulk.link.circuit().pass()?)
            }
            BrokerHealth::Down(reason) => {
                for link in pair.shared.links() {
                    link.link.circuit().pass()?;
                }
                pair.shared.publications.pass()?;
                Err(Unavailable::Away(reason.clone()).into())
            }
        }
    }
}
