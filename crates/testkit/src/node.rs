//! A real node: the binary that is shipped, started as a process and stopped for certain.
//!
//! The node listens on free ports that it chooses itself and tells in its log (`listening`, with
//! `public` and `api`). Its log is kept in memory and printed when a test fails.

use std::io::{BufRead, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;

use crate::{http, kept, program, wait};

/// Longest wait for a node to start or to stop.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How a node is to be started.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    program: Option<PathBuf>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log_reader: LogReader,
    files_max: Option<u32>,
    host_name: Option<String>,
    has_no_sessions: bool,
    stdout: Option<PathBuf>,
}

/// What the pipe of a log holds that nobody reads: some twenty lines.
pub const PIPE_BYTES: usize = 4_096;

/// Who reads the log of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogReader {
    /// This process, to the end.
    #[default]
    Stays,
    /// Nobody after the node has started: the pipe is closed.
    Goes,
    /// Nobody after the node has started: the pipe stays open and, at [`PIPE_BYTES`], soon fills up.
    Sleeps,
}

impl Plan {
    /// `serve --dev` over the in-process broker.
    pub fn dev() -> Self {
        Self::default().flag("--dev").flag("--workers=2")
    }

    /// `serve` with the given configuration file, as outside development.
    pub fn with_config(path: &Path) -> Self {
        Self::default().flag(&format!("--config={}", path.display()))
    }

    /// `serve --dev --redis` with a name.
    pub fn clustered(name: &str, redis_url: &str) -> Self {
        Self::dev()
            .flag(&format!("--redis={redis_url}"))
            .flag(&format!("--node-id={name}"))
    }

    /// Another program than the one that cargo built.
    #[must_use]
    pub fn program(mut self, program: &Path) -> Self {
        self.program = Some(program.into());
        self
    }

    /// One more flag.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.arguments.push(flag.into());
        self
    }

    /// One more environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// A limit of open files.
    #[must_use]
    pub fn files_max(mut self, files_max: u32) -> Self {
        self.files_max = Some(files_max);
        self
    }

    /// A host of this name, which no other process sees. Needs the right to make one.
    #[must_use]
    pub fn host_name(mut self, host_name: &str) -> Self {
        self.host_name = Some(host_name.into());
        self
    }

    /// No public listener: a node for the API only.
    #[must_use]
    pub fn without_sessions(mut self) -> Self {
        self.has_no_sessions = true;
        self
    }

    /// Standard output into this file, which else is not read.
    #[must_use]
    pub fn stdout(mut self, path: &Path) -> Self {
        self.stdout = Some(path.into());
        self
    }

    /// Another reader of the log.
    #[must_use]
    pub fn log_reader(mut self, log_reader: LogReader) -> Self {
        self.log_reader = log_reader;
        self
    }

    /// Starts the node and waits until it is ready.
    pub async fn start(self) -> Node {
        let node = self.start_unready().await;
        node.until_ready().await;
        node
    }

    /// Starts the node and waits until it listens, ready or not.
    pub async fn start_unready(self) -> Node {
        let listen = if self.has_no_sessions {
            "none"
        } else {
            "127.0.0.1:0"
        };
        let mut node = self.spawn(listen);
        let told = wait::until_within(START_PATIENCE, "the node to listen", async || {
            let ended = node.child.try_wait().expect("the child can be asked");
            assert!(
                ended.is_none(),
                "ended with {ended:?}:\n{}",
                node.log_text()
            );
            node.log_lines("node_started").into_iter().next()
        });
        let told = told.await;
        if listen != "none" {
            node.public = address(&told, "public");
        }
        node.api = address(&told, "api");
        node.metrics = log_field(&told, "metrics").map(|_| address(&told, "metrics"));
        node
    }

    /// Starts a node that should refuse to start, and returns how it ended and what it said.
    pub async fn start_refused(self, listen: &str) -> (ExitStatus, String) {
        let mut node = self.spawn(listen);
        let status = node.ended().await;
        (status, node.log_text())
    }

    fn spawn(self, listen: &str) -> Node {
        let program = self.program.unwrap_or_else(program::fanfare);
        let mut command = match (self.files_max, self.host_name) {
            (None, None) => Command::new(program),
            (files_max, host_name) => within(files_max, host_name.as_deref(), &program),
        };
        let stdout = self.stdout.map(|path| {
            let file = std::fs::File::create(path).expect("the file can be made");
            Stdio::from(file)
        });
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("FANFARE_") || text.starts_with("OTEL_") {
                command.env_remove(name);
            }
        }
        let arguments = self.arguments.clone();
        let mut child = command
            .arg("serve")
            .arg(format!("--listen={listen}"))
            .arg("--api-listen=127.0.0.1:0")
            .args(self.arguments)
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(stdout.unwrap_or_else(Stdio::null))
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built by cargo");
        let log = Log::default();
        let pipe = child.stderr.take().expect("stderr is piped");
        if self.log_reader == LogReader::Sleeps {
            let made = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE_BYTES);
            made.expect("a page is allowed, and the node has not written one yet");
        }
        let reader = BufReader::new(pipe);
        let into = log.clone();
        std::thread::spawn(move || into.read(reader, self.log_reader));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Node {
            child,
            arguments,
            log,
            public: nowhere,
            api: nowhere,
            metrics: None,
        }
    }
}

