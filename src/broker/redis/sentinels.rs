//! Asks all sentinels at once where the master is, and believes the one that knows most.
//!
//! In: the sentinels' addresses, by the topology watcher. Out: the address with the highest epoch of those
//! that were answered, and how many answered. One connection to each sentinel, kept while it
//! answers. Bounds: one question a sentinel, in parallel; all answer within [`ANSWER_TIMEOUT`], and
//! once most have, the others get no longer than [`STRAGGLERS`], so that a sentinel that is cut off
//! delays nobody.
//!
//! Sentinel raises the epoch of a master with each failover. So one on the wrong side of a
//! partition, which still names the old master, is outvoted by any single one that knows better.
//!
//! One that does not answer for [`SILENT_FOR`] while another does is reported, in the log and to
//! [`Sentinels::silent`]: it may be misspelt, and would be missed only when the others go.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use super::guide::{ANSWER_TIMEOUT, AskError, Guide};
use super::topology::Topology;
use crate::config;
use crate::config::redis_url::RedisUrl;

/// How long the last ones are waited for.
const STRAGGLERS: Duration = Duration::from_millis(100);
/// How long one may keep silent untold.
const SILENT_FOR: Duration = Duration::from_secs(5);

/// What the sentinels said.
pub(super) struct Said {
    /// That of the highest epoch.
    pub(super) topology: Topology,
    /// How many answered.
    pub(super) answers_count: usize,
}

/// See the module.
#[derive(Default)]
pub(super) struct Sentinels {
    /// One for each host; `None` where the connection failed or was never begun.
    guides: Vec<Option<Guide>>,
    /// One for each host.
    silences: Vec<Silence>,
}

/// That a sentinel does not answer, while another does.
#[derive(Debug, Default)]
struct Silence {
    since: Option<Instant>,
    is_told: bool,
    why: String,
}

impl Silence {
    fn answered(&mut self, host: &str) {
        if std::mem::take(self).is_told {
            tracing::info!(
                event = "sentinel_answered",
                sentinel = host,
                "it answers again"
            );
        }
    }

    /// Did not answer at this time; why, where it is known.
    fn missed(&mut self, host: &str, why: Option<String>, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if let Some(why) = why {
            self.why = why;
        } else if self.why.is_empty() {
            self.why = "no answer came".to_owned();
        }
        if !self.is_told && now.saturating_duration_since(since) >= SILENT_FOR {
            self.is_told = true;
            tracing::warn!(
                event = "sentinel_missed",
                sentinel = host,
                reason = self.why,
                "a sentinel does not answer, others do"
            );
        }
    }
}

impl Sentinels {
    /// One question to each.
    ///
    /// # Errors
    /// What one of them said, with its address, when none answered.
    pub(super) async fn ask(
        &mut self,
        url: &RedisUrl,
        master: &str,
        settings: &config::Redis,
    ) -> Result<Said, (String, AskError)> {
        let asked = &url.hosts;
        self.guides.resize_with(asked.len(), || None);
        self.silences.resize_with(asked.len(), Silence::default);
        // What came of each; at first nothing.
        let mut missed: Vec<_> = asked.iter().map(|_| Some(None)).collect();
        let mut until = Instant::now() + ANSWER_TIMEOUT;
        let mut asking: FuturesUnordered<_> = self
            .guides
            .iter_mut()
            .zip(asked)
            .enumerate()
            .map(|(at, (guide, host))| async move {
                (at, ask_one(guide, url, host, master, settings).await)
            })
            .collect();
        let mut answers = Vec::new();
        let mut failed = None;
        while let Ok(Some((at, answer))) = timeout_at(until, asking.next()).await {
            match answer {
                Ok(topology) => {
                    missed[at] = None;
                    answers.push(topology);
                }
                Err(error) => {
                    missed[at] = Some(Some(error.to_string()));
                    failed = Some((asked[at].clone(), error));
                }
            }
            if answers.len() * 2 > asked.len() {
                until = until.min(Instant::now() + STRAGGLERS);
            }
        }
        drop(asking);
        let answers_count = answers.len();
        if answers_count > 0 {
            self.judge_silence(asked, missed);
        }
        match best(answers) {
            Some(topology) => Ok(Said {
                topology,
                answers_count,
            }),
            None => Err(failed.unwrap_or_else(|| (asked.join(", "), AskError::Timeout))),
        }
    }

