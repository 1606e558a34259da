//! What must hold of the options of topics, those of the node and those of an app.
//!
//! In: all values of a node, or those of an app laid over them. Out: a fault for each relation that does
//! not hold.

use super::later;
use crate::config::faults::Faults;
use crate::config::values::Values;

pub(super) fn check(values: &Values, faults: &mut Faults) {
    replicas(values, faults);
    own_topics(values, faults);
}

/// Replicas are waited for within the time of a command.
fn replicas(values: &Values, faults: &mut Faults) {
    let upper = "redis.command_timeout_ms";
    for section in values.replica_sections() {
        let lower = &*format!("{section}.replicas_timeout_ms");
        let (high, low) = (values.number(upper), values.number(lower));
        let is_asked = values.number(&format!("{section}.replicas_min")) > 0;
        if !is_asked || high > low || values.is_refused(upper) || values.is_refused(lower) {
            continue;
        }
        let place = values.place(later(values, upper, lower));
        let lower = values.shown(lower);
        let what = format!("{upper} is {high}, but must be above {lower}, which is {low}");
        faults.push(place, what, format!("raise {upper} or lower {lower}"));
    }
}

fn own_topics(values: &Values, faults: &mut Faults) {
    let path = "inbox.history_entries_max";
    if values.number(path) == 0 && !values.is_refused(path) {
        let what = format!("{} is 0, but an inbox keeps history", values.shown(path));
        faults.push(values.place(path), what, "give at least 1");
    }
}
