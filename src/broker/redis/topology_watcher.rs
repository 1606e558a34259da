//! Follows a deployment whose masters change: asks a sentinel or a node of the cluster.
//!
//! In: answers of all sentinels, or of one host of the configuration or a known master of a cluster;
//! word from the links that keys are somewhere else. Out: topologies for [`Masters::take`], and why there
//! is none. One task a deployment, owner of one connection at a time, with sentinels of one to each.
//! Bounds: one question at a time to each, every [`LOOK_EVERY`], sooner when a link was refused but
//! at most every [`PACE`]; an answer comes within [`ANSWER_TIMEOUT`] or the next host is asked.
//!
//! A host may be cut off from the others and answer from the past. So all sentinels are asked
//! (`sentinels.rs`), and another node of a cluster whenever a master does not answer. An answer with
//! an older epoch than was seen before is believed only when it is given as often as there are hosts
//! (all was made anew), and by most of the sentinels. A connection that failed is not waited for: why
//! it failed is reported, and the next host is asked.

use std::sync::Arc;
use std::time::Duration;

use fred::types::Value;
use tokio::sync::watch;

use super::aggregate_health::Part;
use super::guide::{ANSWER_TIMEOUT, AskError, Guide};
use super::link::stopped;
use super::master::MasterContext;
use super::masters::{Deployment, Masters};
use super::sentinels::{Said, Sentinels};
use super::topology::Topology;
use crate::broker::BrokerHealth;
use crate::config::redis_url::RedisForm;
use crate::redis::nowhere::{Kind, Nowhere};
use crate::redis::refusal::Refusal;

/// How often the masters are asked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Least time between two questions.
const PACE: Duration = Duration::from_millis(50);
/// Which answers are believed.
#[derive(Debug, Default)]
struct Belief {
    newest_epoch: u64,
    stale_in_a_row: usize,
}

impl Belief {
    /// `are_most`: it is said by enough for what is older to count at all.
    fn accepts(&mut self, epoch: u64, hosts_count: usize, are_most: bool) -> bool {
        let is_stale = epoch < self.newest_epoch;
        if is_stale && !are_most {
            return false;
        }
        self.stale_in_a_row = if is_stale { self.stale_in_a_row + 1 } else { 0 };
        if is_stale && self.stale_in_a_row <= hosts_count {
            return false;
        }
        self.newest_epoch = epoch;
        true
    }
}

struct TopologyWatcher {
    masters: Arc<Masters>,
    at: usize,
    context: MasterContext,
    /// Of a cluster, one host that is asked.
    guide: Option<Guide>,
    sentinels: Sentinels,
    /// How many hosts were tried, to take the next in turn.
    tried: usize,
    belief: Belief,
    refused_in_a_row: usize,
    is_coverage_read: bool,
    /// A link was told that its keys are somewhere else.
    is_doubted: bool,
    /// In which word those that are asked refuse.
    refusal: Option<&'static Refusal>,
}

/// Follows the deployment at this place of the list until `stop` turns true.
pub async fn follow(
    masters: Arc<Masters>,
    at: usize,
    context: MasterContext,
    mut stop: watch::Receiver<bool>,
) {
    let misplaced = Arc::clone(&masters.deployments()[at].misplaced);
    let mut watcher = TopologyWatcher {
        masters,
        at,
        context,
        guide: None,
        sentinels: Sentinels::default(),
        tried: 0,
        belief: Belief::default(),
        refused_in_a_row: 0,
        is_coverage_read: false,
        is_doubted: false,
        refusal: None,
    };
    // The first wait ends at a random moment, so that nodes which start together ask apart.
    let mut rest = LOOK_EVERY.mul_f64(rand::random::<f64>());
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            () = watcher.look() => {}
        }
        tokio::select! {
            () = stopped(&mut stop) => break,
            () = tokio::time::sleep(PACE) => {}
        }
        tokio::select! {
            () = stopped(&mut stop) => break,
            () = misplaced.notified() => watcher.is_doubted = true,
            () = tokio::time::sleep(rest.saturating_sub(PACE)) => {}
        }
        rest = LOOK_EVERY;
    }
    watcher.refuses(None);
}

impl TopologyWatcher {
    fn deployment(&self) -> &Deployment {
        &self.masters.deployments()[self.at]
    }

    /// One question, and what follows from its answer.
    async fn look(&mut self) {
        // Those who ask sentinels keep the time themselves.
        let asked = tokio::time::timeout(ANSWER_TIMEOUT * 2, self.ask()).await;
        let answer = asked.unwrap_or_else(|_| Err(self.failed(AskError::Timeout)));
        let is_doubted = std::mem::take(&mut self.is_doubted);
        let mut is_new = false;
        let hosts_count = self.hosts().len();
        match answer {
            Ok(said) if self.believes(&said, hosts_count) => {
                self.refused_in_a_row = 0;
                self.refuses(None);
                match self.masters.take(self.at, said.topology, &self.context) {
                    Ok(taken) => is_new = taken,
                    Err(error) => self.refuse("", &error, None),
                }
            }
            Ok(_) => self.guide = None,
            Err((host, error)) => self.refuse(&host, &error, error.refusal()),
        }
        // The one that answers may be as cut off as the master that does not.
        let is_away = self
            .deployment()
            .masters()
            .iter()
            .any(|master| !master.is_up());
        if is_away || (is_doubted && !is_new) {
            self.guide = None;
        }
    }

