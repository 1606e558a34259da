//! Debian's Prometheus as a process: it scrapes nodes, keeps what it gets in a directory of its own,
//! and is asked over HTTP.
//!
//! It listens on a free port that it chooses itself and tells in its log. Dropping it kills it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use fanfare_testkit::{http, wait};
use serde_json::{Value, json};

use super::files::{FILES, path};

/// Longest wait for it to listen, and then to be ready.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A running Prometheus with the alert rules.
#[derive(Debug)]
pub(crate) struct Prometheus {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that scrapes these every second.
    pub(crate) async fn start(targets: &[SocketAddr]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let targets: Vec<_> = targets.iter().map(ToString::to_string).collect();
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [path(FILES).join("rules.yaml")],
            "scrape_configs": [
                {"job_name": "fanfare", "static_configs": [{"targets": targets}]},
            ],
        });
        // JSON is YAML.
        let file = directory.path().join("prometheus.yml");
        std::fs::write(&file, config.to_string()).expect("a file that can be written");
        let data = directory.path().join("data");
        let mut child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("prometheus is installed: Debian's package prometheus");
        let log = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let (listens, listening) = mpsc::channel();
        // To the end, so that the pipe never fills up.
        std::thread::spawn(move || {
            let mut told = Vec::new();
            for line in log.lines().map_while(Result::ok) {
                let address = line.contains("\"Listening on\"").then(|| {
                    let address = line.rsplit("address=").next();
                    address.and_then(|address| address.parse().ok())
                });
                match address.flatten() {
                    Some(address) => drop(listens.send(Ok::<SocketAddr, String>(address))),
                    None => told.push(line),
                }
            }
            drop(listens.send(Err(told.join("\n"))));
        });
        let mut started = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            _directory: directory,
        };
        let told = tokio::task::spawn_blocking(move || listening.recv_timeout(START_PATIENCE));
        let told = told.await.expect("it waits and nothing else");
        let address = told.expect("it listens, or ends and says why");
        started.address = address.unwrap_or_else(|log| panic!("it has ended:\n{log}"));
        // It listens before it can be asked anything.
        wait::until_within(START_PATIENCE, "Prometheus to be ready", async || {
            let answer = http::try_get(started.address, "/-/ready").await;
            answer.is_some_and(|answer| answer.status == 200)
        })
        .await;
        started
    }

    /// For `promtool query`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn get(&self, path: &str) -> Value {
        let answer = http::get(self.address, path).await;
        let told = answer.json();
        assert_eq!(told["status"], "success", "{path}: {}", answer.text());
        told["data"].clone()
    }

    /// The values of the series that a query has now.
    pub(crate) async fn values(&self, query: &str) -> Vec<f64> {
        let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let found = self.get(&format!("/api/v1/query?query={query}")).await;
        let series = found["result"].as_array().expect("a list of series");
        let values = series.iter().map(|series| {
            let value = series["value"][1].as_str().expect("a sample");
            value.parse().expect("a number")
        });
        values.collect()
    }

    /// Its alert rules, as it judged them last.
    pub(crate) async fn rules(&self) -> Vec<Value> {
        let groups = self.get("/api/v1/rules").await;
        let groups = groups["groups"].as_array().expect("a list of groups");
        let rules = groups.iter().filter_map(|group| group["rules"].as_array());
        rules.flatten().cloned().collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // An error means that the process is gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
