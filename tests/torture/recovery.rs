//! How the service came back: recovery after each window, publishing outside of windows, stalls.
//!
//! In: a history. Out: figures, and who stayed deaf. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::checker::{Publications, Stream, streams};
use super::history::{Event, History, TopicIndex, Window};

/// After the heal, publishing has so long to work again before it counts as outside of the window.
const SETTLING: Duration = Duration::from_secs(1);
/// What is accepted later than this is not answered well, where nothing is broken.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// The figures of one kind of window.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// How many windows there were.
    pub(crate) windows: u64,
    /// For each client and topic the time until the first message that was published afterwards.
    pub(crate) times: Vec<Duration>,
    /// The longest time until a publication was accepted that was tried afterwards.
    pub(crate) publishing: Duration,
}

impl Recovery {
    /// The value below which this share of the times lies.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let mut times = self.times.clone();
        times.sort();
        let last = times.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        times.get(at).copied().unwrap_or_default()
    }
}

/// The windows of a history.
pub(crate) fn windows(history: &History) -> impl Iterator<Item = &Window> {
    history
        .entries
        .iter()
        .filter_map(|entry| match &entry.event {
            Event::Window(window) => Some(window),
            _ => None,
        })
}

/// When each message of a stream came, and when it had first been tried.
fn arrivals(stream: &Stream<'_>, published: &Publications) -> Vec<(Duration, Duration)> {
    let arrival = |(at, event): &(Duration, &Event)| match event {
        Event::Received { topic, id, .. } => {
            let publication = published[*topic as usize].get(id)?;
            Some((*at, publication.begun))
        }
        _ => None,
    };
    stream.iter().filter_map(arrival).collect()
}

/// When the first message came that was begun after `moment`.
fn first_after(arrivals: &[(Duration, Duration)], moment: Duration) -> Option<Duration> {
    let from = arrivals.partition_point(|(came, _)| *came <= moment);
    let fresh = arrivals[from..].iter().find(|(_, begun)| *begun > moment);
    fresh.map(|(came, _)| *came)
}

/// Finds each client that got nothing new of a topic within the deadline after a heal, although
/// something new was accepted well before it.
pub(crate) fn find_deaf(
    history: &History,
    published: &Publications,
    deadline: Duration,
    mut found: impl FnMut(String),
) {
    // Something accepted this long before the deadline should have come.
    let ample = deadline / 4;
    let accepted = |topic: TopicIndex| {
        let publications = published[topic as usize].values();
        let mut times: Vec<_> = publications
            .filter_map(|p| p.accepted().map(|(ended, _)| (p.begun, ended)))
            .collect();
        times.sort();
        times
    };
    let accepted: Vec<_> = (0..).take(published.len()).map(accepted).collect();
    for ((client, topic), stream) in streams(history) {
        if !history.topics[topic as usize].clients.contains(&client) {
            continue;
        }
        let arrivals = arrivals(&stream, published);
        for window in windows(history) {
            let healed = window.healed;
            let times = &accepted[topic as usize];
            let from = times.partition_point(|(begun, _)| *begun <= healed);
            let limit = healed + deadline;
            let is_due = times[from..]
                .iter()
                .take_while(|(begun, _)| *begun < limit)
                .any(|(_, ended)| *ended + ample < limit);
            if is_due && first_after(&arrivals, healed).is_none_or(|came| came > limit) {
                found(format!(
                    "client {client} got nothing new of {} within {deadline:?} after {:?}",
                    history.topics[topic as usize].name, window.kinds
                ));
            }
        }
    }
}

/// Recovery by kind of window, on the topics named, which are published to often. A window with
/// two faults at once counts for both.
pub(crate) fn recoveries(
    history: &History,
    published: &Publications,
    busy: &[TopicIndex],
) -> BTreeMap<&'static str, Recovery> {
    let streams = streams(history).into_iter();
    let streams = streams.filter(|((_, topic), _)| busy.contains(topic));
    let arrived: Vec<_> = streams.map(|(_, s)| arrivals(&s, published)).collect();
    let accepted = published.iter().flat_map(FxHashMap::values);
    let accepted = accepted.filter_map(|p| p.accepted().map(|(at, _)| (at, p.begun)));
    let mut accepted: Vec<_> = accepted.collect();
    accepted.sort();
    let mut recoveries: BTreeMap<&'static str, Recovery> = BTreeMap::new();
    for window in windows(history) {
        let from = window.measured_from;
        let times = arrived.iter();
        let times: Vec<_> = times
            .filter_map(|arrivals| first_after(arrivals, from))
            .map(|came| came.saturating_sub(from))
            .collect();
        for kind in &window.kinds {
            let recovery = recoveries.entry(kind).or_default();
            recovery.windows += 1;
            recovery.times.extend(&times);
            let first = first_after(&accepted, from).unwrap_or(Duration::MAX);
            recovery.publishing = recovery.publishing.max(first.saturating_sub(from));
        }
    }
    recoveries
}

/// Publishing: how much of it worked where nothing was broken, and the longest silence.
#[derive(Debug, Default)]
pub(crate) struct Publishing {
    /// Begun outside of all windows, and to be answered before the next.
    pub(crate) outside: u64,
    /// Of those, accepted within [`ANSWERED_WITHIN`].
    pub(crate) accepted_outside: u64,
    /// The longest time between two acceptances on one topic.
    pub(crate) stall: Duration,
    /// From the first attempt to the last.
    pub(crate) lasted: Duration,
}

impl Publishing {
    /// Accepted of a hundred.
    pub(crate) fn percent(&self) -> f64 {
        100.0 * self.accepted_outside as f64 / self.outside.max(1) as f64
    }
}

/// Looks at publishing; stalls are looked for on the topics named, which are published to often.
pub(crate) fn publishing(
    history: &History,
    published: &Publications,
    busy: &[TopicIndex],
) -> Publishing {
    let mut publishing = Publishing::default();
    let windows: Vec<_> = windows(history).collect();
    let is_outside = |at: Duration| {
        let mut around = windows.iter();
        !around.any(|w| w.begun <= at && at <= w.healed + SETTLING)
    };
    let all = || published.iter().flat_map(FxHashMap::values);
    for publication in all().filter(|p| is_outside(p.begun)) {
        let limit = publication.begun + ANSWERED_WITHIN;
        let accepted = publication.accepted();
        let is_answered = accepted.is_some_and(|(at, _)| at <= limit);
        // A window that began meanwhile may be why there was no answer.
        if is_answered || is_outside(limit) {
            publishing.outside += 1;
            publishing.accepted_outside += u64::from(is_answered);
        }
    }
    for topic in busy {
        let publications = published[*topic as usize].values();
        let mut times: Vec<_> = publications.filter_map(|p| Some(p.accepted()?.0)).collect();
        times.sort();
        let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max();
        publishing.stall = publishing.stall.max(longest.unwrap_or_default());
    }
    let (first, last) = (all().map(|p| p.begun).min(), all().map(|p| p.begun).max());
    publishing.lasted = last.unwrap_or_default() - first.unwrap_or_default();
    publishing
}
