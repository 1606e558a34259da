//! What the chart says of scaling: its values, and the object that it renders.
//!
//! In: `helm/fanfare/values.yaml`, and the golden of `ci/hpa.yaml`, which `tests/deploy/check-helm`
//! holds equal to what Helm renders. Out: a [`Chart`]. A field that is missing is a panic that names it.

use serde::Deserialize as _;
use serde_norway::{Deserializer, Value};

use super::super::docs::pages::read;
use super::formula::{Direction, Kind, Policy, Rules};

/// All that scaling follows.
#[derive(Debug, Clone)]
pub(crate) struct Chart {
    pub(crate) rules: Rules,
    /// The metric of the queue and its target for each pod; none where it does not count.
    pub(crate) queue: Option<(String, f64)>,
    pub(crate) sessions: Option<f64>,
    /// Parts of what a pod requests.
    pub(crate) cpu: Option<f64>,
    pub(crate) memory: Option<f64>,
    /// What a pod requests: cores and bytes.
    pub(crate) cores: f64,
    pub(crate) bytes: f64,
    /// The longest stop of a node, without the sleep before it and the spare after it.
    pub(crate) stop_s: u64,
}

/// The sleep of preStop and the spare, which the grace has beside the longest stop.
const GRACE_BESIDE_S: u64 = 15;

fn number(value: &Value, name: &str) -> u64 {
    let text = value.as_str().and_then(|text| text.parse().ok());
    let number = value.as_u64().or(text);
    number.unwrap_or_else(|| panic!("{name} is no number: {value:?}"))
}

fn objects(text: &str) -> Vec<Value> {
    let read = |document| Value::deserialize(document).expect("YAML");
    Deserializer::from_str(text).map(read).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["kind"] == kind);
    found.unwrap_or_else(|| panic!("the golden has no {kind}"))
}

fn direction(value: &Value) -> Direction {
    assert_eq!(value["selectPolicy"], "Max", "{value:?}");
    let policies = value["policies"].as_sequence().expect("policies");
    let policies = policies.iter().map(|policy| Policy {
        kind: match policy["type"].as_str() {
            Some("Pods") => Kind::Pods,
            Some("Percent") => Kind::Percent,
            other => panic!("a policy of type {other:?}"),
        },
        value: number(&policy["value"], "value"),
        period_s: number(&policy["periodSeconds"], "periodSeconds"),
    });
    Direction {
        window_s: number(
            &value["stabilizationWindowSeconds"],
            "stabilizationWindowSeconds",
        ),
        policies: policies.collect(),
    }
}

/// `500m` or `2`, in cores.
fn cores(text: &str) -> f64 {
    match text.strip_suffix('m') {
        Some(thousandths) => thousandths.parse::<f64>().expect("thousandths") / 1_000.0,
        None => text.parse().expect("cores"),
    }
}

/// `512Mi` or `1Gi`, in bytes.
fn bytes(text: &str) -> f64 {
    let (digits, unit) = text.split_at(text.len() - 2);
    let unit = match unit {
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        other => panic!("a unit of memory: {other:?}"),
    };
    digits.parse::<f64>().expect("memory") * unit
}

/// Reads it, and holds the values against what came of them.
pub(crate) fn chart() -> Chart {
    let values = &objects(&read("helm/fanfare/values.yaml"))[0]["autoscaling"];
    let golden = objects(&read("tests/deploy/goldens/hpa.yaml"));
    let spec = &of_kind(&golden, "HorizontalPodAutoscaler")["spec"];
    let pod = &of_kind(&golden, "Deployment")["spec"]["template"]["spec"];
    let requests = &pod["containers"][0]["resources"]["requests"];
    let request = |name: &str| requests[name].as_str().expect("a request");
    let metrics = spec["metrics"].as_sequence().expect("metrics");
    let of_pods = |prefix: &str| {
        let mut named = metrics.iter().filter_map(|metric| {
            let name = metric["pods"]["metric"]["name"].as_str()?;
            let target = &metric["pods"]["target"]["averageValue"];
            name.starts_with(prefix)
                .then(|| (name.to_owned(), number(target, name) as f64))
        });
        named.next()
    };
    let of_resource = |wanted: &str| {
        // Of the container: what stands beside it in the pod does not count.
        let mut resources = metrics.iter().map(|metric| &metric["containerResource"]);
        let found = resources.find(|resource| resource["name"] == wanted)?;
        let percent = &found["target"]["averageUtilization"];
        Some(number(percent, wanted) as f64 / 100.0)
    };
    let grace = number(&pod["terminationGracePeriodSeconds"], "the grace");
    let chart = Chart {
        rules: Rules {
            pods_min: number(&spec["minReplicas"], "minReplicas"),
            pods_max: number(&spec["maxReplicas"], "maxReplicas"),
            up: direction(&spec["behavior"]["scaleUp"]),
            down: direction(&spec["behavior"]["scaleDown"]),
        },
        queue: of_pods("fanfare_queue_"),
        sessions: of_pods("fanfare_sessions").map(|(_, target)| target),
        cpu: of_resource("cpu"),
        memory: of_resource("memory"),
        cores: cores(request("cpu")),
        bytes: bytes(request("memory")),
        stop_s: grace - GRACE_BESIDE_S,
    };
    let value = |name: &str| number(&values[name], name);
    let of_values = (
        value("minReplicas"),
        value("maxReplicas"),
        value("queueTarget"),
    );
    let (_, target) = chart.queue.as_ref().expect("the queue counts");
    let rules = &chart.rules;
    assert_eq!(of_values, (rules.pods_min, rules.pods_max, *target as u64));
    let percents = [chart.cpu, chart.memory].map(|part| part.map(|part| (part * 100.0) as u64));
    assert_eq!(
        percents,
        [Some(value("cpuPercent")), Some(value("memoryPercent"))]
    );
    chart
}
