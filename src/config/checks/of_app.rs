//! What must hold between the settings of an app and those of the node that it has them from.
//!
//! In: the values of an app, laid over those of the node ([`Values::for_apps`]). Out: a fault for each
//! relation that does not hold.

use super::{authorizing, of_topics, tried};
use crate::config::app_keys::NODE_TOKEN_LIFE;
use crate::config::faults::Faults;
use crate::config::values::Values;

/// Checks all of them.
pub fn check(values: &Values, faults: &mut Faults) {
    of_topics::check(values, faults);
    authorizing::check(values, faults);
    tried::check(values, faults);
    token_life(values, faults);
}

/// A revocation is kept for as long as tokens of the node may live.
fn token_life(values: &Values, faults: &mut Faults) {
    let path = "auth.token_life_max_s";
    let (life, most) = (values.number(path), values.number(NODE_TOKEN_LIFE));
    if life <= most || values.is_refused(path) {
        return;
    }
    let what = format!(
        "{} is {life}, but must be at most that of the node, which is {most}",
        values.shown(path)
    );
    let remedy = "lower it, or raise auth.token_life_max_s of every node";
    faults.push(values.place(path), what, remedy);
}
