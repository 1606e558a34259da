//! The last lines of a run: what was accepted and delivered, what was wrong, how it came back.
//!
//! In: a history and its verdict. Out: text.

use super::checker::{Verdict, Wrong, publications};
use super::history::{History, TopicIndex};
use super::queue_checker::Moves;
use super::recovery::{publishing, recoveries};

/// What the nodes themselves counted, since each was last started.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    /// The largest resident memory.
    pub(crate) resident_bytes_max: u64,
    /// Topics held and read anew.
    pub(crate) repairs: u64,
    /// Topics of slow sessions that were moved back to history.
    pub(crate) taken_back: u64,
}

/// What the durable queue did, where there was any.
fn queue(moves: &Moves) -> Option<String> {
    let rate = moves.accepted as f64 / moves.lasted.as_secs_f64().max(1.0);
    let waits = &moves.waits_ms;
    let quantile = |part: f64| {
        let at = (waits.len() as f64 * part) as usize;
        waits.get(at.min(waits.len().saturating_sub(1))).copied()
    };
    let [half, most, longest] = [0.5, 0.99, 1.0].map(|part| quantile(part).unwrap_or_default());
    (moves.lasted.as_nanos() > 0).then(|| {
        format!(
            "  queue: accepted {} ({rate:.0}/s) unknown {} failed {} published {} redis-lost {} | \
             waited p50 {half} ms p99 {most} ms max {longest} ms",
            moves.accepted, moves.unknown, moves.failed, moves.published, moves.redis_lost,
        )
    })
}

/// The figure of a run, a line each, and how many of a hundred publications outside of windows were
/// answered.
pub(crate) fn lines(
    head: &str,
    history: &History,
    verdict: &Verdict,
    busy: &[TopicIndex],
    nodes: &Nodes,
) -> (Vec<String>, f64) {
    let published = publications(history);
    let publishing = publishing(history, &published, busy);
    let mut lines = Vec::new();
    let recoveries = recoveries(history, &published, busy);
    for (kind, recovery) in &recoveries {
        lines.push(format!(
            "  {kind:24} {:3} windows   recovered p50 {:5.2} s   max {:5.2} s   publishing {:5.2} s",
            recovery.windows,
            recovery.quantile(0.5).as_secs_f64(),
            recovery.quantile(1.0).as_secs_f64(),
            recovery.publishing.as_secs_f64(),
        ));
    }
    if let Some(line) = queue(&verdict.queue) {
        lines.push(line);
    }
    let rate = verdict.accepted as f64 / publishing.lasted.as_secs_f64().max(1.0);
    let faults: u64 = recoveries.values().map(|recovery| recovery.windows).sum();
    let wrongs: Vec<_> = Wrong::ALL
        .into_iter()
        .map(|wrong| format!("{} {}", wrong.word(), verdict.count(wrong)))
        .collect();
    lines.push(format!(
        "{head} faults={faults} of {} kinds: accepted {} ({rate:.0}/s) unknown {} failed {} | \
         due {} delivered {} | {} | told-gaps {} redis-lost {} (never seen by {}) | \
         resumes {} recovered {} | publishing outside windows {:.2} % | longest stall {:.1} s | \
         nodes: repairs {} taken-back {} rss-max {} MiB",
        recoveries.len(),
        verdict.accepted,
        verdict.unknown,
        verdict.failed,
        verdict.due,
        verdict.delivered,
        wrongs.join(" "),
        verdict.told_gaps,
        verdict.redis_lost,
        verdict.never_seen,
        verdict.resumes,
        verdict.recovered,
        publishing.percent(),
        publishing.stall.as_secs_f64(),
        nodes.repairs,
        nodes.taken_back,
        nodes.resident_bytes_max / (1024 * 1024),
    ));
    (lines, publishing.percent())
}
