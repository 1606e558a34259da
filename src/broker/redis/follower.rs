//! Follows a deployment whose masters change: asks a sentinel or a node of the cluster.
//!
//! In: answers of one of the hosts of the configuration or, in a cluster, of a known master; word
//! from the links that keys are somewhere else. Out: layouts for [`Links::take`], and why there is
//! none. One task a deployment, owner of one connection at a time. Bounds: one question at a time,
//! every [`LOOK_EVERY`], sooner when a link was refused but at most every [`PACE`]; an answer comes
//! within [`ANSWER_TIMEOUT`] or the next host is asked.
//!
//! A host may be cut off from the others and answer from the past. So another one is asked whenever
//! a master does not answer, and in a cluster an answer with an older epoch than was seen before is
//! believed only when every host gives such a one (the cluster was made anew). A connection that
//! failed is not waited for: why it failed is told, and the next host is asked.

use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::config::Server;
use fred::types::{ClusterHash, ConnectHandle, CustomCommand, Value};
use tokio::sync::{broadcast, watch};

use super::layout::{Layout, LayoutError};
use super::link::stopped;
use super::links::{Deployment, Links};
use super::overall::Part;
use super::pair::Common;
use crate::broker::BrokerHealth;
use crate::config::redis_url::RedisForm;
use crate::config::{self, Secret};
use crate::redis::{RedisError, access, clients};

/// How often the masters are asked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Least time between two questions.
const PACE: Duration = Duration::from_millis(50);
/// Longest wait for a connection and an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a host did not say where the masters are.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("no answer within {ANSWER_TIMEOUT:?}")]
    Timeout,
    #[error("{}", access::explain(.0))]
    Connection(Error),
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// A connection to the host that is asked.
struct Guide {
    host: String,
    client: Client,
    task: ConnectHandle,
    errors: broadcast::Receiver<(Error, Option<Server>)>,
}

impl Drop for Guide {
    fn drop(&mut self) {
        // Dropping a client does not end its task; aborting it closes the socket.
        self.task.abort();
    }
}

/// Which answers are believed.
#[derive(Debug, Default)]
struct Belief {
    newest_epoch: u64,
    stale_in_a_row: usize,
}

impl Belief {
    fn accepts(&mut self, epoch: u64, hosts_count: usize) -> bool {
        let is_stale = epoch < self.newest_epoch;
        self.stale_in_a_row = if is_stale { self.stale_in_a_row + 1 } else { 0 };
        if is_stale && self.stale_in_a_row <= hosts_count {
            return false;
        }
        self.newest_epoch = epoch;
        true
    }
}

struct Follower {
    links: Arc<Links>,
    at: usize,
    common: Common,
    guide: Option<Guide>,
    /// How many hosts were tried, to take the next in turn.
    tried: usize,
    belief: Belief,
    refused_in_a_row: usize,
    is_coverage_read: bool,
    /// A link was told that its keys are somewhere else.
    is_doubted: bool,
}

/// Follows the deployment at this place of the list until `stop` turns true.
pub async fn follow(links: Arc<Links>, at: usize, common: Common, mut stop: watch::Receiver<bool>) {
    let misplaced = Arc::clone(&links.deployments()[at].misplaced);
    let mut follower = Follower {
        links,
        at,
        common,
        guide: None,
        tried: 0,
        belief: Belief::default(),
        refused_in_a_row: 0,
        is_coverage_read: false,
        is_doubted: false,
    };
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = follower.look() => {}
        }
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(PACE) => {}
        }
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = misplaced.notified() => follower.is_doubted = true,
            () = tokio::time::sleep(LOOK_EVERY - PACE) => {}
        }
    }
}

impl Follower {
    fn deployment(&self) -> &Deployment {
        &self.links.deployments()[self.at]
    }

