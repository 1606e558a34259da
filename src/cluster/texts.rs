//! What nodes keep and promise, as texts that lie in Redis apart from the heartbeats.
//!
//! In: this node's text (`keeping`), and the digests that others say with their heartbeats. Out: the
//! texts of these, as far as they could be read. A node writes its text when it joins and now and
//! then, and reads another one once; it forgets a text with the last node that says it, and Redis
//! does some time after that ([`KEPT`]). Heartbeats do not wait for any of it: a digest without a text is not
//! compared. Owner of the task: the control runtime. Bounds: [`TEXTS_MAX`] texts of up to
//! [`TEXT_BYTES_MAX`], of which [`READ_MAX`] are asked for at once; one that cannot be read is asked
//! for more and more seldom, at most every [`LOOKS_MAX`] heartbeats.
//!
//! Keys: `{ff:nodes}:s:DIGEST`, with the tag of the nodes' other keys.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sha1::{Digest as _, Sha1};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

use super::view::View;
use crate::redis::holders::read;
use crate::redis::keyspace::Keyspace;
use crate::redis::{Keys, RedisError};

/// How long Redis keeps a text that nobody writes again.
const KEPT: Duration = Duration::from_secs(3_600);
/// A node writes its text again after this: Redis may have lost it.
const WRITTEN_AFTER: Duration = Duration::from_secs(600);
const TEXTS_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 64 * 1_024;
const READ_MAX: usize = 16;
const LOOKS_MAX: u32 = 64;

/// By their digests.
type Known = BTreeMap<String, Arc<str>>;

/// What this node says, and the digest of that.
#[derive(Debug, Clone, Default)]
pub(super) struct Own {
    pub(super) text: Arc<str>,
    pub(super) digest: Arc<str>,
}

impl Own {
    fn new(text: &str) -> Self {
        Self {
            text: text.into(),
            digest: digest(text).into(),
        }
    }
}

/// The handle: what this node says, and what was read of others. Cheap to clone; by default a node
/// that says nothing.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    own: Arc<watch::Sender<Own>>,
    known: Arc<watch::Sender<Arc<Known>>>,
}

impl Texts {
    /// This node keeps and promises this.
    #[must_use]
    pub fn new(own: &str) -> Self {
        Self {
            own: Arc::new(watch::Sender::new(Own::new(own))),
            known: Arc::default(),
        }
    }

    /// From now on it keeps and promises this.
    pub fn say(&self, own: &str) {
        self.own.send_replace(Own::new(own));
    }

    /// The digest of its text, to be said with heartbeats.
    #[must_use]
    pub fn digest(&self) -> Arc<str> {
        Arc::clone(&self.own.borrow().digest)
    }

    /// Its text.
    pub(super) fn own(&self) -> Own {
        self.own.borrow().clone()
    }

    /// The texts of others, by their digests.
    pub(super) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.borrow())
    }

    /// The task that writes and reads them. The caller runs it; it ends with the view.
    #[must_use]
    pub fn share(
        &self,
        view: watch::Receiver<Arc<View>>,
        keyspace: impl Into<Keyspace>,
        keys: &Keys,
    ) -> TextsTask {
        TextsTask {
            texts: self.clone(),
            view,
            keyspace: keyspace.into(),
            nodes_key: keys.nodes(),
            written: None,
            reading: Reading::default(),
        }
    }

    /// With these texts of others.
    #[cfg(test)]
    pub(super) fn knowing(own: &str, others: &[&str]) -> Self {
        let texts = Self::new(own);
        let known = others.iter().map(|text| (digest(text), (*text).into()));
        texts.known.send_replace(Arc::new(known.collect()));
        texts
    }
}