    /// Whether what was said may be taken. What is older than what was seen before is believed only
    /// when it is said again and again, and never by a few of several sentinels.
    fn believes(&mut self, said: &Said, hosts_count: usize) -> bool {
        let is_sentinel = matches!(self.deployment().url().form, RedisForm::Sentinel { .. });
        let are_most = !is_sentinel || said.answers_count * 2 > hosts_count;
        let epoch = said.topology.epoch;
        self.belief.accepts(epoch, hosts_count, are_most)
    }

    /// The host that is asked now, and why it did not answer.
    fn failed(&self, error: AskError) -> (String, AskError) {
        let host = self.guide.as_ref().map(|guide| guide.host.clone());
        (host.unwrap_or_default(), error)
    }

    /// In which word those that are asked refuse now.
    fn refuses(&mut self, now: Option<&'static Refusal>) {
        let control = &self.context.metrics.control;
        if let Some(word) = std::mem::replace(&mut self.refusal, now) {
            (word.gauge)(control).sub(1);
        }
        if let Some(word) = now {
            (word.gauge)(control).add(1);
        }
    }

    /// What is known goes on being used; without that, Redis is away.
    fn refuse(
        &mut self,
        host: &str,
        error: &dyn std::error::Error,
        refusal: Option<&'static Refusal>,
    ) {
        self.guide = None;
        self.refuses(refusal);
        let name = &self.deployment().url().name;
        let why = format!("{host}: {error}");
        let masterless = Nowhere::new(Kind::Masterless, name).because(&why, refusal);
        let reason = masterless.to_string();
        if self.deployment().masters().is_empty() {
            self.deployment().set_masterless(masterless);
            let down = BrokerHealth::Down(reason.clone());
            self.context.overall.set(Part::Deployment(self.at), down);
        }
        self.refused_in_a_row += 1;
        if self.refused_in_a_row == self.hosts().len() {
            tracing::warn!(
                event = "redis_masters_missed",
                reason,
                "nobody says where the masters of Redis are; those that are known go on being used"
            );
        }
    }

    /// Who can be asked, the configured ones first.
    fn hosts(&self) -> Vec<String> {
        let deployment = self.deployment();
        let mut hosts = deployment.url().hosts.clone();
        if deployment.url().form == RedisForm::Cluster {
            let known = deployment.addresses();
            hosts.extend(
                known
                    .into_iter()
                    .filter(|host| !deployment.url().hosts.contains(host)),
            );
        }
        hosts
    }

    async fn ask(&mut self) -> Result<Said, (String, AskError)> {
        let deployment = &self.masters.deployments()[self.at];
        if let RedisForm::Sentinel { master } = &deployment.url().form {
            let settings = &self.context.settings;
            let said = self.sentinels.ask(deployment.url(), master, settings).await;
            deployment.set_silent(self.sentinels.silent(&deployment.url().hosts));
            return said;
        }
        match self.ask_node().await {
            Ok(topology) => Ok(Said {
                topology,
                answers_count: 1,
            }),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Asks one node of a cluster.
    async fn ask_node(&mut self) -> Result<Topology, AskError> {
        if self.guide.is_none() {
            let hosts = self.hosts();
            let host = hosts[self.tried % hosts.len()].clone();
            self.tried += 1;
            let url = self.deployment().url();
            let connecting = Guide::connect(url, host, &self.context.settings);
            self.guide = Some(connecting.await?);
        }
        let guide = self.guide.as_mut().expect("made just before");
        let slots = guide.ask("CLUSTER", &["SLOTS"]).await?;
        let nodes = guide.ask("CLUSTER", &["NODES"]).await?;
        if !self.is_coverage_read {
            let name = "cluster-require-full-coverage";
            let answer = guide.ask("CONFIG", &["GET", name]).await;
            judge_coverage(answer);
            self.is_coverage_read = true;
        }
        let host = guide.host.rsplit_once(':').map_or("", |(host, _)| host);
        Ok(Topology::of_cluster(&slots, &nodes, host)?)
    }
}

/// With full coverage required, the death of one master stops them all. A server that refuses to
/// tell is left alone.
fn judge_coverage(answer: Result<Value, AskError>) {
    let setting = match answer {
        Ok(Value::Map(map)) => map.iter().next().and_then(|(_, value)| value.as_string()),
        Ok(Value::Array(pair)) => pair.get(1).and_then(Value::as_string),
        _ => None,
    };
    if setting.as_deref() == Some("yes") {
        tracing::warn!(
            event = "redis_full_coverage_required",
            "one master that is away stops all of the cluster: set cluster-require-full-coverage \
             to no, and only its own topics wait"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_from_the_past_is_believed_only_when_every_host_gives_such_a_one() {
        let mut belief = Belief::default();
        assert!(belief.accepts(7, 3, true));
        assert!(!belief.accepts(5, 3, true));
        assert!(belief.accepts(7, 3, true));
        assert!(belief.accepts(8, 3, true));
        for _ in 0..9 {
            assert!(!belief.accepts(2, 3, false));
        }
        for _ in 0..3 {
            assert!(!belief.accepts(2, 3, true));
        }
        assert!(belief.accepts(2, 3, true));
        assert!(belief.accepts(2, 3, true));
    }
}
