//! Whether this node and the cluster agree on what they must have in common.
//!
//! In: the [`Fingerprint`]s in each deployment of Redis, and this node's own. Out: deployments that
//! may be used ([`Masters::agree`]), or a [`Disagreement`], upon which the node ends. Nothing of a
//! deployment is used before: no topic, no lease, only the probes of its connections. One task a
//! node; owns nothing else. Bounds: one question a deployment at a time, every [`LOOK_EVERY`] until
//! all agree, then every [`CHECK_EVERY`], because Redis may lose the fingerprint, which is written
//! again then.
//!
//! Where a deployment has no fingerprint it is written, if nothing speaks against it: the cluster
//! knows the deployment under these hosts, or every deployment was read and has none. So the very
//! first start of a cluster needs all of them, a later one does not.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::aggregate_health::{AggregateHealth, Part};
use super::fingerprint::{Difference, Fingerprint};
use super::link::stopped;
use super::masters::Masters;
use crate::broker::BrokerHealth;
use crate::redis::RedisError;
use crate::redis::nowhere::{Kind, Nowhere};
use crate::telemetry::fields::List;

/// How soon a deployment that does not answer is asked again.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often all are looked at once they agree.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// Where this node differs from the cluster; it must not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disagreement {
    /// In which deployment that was found.
    pub deployment: String,
    /// At least one.
    pub differences: Vec<Difference>,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let differences: Vec<_> = self.differences.iter().map(ToString::to_string).collect();
        let differences = differences.join("; ");
        write!(f, "{differences} (found in Redis {})", self.deployment)
    }
}

/// What was found in one deployment.
type Found = Result<Option<String>, RedisError>;

/// The task's parts.
#[derive(Debug)]
pub struct Agreement {
    /// The deployments.
    pub masters: Arc<Masters>,
    /// Where it is reported which deployment waits to be compared.
    pub overall: Arc<AggregateHealth>,
    /// This node's fingerprints, one a deployment.
    pub prints: Vec<Fingerprint>,
}

/// What a round came to.
enum Round {
    /// All agree.
    Agreed,
    /// Something could not be read or written yet.
    Open,
    /// Something was written: look at once what all say now.
    Again,
}