    fn judge_silence(&mut self, hosts: &[String], missed: Vec<Option<Option<String>>>) {
        let now = Instant::now();
        for ((silence, host), missed) in self.silences.iter_mut().zip(hosts).zip(missed) {
            match missed {
                None => silence.answered(host),
                Some(why) => silence.missed(host, why, now),
            }
        }
    }

    /// Those that were reported not to answer, for people.
    pub(super) fn silent(&self, hosts: &[String]) -> Vec<String> {
        let told = self.silences.iter().zip(hosts);
        told.filter(|(silence, _)| silence.is_told)
            .map(|(silence, host)| format!("sentinel {host} does not answer: {}", silence.why))
            .collect()
    }
}

/// One that fails is connected anew with the next question.
async fn ask_one(
    guide: &mut Option<Guide>,
    url: &RedisUrl,
    host: &str,
    master: &str,
    settings: &config::Redis,
) -> Result<Topology, AskError> {
    let answer = question(guide, url, host, master, settings).await;
    if answer.is_err() {
        *guide = None;
    }
    answer
}

async fn question(
    guide: &mut Option<Guide>,
    url: &RedisUrl,
    host: &str,
    master: &str,
    settings: &config::Redis,
) -> Result<Topology, AskError> {
    if guide.is_none() {
        *guide = Some(Guide::connect(url, host.to_owned(), settings).await?);
    }
    let guide = guide.as_mut().expect("made just before");
    let details = guide.ask("SENTINEL", &["MASTER", master]).await;
    let words = ["GET-MASTER-ADDR-BY-NAME", master];
    let address = guide.ask("SENTINEL", &words).await?;
    // The second answer says best that there is no such master.
    let details = match details {
        Err(_) if address.is_null() => fred::types::Value::Null,
        details => details?,
    };
    Ok(Topology::of_sentinel(&details, &address, master)?)
}

/// The one of the highest epoch; of several the one that most give.
fn best(answers: Vec<Topology>) -> Option<Topology> {
    let weight = |topology: &Topology| {
        let same = answers.iter().filter(|other| *other == topology);
        (topology.epoch, same.count())
    };
    answers
        .iter()
        .max_by_key(|topology| weight(topology))
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(address: &str, epoch: u64) -> Topology {
        Topology {
            epoch,
            ..Topology::of_one(address.to_owned())
        }
    }

    #[test]
    fn a_sentinel_that_keeps_silent_is_told_until_it_answers() {
        let hosts = ["a:1".to_owned(), "b:1".to_owned()];
        let mut sentinels = Sentinels::default();
        sentinels.silences.resize_with(2, Silence::default);
        let now = Instant::now();
        let refused = || Some("refused".to_owned());
        sentinels.silences[1].missed("b:1", refused(), now);
        assert!(sentinels.silent(&hosts).is_empty());
        sentinels.silences[1].missed("b:1", None, now + SILENT_FOR);
        let told = ["sentinel b:1 does not answer: refused".to_owned()];
        assert_eq!(sentinels.silent(&hosts), told);
        sentinels.silences[1].answered("b:1");
        sentinels.silences[1].missed("b:1", refused(), now + 2 * SILENT_FOR);
        assert!(sentinels.silent(&hosts).is_empty());
    }

    #[test]
    fn the_highest_epoch_wins_however_few_know_it() {
        let [old, new] = [topology("old:1", 3), topology("new:1", 4)];
        let said = best(vec![old.clone(), new.clone(), old.clone()]);
        assert_eq!(said, Some(new));
        // While one of them is told of a new address, most are believed.
        let early = topology("early:1", 3);
        assert_eq!(best(vec![old.clone(), early, old.clone()]), Some(old));
        assert_eq!(best(Vec::new()), None);
    }
}
