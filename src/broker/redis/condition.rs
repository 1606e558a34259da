//! How the links to Redis are: asked for health, for warnings, and before a topic is joined.
//!
//! In: the pairs in use now. Out: their circuits, what they do when memory is full, whether a
//! topic's master can be used. Owns nothing; each answer is a look at that moment.

use std::sync::Arc;

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
        let crowded = self.links.too_many_masters();
        evicts.into_iter().chain(crowded).chain(silent).collect()
    }

    /// Why what this node asks of the master that holds the leases of nodes is refused though its
    /// urgent link stands: the deployment is not compared yet, or the bulk link is away.
    #[must_use]
    pub fn lease_holder_away(&self) -> Option<String> {
        // The first deployment has the cluster's own keys.
        if let Some(reason) = self.overall.reason(Part::Agreement(0)) {
            return Some(reason);
        }
        match self.links.find(&self.keys().nodes()) {
            Ok(at) => at.pair.shared.health.reason(Line::Bulk),
            Err(nowhere) => Some(nowhere.to_string()),
        }
    }

    /// Why nobody gets a lease, where Redis says that in a word, or no master may be asked for it.
    #[must_use]
    pub fn lease_refused(&self) -> Option<BrokerError> {
        match self.links.find(&self.keys().nodes()) {
            Ok(at) => {
                let refusal = at.pair.shared.refusals.of(Line::Urgent);
                refusal.map(BrokerError::Refused)
            }
            Err(nowhere) => Some(nowhere.into()),
        }
    }

    /// The links to Redis: which server and what for, where its circuit stands, and why it is not
    /// closed.
    #[must_use]
    pub fn circuits(&self) -> Vec<(String, Phase, Option<Arc<str>>)> {
        let mut circuits = Vec::new();
        for pair in self.links.pairs() {
            for CommandLink { link, purpose, .. } in pair.shared.links().map(AsRef::as_ref) {
                let name = format!("{}, {}", link.server(), purpose.name());
                let circuit = link.circuit();
                circuits.push((name, circuit.phase(), circuit.reason()));
            }
            let name = format!("{}, {}", pair.shared.server(), Purpose::Publications.name());
            let circuit = &pair.shared.publications;
            circuits.push((name, circuit.phase(), circuit.reason()));
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
                if let Some(refusal) = pair.shared.refusals.of(Line::Feed) {
                    return Err(BrokerError::Refused(refusal));
                }
                Err(Unavailable::Away(reason.clone()).into())
            }
        }
    }
}
