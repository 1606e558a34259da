//! What a query asks of the node: its metrics, and the labels that it chooses by.
//!
//! In: PromQL. Out: each of the node's metrics in it with its matchers. It knows strings and braces
//! and nothing else of the language; whether the whole is a query is asked of Prometheus.

use std::collections::BTreeMap;

use super::files::Metric;

/// A metric as a query names it.
#[derive(Debug, PartialEq)]
pub(crate) struct Selector {
    pub(crate) metric: String,
    /// Label, operator, value.
    pub(crate) matchers: Vec<(String, String, String)>,
}

/// The metrics of nodes that a query names.
pub(crate) fn selectors(query: &str) -> Vec<Selector> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut selectors = Vec::new();
    let mut rest = query;
    while let Some(at) = rest.find(is_name) {
        let name = &rest[at..];
        let end = name.find(|c| !is_name(c)).unwrap_or(name.len());
        rest = &name[end..];
        let name = &name[..end];
        if name.starts_with("fanfare_") || name.starts_with("process_") {
            let matchers = match rest.strip_prefix('{') {
                Some(inner) => matchers(inner, &mut rest),
                None => Vec::new(),
            };
            selectors.push(Selector {
                metric: name.to_owned(),
                matchers,
            });
        }
    }
    selectors
}

/// The matchers up to the brace that closes; `rest` is then what follows it.
fn matchers<'a>(mut inner: &'a str, rest: &mut &'a str) -> Vec<(String, String, String)> {
    let mut matchers = Vec::new();
    loop {
        inner = inner.trim_start_matches([',', ' ', '\n']);
        if let Some(after) = inner.strip_prefix('}') {
            *rest = after;
            return matchers;
        }
        let mut parts = inner.splitn(3, '"');
        let (Some(head), Some(value), Some(after)) = (parts.next(), parts.next(), parts.next())
        else {
            panic!("a matcher without its value: {inner}");
        };
        let label = head.trim_end_matches(['=', '!', '~', ' ']);
        let operator = head[label.len()..].trim();
        matchers.push((label.to_owned(), operator.to_owned(), value.to_owned()));
        inner = after;
    }
}

/// The metric of a name, which may be that of a part of a histogram.
pub(crate) fn family<'n>(name: &'n str, metrics: &BTreeMap<String, Metric>) -> Option<&'n str> {
    let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|part| {
        let base = name.strip_suffix(part)?;
        let metric = metrics.get(base)?;
        (metric.kind == "histogram").then_some(base)
    });
    of_histogram.or_else(|| {
        let is_whole = metrics.get(name).is_some_and(|m| m.kind != "histogram");
        is_whole.then_some(name)
    })
}

/// What is wrong with a query: metrics that no node has, and values that no label of them has.
pub(crate) fn faults(query: &str, metrics: &BTreeMap<String, Metric>) -> Vec<String> {
    let mut faults = Vec::new();
    for selector in selectors(query) {
        let Some(name) = family(&selector.metric, metrics) else {
            faults.push(format!("no node has `{}`", selector.metric));
            continue;
        };
        let Some(metric) = metrics.get(name) else {
            continue;
        };
        for (label, operator, value) in &selector.matchers {
            if ["namespace", "job", "instance"].contains(&&**label) {
                continue;
            }
            let Some(values) = metric.labels.get(label) else {
                faults.push(format!("`{name}` has no label `{label}`"));
                continue;
            };
            let alternatives: Vec<_> = match &**operator {
                "=~" | "!~" => value.split('|').collect(),
                _ => vec![&**value],
            };
            // What is a pattern must fit something, and a word must be there.
            let fits = |word: &str| {
                let pattern = word.trim_end_matches(".*").trim_end_matches("..");
                values.iter().any(|value| match pattern == word {
                    true => value == word,
                    false => value.starts_with(pattern),
                })
            };
            let missing = alternatives.into_iter().filter(|word| !fits(word));
            faults.extend(missing.map(|word| format!("`{name}` has no {label} `{word}`")));
        }
    }
    faults
}