/// The program in a shell that sets a limit of files, and a host's name of its own.
fn within(files_max: Option<u32>, host_name: Option<&str>, program: &Path) -> Command {
    let limit = files_max.map_or(String::new(), |most| format!("ulimit -n {most} && "));
    let name = host_name.map_or(String::new(), |name| format!("hostname {name} && "));
    let script = format!("{limit}{name}exec \"$0\" \"$@\"");
    let mut command = match host_name {
        None => Command::new("sh"),
        Some(_) => {
            let mut apart = Command::new("unshare");
            apart.args(["--map-root-user", "--uts", "sh"]);
            apart
        }
    };
    command.args(["-c", &script]).arg(program);
    command
}

fn address(line: &Value, field: &str) -> SocketAddr {
    let text = log_field(line, field).and_then(Value::as_str);
    let text = text.unwrap_or_else(|| panic!("`listening` has no `{field}`: {line}"));
    text.parse()
        .unwrap_or_else(|_| panic!("`{field}` is no address: {line}"))
}

/// A field of a log line, whether the format nests fields or not.
pub fn log_field<'a>(line: &'a Value, field: &str) -> Option<&'a Value> {
    line.get("fields")
        .and_then(|fields| fields.get(field))
        .or_else(|| line.get(field))
}

/// A running node. Dropping it kills the process.
#[derive(Debug)]
pub struct Node {
    child: Child,
    arguments: Vec<String>,
    log: Log,
    /// The public listener.
    pub public: SocketAddr,
    /// The API's listener.
    pub api: SocketAddr,
    /// The listener for metrics and health alone, where there is one.
    pub metrics: Option<SocketAddr>,
}

impl Node {
    /// Where sessions connect, with a query (`?user=ada`) or none.
    pub fn connect_url(&self, query: &str) -> String {
        format!("ws://{}/v1/connect{query}", self.public)
    }

    /// Whether the node calls itself ready.
    pub async fn is_ready(&self) -> bool {
        let answer = http::try_get(self.api, "/health/ready").await;
        answer.is_some_and(|answer| answer.status == 200)
    }

    /// Waits until the node is ready.
    pub async fn until_ready(&self) {
        self.until_readiness(true).await;
    }

    /// Waits until the node is not ready.
    pub async fn until_unready(&self) {
        self.until_readiness(false).await;
    }

    async fn until_readiness(&self, wanted: bool) {
        let what = format!("ready = {wanted}");
        wait::until_within(START_PATIENCE, &what, async || {
            let answer = http::try_get(self.api, "/health/ready").await;
            let is_ready = answer.as_ref().is_some_and(|answer| answer.status == 200);
            let said = answer.map(|answer| answer.text());
            if is_ready == wanted {
                Ok(())
            } else {
                Err(said)
            }
        })
        .await;
    }

