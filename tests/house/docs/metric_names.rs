//! Metrics that pages name, in prose, queries and commands.
//!
//! In: the pages. Out: a failure that names the page and the word.

use fanfare::telemetry::family::Kind;
use fanfare::telemetry::metrics::Metrics;

use super::pages::pages;

/// Series of a histogram beside its name.
const PARTS_OF_HISTOGRAM: [&str; 3] = ["_bucket", "_sum", "_count"];
/// Words that look like metrics: the name of a cookie, and what nodes are to tell of alerts and of
/// telemetry.
const NO_METRICS_HERE: [&str; 1] = ["fanfare_token"];

#[test]
fn every_metric_that_a_page_names_is_one() {
    let metrics = Metrics::new(1).families();
    for (path, page) in pages() {
        let words = page.split(|c: char| !c.is_ascii_lowercase() && c != '_' && c != '.');
        for word in words.filter(|word| word.starts_with("fanfare_") && !word.contains('.')) {
            let is_metric = metrics.iter().any(|family| {
                let part = word.strip_prefix(family.name);
                let is_part = part.is_some_and(|part| PARTS_OF_HISTOGRAM.contains(&part));
                part == Some("") || (is_part && family.kind == Kind::Histogram)
            });
            let is_other = NO_METRICS_HERE.contains(&word);
            assert!(is_metric || is_other, "{path}: `{word}`");
        }
    }
}
