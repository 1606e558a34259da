//! Judges what topics hold at the end: each publication once, by somebody, and of its own app.
//!
//! In: what every topic retains, and what was published. Out: wrongs in the verdict. Pure.

use std::collections::BTreeMap;

use fanfare_protocol::ids::Position;
use rustc_hash::FxHashSet;

use super::app::App;
use super::checker::{Publications, Verdict, Wrong};
use super::history::{Id, Outcome, Topic, TopicIndex};

/// What one topic holds.
pub(crate) type Retained = BTreeMap<Position, Id>;

/// The app in which something was published, if it was.
pub(crate) fn app_of(published: &Publications, topics: &[Topic], id: Id) -> Option<App> {
    let mut all = published.iter().zip(topics);
    let found = all.find(|(published, _)| published.contains_key(&id));
    found.map(|(_, topic)| topic.app)
}

/// Each id stands in the topic once, and somebody published it there.
pub(crate) fn once(
    topics: &[Topic],
    topic: TopicIndex,
    retained: &Retained,
    published: &Publications,
    verdict: &mut Verdict,
) {
    let Topic { app, name, .. } = &topics[topic as usize];
    let mut ids = FxHashSet::default();
    for (position, id) in retained {
        if !ids.insert(*id) {
            let what = format!("{id:?} stands twice in {name}, again at {position}");
            verdict.found(Wrong::Doubled, what);
        }
        let known = published[topic as usize].get(id);
        let is_refused = known.is_some_and(|p| matches!(p.ended, Some((_, Outcome::Fail))));
        if known.is_none() || is_refused {
            let of = app_of(published, topics, *id);
            let wrong = match of {
                Some(of) if of != *app => Wrong::BetweenApps,
                _ => Wrong::Phantom,
            };
            let what = format!("{id:?} stands in {name} at {position}, published: {known:?}");
            verdict.found(wrong, what);
        }
    }
}

/// A publication that was answered with the place of the other app's publication of the same number:
/// its idempotency key was taken for the other's.
pub(crate) fn keys(
    topics: &[Topic],
    retained: &[&Retained],
    published: &Publications,
    verdict: &mut Verdict,
) {
    for (topic, about) in topics.iter().enumerate() {
        let is_twin = |other: &Topic| other.app != about.app && other.name == about.name;
        let Some(twin) = topics.iter().position(is_twin) else {
            continue;
        };
        for (id, publication) in &published[topic] {
            let Some((_, position)) = publication.accepted() else {
                continue;
            };
            let theirs = retained[twin].get(&position);
            let theirs = theirs.filter(|theirs| theirs.number == id.number);
            if let Some(theirs) = theirs.filter(|_| !retained[topic].contains_key(&position)) {
                let what = format!(
                    "{id:?} in {} was answered with {position}, where {theirs:?} of the other app stands",
                    about.name
                );
                verdict.found(Wrong::BetweenApps, what);
            }
        }
    }
}