/// Two texts with the same digest are the same.
pub(super) fn digest(text: &str) -> String {
    let hash = Sha1::digest(text.as_bytes());
    hash.iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The task of [`Texts`].
#[derive(Debug)]
pub struct TextsTask {
    texts: Texts,
    view: watch::Receiver<Arc<View>>,
    keyspace: Keyspace,
    nodes_key: String,
    /// Under which incarnation this node's text was written last, when, and which.
    written: Option<(u64, Instant, Arc<str>)>,
    reading: Reading,
}

impl TextsTask {
    /// Looks at every view, which comes with every heartbeat, until there are no more.
    pub async fn run(mut self) {
        while self.view.changed().await.is_ok() {
            let view = Arc::clone(&self.view.borrow_and_update());
            self.write(view.me.incarnation).await;
            self.read(&view).await;
        }
    }

    async fn write(&mut self, incarnation: u64) {
        let own = self.texts.own();
        let is_written = |(under, at, digest): &(u64, Instant, Arc<str>)| {
            *under == incarnation && at.elapsed() < WRITTEN_AFTER && *digest == own.digest
        };
        if incarnation == 0 || self.written.as_ref().is_some_and(is_written) {
            return;
        }
        let key = self.key(&own.digest);
        let args = [&*own.text, "EX", &KEPT.as_secs().to_string()];
        let args = args.map(|arg| arg.as_bytes().to_vec());
        match self.keyspace.command("SET", &key, &args).await {
            Ok(_) => self.written = Some((incarnation, Instant::now(), own.digest)),
            Err(error) => {
                let error = &error as &(dyn std::error::Error + 'static);
                debug!(
                    event = "settings_not_written",
                    error, "others cannot read which settings this node has"
                );
            }
        }
    }

    async fn read(&mut self, view: &View) {
        let others = view.nodes.iter().map(|node| &*node.details.keeps_digest);
        let own = self.texts.digest();
        let others = others.filter(|said| is_digest(said) && **said != *own);
        let wanted = self.reading.wanted(&others.collect());
        if !wanted.is_empty() {
            match self.ask(&wanted).await {
                Ok(texts) => self.reading.answered(wanted.into_iter().zip(texts)),
                Err(error) => {
                    let error = &error as &(dyn std::error::Error + 'static);
                    debug!(
                        event = "settings_not_fetched",
                        error, "Redis did not say which settings other nodes have"
                    );
                }
            }
        }
        if *self.texts.known.borrow() != self.reading.known {
            self.texts
                .known
                .send_replace(Arc::clone(&self.reading.known));
        }
    }

    /// One text for each digest, `None` where it is not there.
    async fn ask(&self, digests: &[String]) -> Result<Vec<Option<String>>, RedisError> {
        let keys: Vec<_> = digests.iter().map(|digest| self.key(digest)).collect();
        let Some((first, others)) = keys.split_first() else {
            return Ok(Vec::new());
        };
        let others: Vec<_> = others.iter().map(|key| key.clone().into_bytes()).collect();
        read(self.keyspace.command("MGET", first, &others).await?)
    }

    fn key(&self, digest: &str) -> String {
        format!("{}:s:{digest}", self.nodes_key)
    }
}

/// Whether it can be a part of a key. A later release may have longer ones.
fn is_digest(said: &str) -> bool {
    (1..=64).contains(&said.len()) && said.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Which texts are known, and which are to be asked for: pure.
#[derive(Debug, Default)]
struct Reading {
    known: Arc<Known>,
    missed: BTreeMap<String, Missed>,
}

/// A text that was not there.
#[derive(Debug, Default)]
struct Missed {
    /// It is asked for again after so many looks.
    waits: u32,
    /// So many of them are left.
    left: u32,
}

impl Reading {
    /// The digests whose texts are to be asked for, of those that others say now. What nobody says
    /// is forgotten.
    fn wanted(&mut self, said: &BTreeSet<&str>) -> Vec<String> {
        if self.known.keys().any(|digest| !said.contains(&**digest)) {
            Arc::make_mut(&mut self.known).retain(|digest, _| said.contains(&**digest));
        }
        self.missed.retain(|digest, _| said.contains(&**digest));
        for missed in self.missed.values_mut() {
            missed.left = missed.left.saturating_sub(1);
        }
        let is_due = |digest: &&&str| {
            let waits = self.missed.get(**digest).is_some_and(|m| m.left > 0);
            !waits && !self.known.contains_key(**digest)
        };
        let room = TEXTS_MAX.saturating_sub(self.known.len());
        let due = said.iter().filter(is_due).take(READ_MAX.min(room));
        due.map(|digest| (*digest).to_owned()).collect()
    }

    /// What was found under these digests.
    fn answered(&mut self, found: impl Iterator<Item = (String, Option<String>)>) {
        for (digest, text) in found {
            match text.filter(|text| text.len() <= TEXT_BYTES_MAX) {
                Some(text) => {
                    self.missed.remove(&digest);
                    Arc::make_mut(&mut self.known).insert(digest, text.into());
                }
                None => {
                    let missed = self.missed.entry(digest).or_default();
                    missed.waits = (missed.waits * 2).clamp(1, LOOKS_MAX);
                    missed.left = missed.waits;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(reading: &mut Reading, said: &[String]) -> Vec<String> {
        reading.wanted(&said.iter().map(String::as_str).collect())
    }

    fn answered(reading: &mut Reading, wanted: &[String], text: Option<&str>) {
        let found = wanted
            .iter()
            .map(|digest| (digest.clone(), text.map(str::to_owned)));
        reading.answered(found);
    }

    fn digests(count: usize) -> Vec<String> {
        (0..count).map(|nth| digest(&nth.to_string())).collect()
    }

    #[test]
    fn a_digest_is_short_and_of_the_whole_text() {
        assert_eq!(digest("default:1"), digest("default:1"));
        assert_ne!(digest("default:1"), digest("default:2"));
        assert_eq!(digest("default:1").len(), 16);
        assert!(is_digest(&digest("")));
        for strange in ["", "a b", "a:b", "{a}", &"a".repeat(65)] {
            assert!(!is_digest(strange), "{strange}");
        }
    }

    #[test]
    fn a_text_is_read_once_and_forgotten_with_the_last_node_that_says_it() {
        let (mut reading, said) = (Reading::default(), digests(2));
        let new = wanted(&mut reading, &said);
        assert_eq!(new.len(), 2);
        answered(&mut reading, &new, Some("default:1"));
        assert_eq!(wanted(&mut reading, &said), [""; 0]);
        assert_eq!(wanted(&mut reading, &said[..1]), [""; 0]);
        assert_eq!(reading.known.len(), 1);
        assert_eq!(
            wanted(&mut reading, &said),
            [said[1].clone()],
            "it is new again"
        );
    }

    #[test]
    fn what_is_not_there_is_asked_for_more_and_more_seldom() {
        let (mut reading, said) = (Reading::default(), digests(1));
        let mut asked = Vec::new();
        for look in 0..300 {
            let wanted = wanted(&mut reading, &said);
            if !wanted.is_empty() {
                asked.push(look);
                answered(&mut reading, &wanted, None);
            }
        }
        assert_eq!(asked, [0, 1, 3, 7, 15, 31, 63, 127, 191, 255]);
        assert_eq!(wanted(&mut reading, &[]), [""; 0]);
        assert!(reading.missed.is_empty());
    }

    #[test]
    fn texts_and_what_is_asked_at_once_are_bounded() {
        let (mut reading, said) = (Reading::default(), digests(TEXTS_MAX + 9));
        loop {
            let wanted = wanted(&mut reading, &said);
            assert!(wanted.len() <= READ_MAX);
            if wanted.is_empty() {
                break;
            }
            answered(&mut reading, &wanted, Some("default:1"));
        }
        assert_eq!(reading.known.len(), TEXTS_MAX);
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        let mut reading = Reading::default();
        answered(&mut reading, &said[..1], Some(&long));
        assert!(reading.known.is_empty());
    }
}
