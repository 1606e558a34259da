//! How the links to Redis are: asked for health, for warnings, and before a topic is joined.
//!
//! In: the masters in use now. Out: their circuits, what they do when memory is full, whether a
//! topic's master can be used. Owns nothing; each answer is a look at that moment.

use std::sync::Arc;

use super::RedisBroker;
use super::aggregate_health::Part;
use super::health::Line;
use super::link::policy::SAFE;
use super::link::{CommandLink, Purpose};
use crate::broker::unavailable::Unavailable;
use crate::broker::{BrokerError, BrokerHealth};
use crate::redis::circuit::Phase;
use fanfare_protocol::ids::Topic;

impl RedisBroker {
    /// What Redis does when its memory is full; where masters differ, what one does that evicts.
    /// `None` while it is not known or not told.
    #[must_use]
    pub fn maxmemory_policy(&self) -> Option<String> {
        let masters = self.masters.masters();
        let known = masters
            .iter()
            .filter_map(|master| master.shared.maxmemory_policy.known());
        known.max_by_key(|policy| policy != SAFE)
    }

    /// Percent of `maxmemory` in use, of the fullest master; `None` where none tells a bound.
    #[must_use]
    pub fn memory_percent(&self) -> Option<u8> {
        let masters = self.masters.masters();
        let known = masters.iter().filter_map(|m| m.shared.fullness.percent());
        known.max()
    }

    /// What an operator should mend though everything works.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let policy = self.maxmemory_policy().filter(|policy| policy != SAFE);
        let evicts = policy.map(|policy| {
            format!("Redis may evict keys (maxmemory-policy is {policy}); set {SAFE}")
        });
        let deployments = self.masters.deployments().iter();
        let silent = deployments.flat_map(|deployment| deployment.silent());
        let crowded = self.masters.too_many_masters();
        let uneven = self.masters.too_few_partitions();
        let of_masters = crowded.into_iter().chain(uneven);
        evicts.into_iter().chain(of_masters).chain(silent).collect()
    }

    /// Why what this node asks of the master that holds the leases of nodes is refused though its
    /// urgent link stands: the deployment is not compared yet, or the bulk link is away.
    #[must_use]
    pub fn lease_holder_away(&self) -> Option<String> {
        // The first deployment has the cluster's own keys.
        if let Some(reason) = self.overall.reason(Part::Agreement(0)) {
            return Some(reason);
        }
        match self.masters.find(&self.keys().nodes()) {
            Ok(at) => at.master.shared.health.reason(Line::Bulk),
            Err(nowhere) => Some(nowhere.to_string()),
        }
    }

    /// Why nobody gets a lease, where Redis says that in a word, or no master may be asked for it.
    #[must_use]
    pub fn lease_refused(&self) -> Option<BrokerError> {
        match self.masters.find(&self.keys().nodes()) {
            Ok(at) => {
                let refusal = at.master.shared.refusals.of(Line::Urgent);
                refusal.map(BrokerError::Refused)
            }
            Err(nowhere) => Some(nowhere.into()),
        }
    }

    /// The links to Redis: which server and what for, the state of its circuit, and why it is not
    /// closed.
    #[must_use]
    pub fn circuits(&self) -> Vec<(String, Phase, Option<Arc<str>>)> {
        let mut circuits = Vec::new();
        for master in self.masters.masters() {
            for CommandLink { link, purpose, .. } in master.shared.links().map(AsRef::as_ref) {
                let name = format!("{}, {}", link.server(), purpose.name());
                let circuit = link.circuit();
                circuits.push((name, circuit.phase(), circuit.reason()));
            }
            let name = format!(
                "{}, {}",
                master.shared.server(),
                Purpose::Publications.name()
            );
            let circuit = &master.shared.publications;
            circuits.push((name, circuit.phase(), circuit.reason()));
        }
        circuits
    }

    /// As [`crate::broker::Broker::check`].
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`], or [`BrokerError::Refused`] in Redis' own word.
    pub fn check(&self, topic: &Topic) -> Result<(), BrokerError> {
        let master = self.masters.find_topic(topic)?.master;
        match &*master.shared.health.watch().borrow() {
            // A join asks for the topic's last position.
            BrokerHealth::Up | BrokerHealth::ReadOnly(_) | BrokerHealth::Partly(_) => {
                Ok(master.shared.bulk.link.circuit().pass()?)
            }
            BrokerHealth::Down(reason) => {
                for link in master.shared.links() {
                    link.link.circuit().pass()?;
                }
                master.shared.publications.pass()?;
                if let Some(refusal) = master.shared.refusals.of(Line::Feed) {
                    return Err(BrokerError::Refused(refusal));
                }
                Err(Unavailable::Away(reason.clone()).into())
            }
        }
    }
}