    /// One question, and what follows from its answer.
    async fn look(&mut self) {
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, self.ask()).await;
        let layout = asked.unwrap_or(Err(AskError::Timeout));
        let is_doubted = std::mem::take(&mut self.is_doubted);
        let mut is_new = false;
        let hosts_count = self.hosts().len();
        match layout {
            Ok(layout) if self.belief.accepts(layout.epoch, hosts_count) => {
                self.refused_in_a_row = 0;
                match self.links.take(self.at, layout, &self.common) {
                    Ok(taken) => is_new = taken,
                    Err(error) => self.refuse(&error),
                }
            }
            Ok(_) => self.guide = None,
            Err(error) => self.refuse(&error),
        }
        // The one that answers may be as cut off as the master that does not.
        let is_away = self.deployment().pairs().iter().any(|pair| !pair.is_up());
        if is_away || (is_doubted && !is_new) {
            self.guide = None;
        }
    }

    /// What is known goes on being used; without that, Redis is away.
    fn refuse(&mut self, error: &dyn std::error::Error) {
        let guide = self.guide.take();
        let host = guide.as_ref().map_or("", |guide| guide.host.as_str());
        let name = &self.deployment().url().name;
        let reason = format!("the masters of Redis {name} are not known; {host}: {error}");
        if self.deployment().pairs().is_empty() {
            let down = BrokerHealth::Down(reason.clone());
            self.common.overall.set(Part::Deployment(self.at), down);
        }
        self.refused_in_a_row += 1;
        if self.refused_in_a_row == self.hosts().len() {
            tracing::warn!(
                event = "redis_masters_unknown",
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

    async fn ask(&mut self) -> Result<Layout, AskError> {
        if self.guide.is_none() {
            let hosts = self.hosts();
            let host = hosts[self.tried % hosts.len()].clone();
            self.tried += 1;
            self.guide = Some(self.connect(host)?);
        }
        let form = self.deployment().url().form.clone();
        let guide = self.guide.as_mut().expect("made just before");
        match &form {
            RedisForm::Single => Ok(Layout::of_one(guide.host.clone())),
            RedisForm::Sentinel { master } => {
                let words = ["GET-MASTER-ADDR-BY-NAME", master];
                let answer = guide.ask("SENTINEL", &words).await?;
                Ok(Layout::of_sentinel(&answer, master)?)
            }
            RedisForm::Cluster => {
                let slots = guide.ask("CLUSTER", &["SLOTS"]).await?;
                let nodes = guide.ask("CLUSTER", &["NODES"]).await?;
                if !self.is_coverage_read {
                    let name = "cluster-require-full-coverage";
                    let answer = guide.ask("CONFIG", &["GET", name]).await;
                    judge_coverage(answer);
                    self.is_coverage_read = true;
                }
                let host = guide.host.rsplit_once(':').map_or("", |(host, _)| host);
                Ok(Layout::of_cluster(&slots, &nodes, host)?)
            }
        }
    }

    fn connect(&self, host: String) -> Result<Guide, RedisError> {
        let url = self.deployment().url();
        let mut settings = config::Redis {
            url: Some(Secret(url.guide(&host))),
            ..self.common.settings.clone()
        };
        if matches!(url.form, RedisForm::Sentinel { .. }) {
            // A sentinel has users of its own, which its URL names.
            settings.access.user = None;
            settings.access.password_file = None;
        }
        let client = clients::command_client(&settings)?;
        Ok(Guide {
            host,
            errors: client.error_rx(),
            task: client.connect(),
            client,
        })
    }
}

impl Guide {
    /// The first question waits for the connection, or for why there is none.
    async fn ask(&mut self, name: &'static str, words: &[&str]) -> Result<Value, AskError> {
        let command = CustomCommand::new_static(name, ClusterHash::Random, false);
        let words: Vec<Value> = words.iter().map(|word| Value::from(*word)).collect();
        tokio::select! {
            // What ended the connection says more than that the question was not answered.
            biased;
            Ok((error, _)) = self.errors.recv() => Err(AskError::Connection(error)),
            answer = self.client.custom(command, words) => Ok(answer.map_err(RedisError::of)?),
        }
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
            event = "redis_full_coverage",
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
        assert!(belief.accepts(7, 3));
        assert!(!belief.accepts(5, 3));
        assert!(belief.accepts(7, 3));
        assert!(belief.accepts(8, 3));
        for _ in 0..3 {
            assert!(!belief.accepts(2, 3));
        }
        assert!(belief.accepts(2, 3));
        assert!(belief.accepts(2, 3));
    }
}
