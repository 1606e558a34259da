//! The configuration of every rendering of the chart and of `k8s/base`, as the binary reads it.
//!
//! In: `tests/deploy/goldens`, which `tests/deploy/check-helm` holds equal to what Helm renders, and
//! `k8s/base`. Out: a failure where the node refuses it, or where it may take longer to stop than its pod
//! has.

use std::fs;
use std::path::{Path, PathBuf};

use fanfare::config::load::load;
use fanfare::node::stop_time::longest_s;
use serde::Deserialize as _;
use serde_norway::{Deserializer, Value};

use super::keyless;

/// The sleep of preStop, and what a pod has to spare.
const BESIDE_S: u64 = 5 + 10;
/// A grace period that is given is longer than it must be.
const GIVEN: &str = "extras";

/// What stands in Secrets of others.
fn secret(variable: &str) -> &'static str {
    match variable {
        "FANFARE_REDIS__URL" => "rediss://redis:6380?name=a",
        "FANFARE_REDIS__SHARDS" => "rediss://other:6380?name=b",
        name if name.ends_with("HEADERS") => "a=b",
        _ => "0123456789abcdef0123456789abcdef",
    }
}

fn objects(files: &[PathBuf]) -> Vec<Value> {
    let read = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap();
        let documents = Deserializer::from_str(&text).map(|one| Value::deserialize(one).unwrap());
        documents.collect::<Vec<_>>()
    };
    files.iter().flat_map(read).collect()
}

/// Every rendering with its name.
fn renderings() -> Vec<(String, Vec<Value>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join("tests/deploy/goldens")).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        found.push((name, objects(&[file])));
    }
    let base = root.join("k8s/base");
    let files = [base.join("configmap.yaml"), base.join("deployment.yaml")];
    found.push(("k8s/base".to_owned(), objects(&files)));
    found
}

/// What the nodes of a rendering read, with a key of tokens of these tests; and their grace period.
fn of_nodes(objects: &[Value]) -> (String, Vec<(String, String)>, u64) {
    let text = objects
        .iter()
        .find_map(|object| object["data"]["fanfare.toml"].as_str());
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/deploy");
    // The password may be any text. Certificates of Redis would have to be real.
    let text = text
        .unwrap()
        .replace(
            "/run/secrets/fanfare/redis/password",
            "/run/keys/tokens.pem",
        )
        .replace("/run/keys", keys);
    let kept = |line: &&str| !line.contains("/run/secrets/fanfare/redis-tls/");
    let text = text.lines().filter(kept).collect::<Vec<_>>().join("\n");
    let nodes = |object: &Value| {
        let pod = &object["spec"]["template"]["spec"];
        let containers = pod["containers"].as_sequence()?;
        let found = containers.iter().find(|one| one["name"] == "fanfare")?;
        Some((pod.clone(), found.clone()))
    };
    let (pod, container) = objects.iter().find_map(nodes).unwrap();
    let variables = container["env"].as_sequence().unwrap().iter();
    let variables = variables.map(|variable| {
        let name = variable["name"].as_str().unwrap();
        let value = match variable["value"].as_str() {
            Some(value) => value,
            None if variable["valueFrom"]["fieldRef"].is_mapping() => "fanfare-0",
            None => secret(name),
        };
        (name.to_owned(), value.to_owned())
    });
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    (text, variables.collect(), grace)
}

#[test]
fn nodes_take_what_the_chart_makes_and_leave_within_the_time_that_their_pods_have() {
    let renderings = renderings();
    assert!(renderings.len() > 9, "{}", renderings.len());
    for (name, objects) in renderings {
        let (text, environment, grace) = of_nodes(&objects);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fanfare.toml");
        fs::write(&file, text).unwrap();
        let mut inputs = keyless();
        inputs.file = Some(file);
        inputs.environment = environment;
        let loaded = match load(&inputs) {
            Ok(loaded) => loaded,
            Err(faults) => panic!("{name}: {faults}"),
        };
        let least = longest_s(&loaded.config) + BESIDE_S;
        if name == GIVEN {
            assert!(grace >= least, "{name}: {grace} s, and it may take {least}");
        } else {
            assert_eq!(
                grace, least,
                "{name}: mend templates/_stop.tpl and rules_running.py"
            );
        }
    }
}
