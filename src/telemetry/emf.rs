//! Some gauges as a line of CloudWatch's embedded metric format, by which an ECS service can scale.
//!
//! In: families of metrics, once a minute (`src/node/emf.rs`). Out: one line of JSON, from which CloudWatch
//! Logs makes metrics. Pure. Bound: [`TOLD`], by one dimension: each metric of each value of a dimension
//! is paid for, so the node's name is in the line, for searching, and is no dimension.

use serde_json::{Map, Value as Json, json};

use super::family::{Family, Value};
use crate::config::telemetry::Telemetry;

/// How the samples of a family become one number.
#[derive(Debug, Clone, Copy)]
enum Many {
    Sum,
    Most,
}

/// What is told: the name of a metric, its unit as CloudWatch calls it, and what its samples become.
const TOLD: [(&str, &str, Many); 10] = [
    ("fanfare_queue_pressure", "Count", Many::Sum),
    ("fanfare_queue_depth", "Count", Many::Sum),
    ("fanfare_queue_oldest_seconds", "Seconds", Many::Most),
    ("fanfare_sessions", "Count", Many::Sum),
    ("fanfare_connections_limit", "Count", Many::Sum),
    ("fanfare_slow_sessions", "Count", Many::Sum),
    ("fanfare_delivery_backlog_bytes", "Bytes", Many::Sum),
    ("fanfare_cluster_nodes", "Count", Many::Most),
    ("fanfare_ready", "Count", Many::Sum),
    ("process_resident_memory_bytes", "Bytes", Many::Sum),
];

/// What stands in every line of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    namespace: String,
    service: String,
    node: String,
}

impl Frame {
    /// Of this node; `None` where no lines are wanted.
    #[must_use]
    pub fn of(telemetry: &Telemetry, node: &str) -> Option<Self> {
        let namespace = telemetry.emf_namespace.clone();
        let service = telemetry.service_name.clone();
        namespace
            .filter(|_| !telemetry.disabled)
            .map(|namespace| Self {
                namespace,
                service: service.unwrap_or_else(|| "fanfare".to_owned()),
                node: node.to_owned(),
            })
    }

    /// The line of this moment. A metric that the node does not have, or that is not known, is not in it.
    #[must_use]
    pub fn line(&self, families: &[Family], unix_ms: u64) -> String {
        let (mut metrics, mut values) = (Vec::new(), Map::new());
        for (name, unit, many) in TOLD {
            let family = families.iter().find(|family| family.name == name);
            if let Some(value) = family.and_then(|family| number(family, many)) {
                metrics.push(json!({"Name": name, "Unit": unit}));
                values.insert(name.to_owned(), value);
            }
        }
        let of_cloudwatch = json!({
            "Timestamp": unix_ms,
            "CloudWatchMetrics": [{
                "Namespace": self.namespace,
                "Dimensions": [["service"]],
                "Metrics": metrics,
            }],
        });
        values.insert("_aws".to_owned(), of_cloudwatch);
        values.insert("service".to_owned(), self.service.as_str().into());
        values.insert("node".to_owned(), self.node.as_str().into());
        Json::Object(values).to_string()
    }
}

/// The samples as one number; `None` where there is none.
fn number(family: &Family, many: Many) -> Option<Json> {
    let is_whole = |value: &Value| matches!(value, Value::Whole(_));
    let are_whole = family.told().all(|sample| is_whole(&sample.value));
    #[expect(clippy::cast_precision_loss, reason = "no gauge is so large")]
    let values = family.told().filter_map(|sample| match &sample.value {
        Value::Whole(number) => Some(*number as f64),
        Value::Real(number) => Some(*number),
        Value::Spread(_) => None,
    });
    let number = values.reduce(match many {
        Many::Sum => |all: f64, one: f64| all + one,
        Many::Most => f64::max,
    })?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    match are_whole {
        true => Some((number as u64).into()),
        false => serde_json::Number::from_f64(number).map(Json::Number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;
    use crate::telemetry::facts::Facts;
    use crate::telemetry::metrics::Metrics;

    fn frame() -> Frame {
        let mut telemetry = load::defaults().telemetry;
        telemetry.emf_namespace = Some("Gateway/Prod".to_owned());
        telemetry.service_name = Some("gateway".to_owned());
        Frame::of(&telemetry, "node-7").expect("lines are wanted")
    }

    #[test]
    fn a_line_has_every_metric_with_its_unit_and_its_value() {
        let metrics = Metrics::new(2).with_facts(Facts {
            connections_max: 1_000,
            ..Facts::default()
        });
        for worker in &metrics.workers {
            worker.counters.sessions.set(21);
        }
        let line = frame().line(&metrics.families(), 1_700_000_000_000);
        assert!(!line.contains('\n'), "{line}");
        let line: Json = serde_json::from_str(&line).expect("it is JSON");
        assert_eq!(line["_aws"]["Timestamp"], 1_700_000_000_000_u64);
        let of_cloudwatch = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(of_cloudwatch["Namespace"], "Gateway/Prod");
        assert_eq!(of_cloudwatch["Dimensions"], json!([["service"]]));
        let expected = TOLD.map(|(name, unit, _)| json!({"Name": name, "Unit": unit}));
        assert_eq!(of_cloudwatch["Metrics"], json!(expected), "each is there");
        for (name, _, _) in TOLD {
            assert!(line[name].is_number(), "{name}: {line}");
        }
        assert_eq!(line["fanfare_sessions"], 42, "of both workers");
        assert_eq!(line["fanfare_connections_limit"], 1_000);
        assert_eq!(
            (&line["service"], &line["node"]),
            (&json!("gateway"), &json!("node-7"))
        );
    }

    #[test]
    fn what_is_not_known_is_neither_told_nor_announced() {
        // A node for the API only has no limit of sessions.
        let line = frame().line(&Metrics::new(1).families(), 1);
        assert!(!line.contains("fanfare_connections_limit"), "{line}");
    }

    #[test]
    fn several_samples_are_added_up_but_for_ages_of_which_the_oldest_counts() {
        let sample = |value| crate::telemetry::family::Sample {
            labels: Vec::new(),
            value,
        };
        let family = |values: &[Value]| Family {
            name: "a",
            help: "",
            kind: crate::telemetry::family::Kind::Gauge,
            samples: values.iter().cloned().map(sample).collect(),
            is_sparse: false,
        };
        let whole = family(&[Value::Whole(3), Value::Whole(4)]);
        assert_eq!(number(&whole, Many::Sum), Some(json!(7)));
        let ages = family(&[Value::Real(0.5), Value::Real(2.5)]);
        assert_eq!(number(&ages, Many::Most), Some(json!(2.5)));
        assert_eq!(number(&family(&[]), Many::Sum), None);
        assert_eq!(number(&family(&[Value::Real(f64::NAN)]), Many::Sum), None);
    }

    #[test]
    fn no_lines_are_wanted_without_a_namespace_or_where_telemetry_is_off() {
        let mut telemetry = load::defaults().telemetry;
        assert_eq!(Frame::of(&telemetry, "n"), None);
        telemetry.emf_namespace = Some("Fanfare".to_owned());
        assert!(Frame::of(&telemetry, "n").is_some());
        telemetry.disabled = true;
        assert_eq!(Frame::of(&telemetry, "n"), None);
    }
}