    /// A sample of `/metrics`; the name with its labels, as it stands there.
    pub async fn metric(&self, name: &str) -> u64 {
        let text = http::get(self.api, "/metrics").await.text();
        sample(&text, name).unwrap_or_else(|| panic!("no metric `{name}` in:\n{text}"))
    }

    /// The same of what is measured and not counted.
    pub async fn measure(&self, name: &str) -> f64 {
        let text = http::get(self.api, "/metrics").await.text();
        let found = found(&text, name).and_then(|value| value.parse().ok());
        found.unwrap_or_else(|| panic!("no metric `{name}` in:\n{text}"))
    }

    /// The same of what is counted; `None` where the node's release has no such metric.
    pub async fn find_metric(&self, name: &str) -> Option<u64> {
        sample(&http::get(self.api, "/metrics").await.text(), name)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let count: u64 = kilobytes.and_then(|n| n.parse().ok()).expect("VmRSS in kB");
        count * 1024
    }

    /// The log so far.
    pub fn log_text(&self) -> String {
        self.log.lock().text.join("\n")
    }

    /// The lines of the log that tell this event, so far.
    pub fn log_lines(&self, event: &str) -> Vec<Value> {
        let state = self.log.lock();
        let parsed = state
            .text
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_it = |line: &Value| log_field(line, "event").is_some_and(|name| name == event);
        parsed.filter(is_it).collect()
    }

    /// Waits until the log tells this event, and returns its lines so far. The log comes a little
    /// later than what it tells.
    pub async fn until_told(&self, event: &str) -> Vec<Value> {
        wait::until(event, async || {
            let lines = self.log_lines(event);
            (!lines.is_empty()).then_some(lines)
        })
        .await
    }

    /// Asks the node to leave, as an orchestrator does.
    pub fn signal(&self, name: &str) {
        if name == "HUP" {
            kept::given(&self.arguments, &[]);
        }
        let command = format!("kill -{name} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &command]).status();
        assert!(status.expect("a shell").success(), "{command}");
    }

    /// Ends the node in order and returns how it ended.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended().await
    }

    /// Ends the node without a word, as a lost machine does.
    pub fn kill(&mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process can be awaited");
    }

    /// Waits until the process has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        self.ended_within(START_PATIENCE).await
    }

    /// The same where it may take longer.
    pub async fn ended_within(&mut self, patience: Duration) -> ExitStatus {
        let status = wait::until_within(patience, "the node to end", async || {
            self.child.try_wait().expect("the child can be asked")
        })
        .await;
        // The log's reader ends with the process.
        let log = async || self.log.ended().then_some(());
        wait::until("the end of the log", log).await;
        status
    }
}

/// A sample in the text of `/metrics`; the name with its labels, as it stands there.
pub fn sample(metrics: &str, name: &str) -> Option<u64> {
    Some(found(metrics, name)?.parse().expect("it is counted"))
}

fn found<'a>(metrics: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(value.trim())
}

impl Drop for Node {
    fn drop(&mut self) {
        // An error means that the process is gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- log of the node at {} ---\n{}",
                self.public,
                self.log_text()
            );
        }
    }
}

/// The lines that a process wrote to stderr.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<LogState>>);

#[derive(Debug, Default)]
struct LogState {
    text: Vec<String>,
    ended: bool,
    /// The pipe that is not read any more.
    kept: Option<BufReader<ChildStderr>>,
}

impl Log {
    fn read(&self, mut pipe: BufReader<ChildStderr>, reader: LogReader) {
        for line in pipe.by_ref().lines().map_while(Result::ok) {
            let has_started = line.contains("node_started");
            self.lock().text.push(line);
            if has_started && reader != LogReader::Stays {
                break;
            }
        }
        let mut state = self.lock();
        state.ended = true;
        state.kept = Some(pipe).filter(|_| reader == LogReader::Sleeps);
    }

    fn ended(&self) -> bool {
        self.lock().ended
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.0.lock().expect("no holder of the log panics")
    }
}
