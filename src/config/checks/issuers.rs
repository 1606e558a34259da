//! What must hold between those who sign tokens.
//!
//! In: values that each are of their kind. Out: faults at their place.

use crate::config::Environment;
use crate::config::faults::Faults;
use crate::config::values::{Origin, Values};

use super::text;

/// Checks it.
pub(super) fn check(values: &Values, faults: &mut Faults) {
    for_anybody(values, faults);
    own_issuer(values, faults);
}

/// An issuer signs tokens for many, and without `audience` or `types` each of them opens a session here.
fn for_anybody(values: &Values, faults: &mut Faults) {
    if values.environment() != Environment::Production {
        return;
    }
    let origins = values.issuer_origins().iter();
    for (index, (issuer, origin)) in values.issuers().iter().zip(origins).enumerate() {
        if issuer.jwks.is_some() && issuer.audience.is_none() && issuer.types.is_empty() {
            let what = format!(
                "auth.issuers[{index}] has a jwks_url and neither audience nor types, so its tokens for \
                 whomever open sessions, which production refuses"
            );
            let remedy = "give audience, which its tokens for this service have as aud";
            faults.push(Origin::to_string(origin), what, remedy);
        }
    }
}

/// A token whose `iss` an entry of the list has is never one of `[auth]` itself, which would ask for that
/// very `iss`.
fn own_issuer(values: &Values, faults: &mut Faults) {
    let Some(own) = text(values, "auth.issuer") else {
        return;
    };
    let issuers = values.issuers();
    if let Some(index) = issuers.iter().position(|issuer| issuer.issuer == *own) {
        let what = format!(
            "auth.issuer is that of auth.issuers[{index}], so no token could be one of [auth] itself"
        );
        let remedy = "leave auth.issuer out, or the entry";
        faults.push(values.place("auth.issuer"), what, remedy);
    }
}
