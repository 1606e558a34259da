//! Asks all sentinels at once where the master is, and believes the one that knows most.
//!
//! In: the sentinels' addresses, by the follower. Out: the address with the highest epoch of those
//! that were answered, and how many answered. One connection to each sentinel, kept while it
//! answers. Bounds: one question a sentinel, in parallel; all answer within [`ANSWER_TIMEOUT`], and
//! once most have, the others get no longer than [`STRAGGLERS`], so that a sentinel that is cut off
//! delays nobody.
//!
//! Sentinel raises the epoch of a master with each failover. So one on the wrong side of a
//! partition, which still names the old master, is outvoted by any single one that knows better.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use super::guide::{ANSWER_TIMEOUT, AskError, Guide};
use super::layout::Layout;
use crate::config;
use crate::config::redis_url::RedisUrl;

/// How long the last ones are waited for.
const STRAGGLERS: Duration = Duration::from_millis(100);

/// What the sentinels said.
pub(super) struct Said {
    /// That of the highest epoch.
    pub(super) layout: Layout,
    /// How many answered.
    pub(super) answers_count: usize,
}

/// See the module.
#[derive(Default)]
pub(super) struct Sentinels {
    /// One for each host; `None` where the connection failed or was never begun.
    guides: Vec<Option<Guide>>,
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
        let mut until = Instant::now() + ANSWER_TIMEOUT;
        let mut asking: FuturesUnordered<_> = self
            .guides
            .iter_mut()
            .zip(asked)
            .map(|(guide, host)| ask_one(guide, url, host, master, settings))
            .collect();
        let mut answers = Vec::new();
        let mut failed = None;
        while let Ok(Some((host, answer))) = timeout_at(until, asking.next()).await {
            match answer {
                Ok(layout) => answers.push(layout),
                Err(error) => failed = Some((host, error)),
            }
            if answers.len() * 2 > asked.len() {
                until = until.min(Instant::now() + STRAGGLERS);
            }
        }
        let answers_count = answers.len();
        match best(answers) {
            Some(layout) => Ok(Said {
                layout,
                answers_count,
            }),
            None => Err(failed.unwrap_or_else(|| (asked.join(", "), AskError::Timeout))),
        }
    }
}

/// One that fails is connected anew with the next question.
async fn ask_one(
    guide: &mut Option<Guide>,
    url: &RedisUrl,
    host: &str,
    master: &str,
    settings: &config::Redis,
) -> (String, Result<Layout, AskError>) {
    let answer = question(guide, url, host, master, settings).await;
    if answer.is_err() {
        *guide = None;
    }
    (host.to_owned(), answer)
}

async fn question(
    guide: &mut Option<Guide>,
    url: &RedisUrl,
    host: &str,
    master: &str,
    settings: &config::Redis,
) -> Result<Layout, AskError> {
    if guide.is_none() {
        *guide = Some(Guide::connect(url, host.to_owned(), settings)?);
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
    Ok(Layout::of_sentinel(&details, &address, master)?)
}

/// The one of the highest epoch; of several the one that most give.
fn best(answers: Vec<Layout>) -> Option<Layout> {
    let weight = |layout: &Layout| {
        let same = answers.iter().filter(|other| *other == layout);
        (layout.epoch, same.count())
    };
    answers.iter().max_by_key(|layout| weight(layout)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(address: &str, epoch: u64) -> Layout {
        Layout {
            epoch,
            ..Layout::of_one(address.to_owned())
        }
    }

    #[test]
    fn the_highest_epoch_wins_however_few_know_it() {
        let [old, new] = [layout("old:1", 3), layout("new:1", 4)];
        let said = best(vec![old.clone(), new.clone(), old.clone()]);
        assert_eq!(said, Some(new));
        // While one of them is told of a new address, most are believed.
        let early = layout("early:1", 3);
        assert_eq!(best(vec![old.clone(), early, old.clone()]), Some(old));
        assert_eq!(best(Vec::new()), None);
    }
}
