//! Dashboards, alert rules and the pages about them: held against each other, against
//! `docs/metrics.md`, and against real nodes that Debian's Prometheus scrapes.
//!
//! In: the files of `helm/fanfare/files`, pages of `docs`, Prometheus and its promtool. Out: a
//! failure that names the panel, the alert or the metric. Nothing here knows the node's types.

mod files;
mod held;
mod prometheus;
mod promql;
mod scraped;
