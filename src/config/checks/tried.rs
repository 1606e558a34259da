//! Keys without an `id`: how many of one algorithm an issuer may have.
//!
//! In: all values. Out: a fault where every token of an algorithm would be refused, because more keys would have
//! to be tried for it than may be. Keys with an `id` count for nothing here: a token with a `kid` asks for one.

use crate::config::faults::Faults;
use crate::config::issuer::{TRIED_MAX, TokenKey};
use crate::config::token_keys::{WITH_PUBLIC_KEY, WITH_SECRET};
use crate::config::values::Values;

pub(super) fn check(values: &Values, faults: &mut Faults) {
    let own = values.token_keys_with_origins();
    let keys: Vec<_> = own.iter().map(|(key, _)| key).collect();
    for (algorithm, count) in too_many(&keys) {
        // The last one is the one too many.
        let last = own.iter().rfind(|(key, _)| is_one(key, algorithm));
        let place = last.map_or_else(|| values.place("auth.keys"), |(_, at)| at.to_string());
        fault(&values.shown("auth.keys"), algorithm, count, place, faults);
    }
    let issuers = values.issuers();
    for (issuer, origin) in issuers.iter().zip(values.issuer_origins()) {
        let keys: Vec<_> = issuer.keys.iter().collect();
        let path = values.shown(&format!("auth.issuers.keys of {:?}", issuer.issuer));
        for (algorithm, count) in too_many(&keys) {
            fault(&path, algorithm, count, origin.to_string(), faults);
        }
    }
}

fn fault(path: &str, algorithm: &str, count: usize, place: String, faults: &mut Faults) {
    let what = format!("{path} has {count} keys of {algorithm} without an id");
    let remedy = format!("give ids: at most {TRIED_MAX} keys are tried for a token");
    faults.push(place, what, remedy);
}

/// The algorithms of which too many keys have no id, with their number.
fn too_many(keys: &[&TokenKey]) -> Vec<(&'static str, usize)> {
    let all = WITH_SECRET.into_iter().chain(WITH_PUBLIC_KEY);
    let counted = all.map(|algorithm| {
        let fitting = keys.iter().filter(|key| is_one(key, algorithm));
        (algorithm, fitting.count())
    });
    counted.filter(|(_, count)| *count > TRIED_MAX).collect()
}

fn is_one(key: &TokenKey, algorithm: &str) -> bool {
    key.id.is_none() && key.algorithm == algorithm
}