impl Agreement {
    /// Compares until `stop` turns true or there is a difference, which `told` gets.
    pub async fn run(
        self,
        told: watch::Sender<Option<Arc<Disagreement>>>,
        mut stop: watch::Receiver<bool>,
    ) {
        for at in 0..self.prints.len() {
            self.show(at, self.uncompared(at).to_string());
        }
        loop {
            let pause = match self.round().await {
                Ok(Round::Again) => Duration::ZERO,
                Ok(Round::Agreed) => CHECK_EVERY,
                Ok(Round::Open) if self.all_agree() => CHECK_EVERY,
                Ok(Round::Open) => LOOK_EVERY,
                Err(disagreement) => {
                    self.masters.disagree();
                    tracing::error!(
                        event = "configuration_differed",
                        deployment = disagreement.deployment,
                        differences = List::of(&disagreement.differences).value(),
                        "this node does not agree with the cluster and must not run"
                    );
                    told.send_replace(Some(Arc::new(disagreement)));
                    return;
                }
            };
            tokio::select! {
                () = stopped(&mut stop) => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Says why a deployment is not compared yet: to callers, and to operators where its connections
    /// do not say it.
    fn explain(&self, at: usize, what: &str, error: &RedisError) {
        use RedisError::{Failed, Moved, NotDone, ReadOnly};
        if self.masters.agrees(at) {
            return;
        }
        let is_news = self
            .masters
            .postpone(at, Nowhere::uncompared(self.name(at), error));
        let is_told_elsewhere = match error {
            Failed(_) | NotDone(_) | Moved(_) | ReadOnly(_) => false,
            RedisError::Nowhere(nowhere) => nowhere.kind != Kind::Unserved,
            _ => true,
        };
        if is_told_elsewhere {
            return self.show(at, self.uncompared(at).to_string());
        }
        let key = self.masters.keys().fingerprint();
        let reason = format!("{key} in Redis {} cannot be {what}: {error}", self.name(at));
        // A connection that has just gone is reported by its supervisor.
        let is_lasting = !matches!(error, NotDone(_)) || error.refusal().is_some();
        if is_news && is_lasting {
            tracing::warn!(
                event = "comparison_failed",
                deployment = self.name(at),
                reason,
                "a deployment of Redis cannot be compared, and is not used"
            );
        }
        self.show(at, reason);
    }

    /// Says that a deployment which has nothing yet waits for the others, without which nobody
    /// knows whether the cluster is new.
    fn await_others(&self, at: usize, found: &[Found]) {
        let others = found.iter().enumerate();
        let missing = others.filter_map(|(at, found)| Some((self.name(at), found.as_ref().err()?)));
        let missing = missing.max_by_key(|(_, error)| error.refusal().is_some());
        if let Some((name, error)) = missing {
            let why = format!("its first start needs Redis {name} too");
            let waits = self.uncompared(at).because(&why, error.refusal());
            self.show(at, waits.to_string());
            self.masters.postpone(at, waits);
        }
    }

    fn show(&self, at: usize, reason: String) {
        self.overall
            .set(Part::Agreement(at), BrokerHealth::Down(reason));
    }

    fn uncompared(&self, at: usize) -> Nowhere {
        Nowhere::new(Kind::Uncompared, self.name(at))
    }

    async fn round(&self) -> Result<Round, Disagreement> {
        let found = self.read().await;
        let mut is_open = false;
        for (at, stored) in found.iter().enumerate() {
            let stored = match stored {
                Ok(Some(stored)) => stored,
                Ok(None) => {
                    is_open = true;
                    continue;
                }
                Err(error) => {
                    is_open = true;
                    self.explain(at, "read", error);
                    continue;
                }
            };
            let differences = self.prints[at].differences(stored);
            if !differences.is_empty() {
                return Err(self.disagreement(at, differences));
            }
        }
        for at in 0..found.len() {
            match &found[at] {
                Ok(Some(_)) => self.agreed(at),
                Ok(None) if self.may_write(at, &found)? => match self.write(at).await {
                    Ok(()) => return Ok(Round::Again),
                    Err(error) => self.explain(at, "written", &error),
                },
                Ok(None) => self.await_others(at, &found),
                Err(_) => {}
            }
        }
        Ok(if is_open { Round::Open } else { Round::Agreed })
    }

    /// What lies in each deployment.
    pub(super) async fn read(&self) -> Vec<Found> {
        let looks = (0..self.prints.len()).map(|at| self.look(at));
        futures_util::future::join_all(looks).await
    }

    async fn look(&self, at: usize) -> Found {
        let keys = self.masters.keys();
        let found = self.get(at, &keys.fingerprint()).await?;
        if found.is_some() && self.masters.agrees(at) {
            return Ok(found);
        }
        let before = match self.get(at, &keys.fingerprint_before()).await {
            Err(error) if found.is_none() => return Err(error),
            before => before.ok().flatten(),
        };
        // Nodes of earlier releases agreed on it, and may run.
        let differs = |stored: &String| !self.prints[at].differences(stored).is_empty();
        Ok(before.filter(differs).or(found))
    }

    async fn get(&self, at: usize, key: &str) -> Found {
        let link = self.masters.reach(at, key)?;
        let answer = link.command("GET", key, &[]).await?;
        // Another program's key is reported as one that cannot be read.
        Ok(answer.convert().unwrap_or_else(|_| Some(String::new())))
    }

    /// Whether the deployment at this place, which has no fingerprint, is surely the cluster's or
    /// surely new.
    fn may_write(&self, at: usize, found: &[Found]) -> Result<bool, Disagreement> {
        let mut others = found.iter().flatten().flatten().peekable();
        if others.peek().is_none() {
            return Ok(self.masters.agrees(at) || found.iter().all(Result::is_ok));
        }
        match others.find_map(|other| self.prints[at].moved_from(other)) {
            Some(difference) => Err(self.disagreement(at, vec![difference])),
            None => Ok(true),
        }
    }

    async fn write(&self, at: usize) -> Result<(), RedisError> {
        self.set(at, &[b"NX".to_vec()]).await
    }

    /// Writes this node's fingerprints, whatever lies there.
    pub(super) async fn overwrite(&self) -> Result<(), RedisError> {
        for at in 0..self.prints.len() {
            self.set(at, &[]).await?;
        }
        Ok(())
    }

    /// Where nodes of earlier releases look first, so that none that differs starts beside this one.
    async fn set(&self, at: usize, options: &[Vec<u8>]) -> Result<(), RedisError> {
        let keys = self.masters.keys();
        let text = self.prints[at].text().into_bytes();
        let args = [&[text], options].concat();
        for key in [keys.fingerprint_before(), keys.fingerprint()] {
            let link = self.masters.reach(at, &key)?;
            link.command("SET", &key, &args).await?;
        }
        Ok(())
    }

    fn all_agree(&self) -> bool {
        (0..self.prints.len()).all(|at| self.masters.agrees(at))
    }

    fn agreed(&self, at: usize) {
        if self.masters.agree(at) {
            self.overall.forget(Part::Agreement(at));
            tracing::info!(
                event = "deployment_compared",
                deployment = self.name(at),
                "this node and the cluster agree, the deployment of Redis is used"
            );
        }
    }

    fn disagreement(&self, at: usize, differences: Vec<Difference>) -> Disagreement {
        Disagreement {
            deployment: self.name(at).to_owned(),
            differences,
        }
    }

    fn name(&self, at: usize) -> &str {
        &self.masters.deployments()[at].url().name
    }
}
