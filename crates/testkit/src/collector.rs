//! Collectors that nobody here wrote, or whose messages nobody here made, and what they got.
//!
//! [`Collector`] is `tests/clients/otlp_collector.py`, made of the messages of PyPI `opentelemetry-proto`;
//! [`Rotel`] is the collector of PyPI `rotel`, which tells what it got in a log. `scripts/test` installs
//! both under `target/clients`. A collector chooses its own port; `rotel` cannot, so it is given two
//! that were free.

use std::io::{BufRead as _, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::{kept, wait};

/// The root of the repository.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2);
    root.expect("this crate lies two folders deep").into()
}

fn environment() -> PathBuf {
    let path = root().join("target/clients/venv");
    assert!(
        path.exists(),
        "{} is missing: run scripts/test, which installs it",
        path.display()
    );
    path
}

/// A process whose output is kept, line by line. Dropping it kills it.
#[derive(Debug)]
struct Program {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Program {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it was installed");
        let lines = Arc::default();
        let out = child.stdout.take().expect("stdout is piped");
        keep(out, Arc::clone(&lines));
        if let Some(err) = child.stderr.take() {
            keep(err, Arc::clone(&lines));
        }
        Self { child, lines }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("nobody panics with it").clone()
    }
}

fn keep(from: impl Read + Send + 'static, into: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            kept::line("collector", || without_headers(&line));
            into.lock().expect("nobody panics with it").push(line);
        }
    });
}

/// What the node says, without the headers of the request: those are to hold the key of the collector.
fn without_headers(line: &str) -> String {
    match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(mut request)) => {
            request.remove("headers");
            Value::Object(request).to_string()
        }
        _ => line.to_owned(),
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // An error means that the process is gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// See the module.
#[derive(Debug)]
pub struct Collector {
    program: Program,
    /// Where it listens.
    pub address: SocketAddr,
    is_encrypted: bool,
}

impl Collector {
    /// One that speaks `http` or `grpc` and behaves as the script says.
    pub async fn start(protocol: &str, behaviour: &str) -> Self {
        Self::begin(protocol, behaviour, &[]).await
    }

    /// The same by TLS, with these files.
    pub async fn encrypted(protocol: &str, certificate: &str, key: &str) -> Self {
        Self::begin(protocol, "take", &[certificate, key]).await
    }

    async fn begin(protocol: &str, behaviour: &str, files: &[&str]) -> Self {
        let mut command = Command::new(environment().join("bin/python"));
        command
            .arg(root().join("tests/clients/otlp_collector.py"))
            .args([protocol, behaviour])
            .args(files);
        let program = Program::start(command);
        let port = wait::until("the collector to listen", async || {
            program.lines().first().map(|line| line.parse::<u16>())
        });
        let port = port.await.expect("its first line is its port");
        Self {
            program,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            is_encrypted: !files.is_empty(),
        }
    }

    /// Its base address, by the name that its certificate has.
    pub fn url(&self) -> String {
        match self.is_encrypted {
            true => format!("https://localhost:{}", self.address.port()),
            false => format!("http://{}", self.address),
        }
    }

    /// The requests that it got and took of a signal, so far.
    pub fn taken(&self, signal: &str) -> Vec<Value> {
        self.told("signal", signal)
    }

    /// How many requests of a signal it refused so far.
    pub fn refused(&self, signal: &str) -> usize {
        self.told("refused", signal).len()
    }

    fn told(&self, what: &str, signal: &str) -> Vec<Value> {
        let lines = self.program.lines();
        let requests = lines.iter().skip(1).map(|line| {
            let request = serde_json::from_str::<Value>(line);
            request.expect("each line is one object")
        });
        requests.filter(|request| request[what] == signal).collect()
    }

    /// All spans that it took so far.
    pub fn spans(&self) -> Vec<Value> {
        let of = ["resource_spans", "scope_spans", "spans"];
        self.taken("traces")
            .iter()
            .flat_map(|it| items(&it["message"], &of))
            .collect()
    }

    /// All lines of logs that it took so far.
    pub fn records(&self) -> Vec<Value> {
        let of = ["resource_logs", "scope_logs", "log_records"];
        self.taken("logs")
            .iter()
            .flat_map(|it| items(&it["message"], &of))
            .collect()
    }

    /// The metrics of one request.
    pub fn metrics(request: &Value) -> Vec<Value> {
        items(
            &request["message"],
            &["resource_metrics", "scope_metrics", "metrics"],
        )
    }
}

/// What lies below lists of lists.
fn items(value: &Value, path: &[&str]) -> Vec<Value> {
    let Some((first, rest)) = path.split_first() else {
        return vec![value.clone()];
    };
    let list = value[*first].as_array().map(Vec::as_slice);
    list.unwrap_or_default()
        .iter()
        .flat_map(|item| items(item, rest))
        .collect()
}

/// An attribute of a span, a line, a point or a resource.
pub fn attribute<'a>(of: &'a Value, name: &str) -> &'a Value {
    let mut all = of["attributes"].as_array().into_iter().flatten();
    let found = all.find(|pair| pair["key"] == name);
    let value = found.and_then(|pair| pair["value"].as_object()?.values().next());
    value.unwrap_or(&Value::Null)
}

/// The collector of PyPI `rotel`, which sends nothing on.
#[derive(Debug)]
pub struct Rotel {
    program: Program,
    /// Where it takes gRPC.
    pub grpc: String,
    /// Where it takes HTTP.
    pub http: String,
}

impl Rotel {
    /// Starts it, and waits until it listens.
    pub async fn start() -> Self {
        let agent = "python3*/site-packages/rotel/rotel-agent";
        let found = Command::new("sh")
            .args([
                "-c",
                &format!("echo {}/lib/{agent}", environment().display()),
            ])
            .output();
        let agent = String::from_utf8(found.expect("a shell").stdout).expect("a path");
        let free = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            listener.local_addr().expect("it is bound").to_string()
        };
        let (grpc, http) = (free(), free());
        let mut command = Command::new(agent.trim());
        command
            .args(["start", "--exporter", "blackhole", "--log-format", "json"])
            .args(["--debug-log", "traces", "--debug-log", "metrics"])
            .args(["--debug-log-verbosity", "detailed"])
            .args(["--otlp-grpc-endpoint", &grpc, "--otlp-http-endpoint", &http])
            .stderr(Stdio::piped());
        let program = Program::start(command);
        wait::until("rotel to listen", async || {
            let both = [&grpc, &http].map(|at| std::net::TcpStream::connect(at.as_str()));
            both.iter().all(Result::is_ok)
        })
        .await;
        Self {
            program,
            grpc: format!("http://{grpc}"),
            http: format!("http://{http}"),
        }
    }

    /// What it told so far.
    pub fn log_text(&self) -> String {
        self.program.lines().join("\n")
    }
}
