//! What is allowed in `[telemetry]` and cannot be meant.
//!
//! In: all values. Out: a warning for each time that is too short for any collector, and for each header
//! that is there twice.

use super::list;
use crate::config::otlp_forms::pair;
use crate::config::values::{Origin, Values};

/// The shortest wait that can be meant: whoever gives less may think of seconds.
const WAIT_MS_MIN: u64 = 100;
/// The ends of the names of waits.
const WAITS: [&str; 2] = ["timeout_ms", "deadline_ms"];

/// See the module.
pub(super) fn warnings(values: &Values) -> Vec<String> {
    let paths = values.paths().into_iter().map(|(path, _)| path);
    let of_collectors = paths.filter(|path| path.starts_with("telemetry."));
    let set = of_collectors.filter(|path| *values.origin(path) >= Origin::File(String::new()));
    set.filter_map(|path| {
        let why = short(values, &path).or_else(|| double(values, &path))?;
        Some(format!("{}: {path} {why}", values.place(&path)))
    })
    .collect()
}

fn short(values: &Values, path: &str) -> Option<String> {
    if !WAITS.iter().any(|end| path.ends_with(end)) {
        return None;
    }
    let ms = values.number(path);
    let is_short = ms < WAIT_MS_MIN;
    is_short.then(|| format!("is {ms} ms, in which few collectors answer: is it in milliseconds?"))
}

fn double(values: &Values, path: &str) -> Option<String> {
    if !path.ends_with("headers") {
        return None;
    }
    let pairs = list(values, path).iter().filter_map(|item| pair(item).ok());
    let mut names: Vec<_> = pairs.map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort_unstable();
    let twice = names.windows(2).find(|pair| pair[0] == pair[1])?;
    Some(format!(
        "has {} twice, of which a collector may take either",
        twice[0]
    ))
}
