//! What a node tells those who start and end it: systemd by datagrams, CloudWatch by lines, and everybody by
//! how long its stop may take.
//!
//! In: nodes with a socket of systemd's kind that the test reads, with a file as standard output, and with
//! sessions that answer nothing. Out: what they say, and how long they take.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan, log_field};
use fanfare_testkit::program;
use fanfare_testkit::raw::Raw;
use fanfare_testkit::turns;
use fanfare_testkit::wait;
use serde_json::Value;

/// What systemd would hear.
struct Systemd {
    folder: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Systemd {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        socket.set_nonblocking(true).expect("it can be set");
        Self { folder, socket }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("notify")
    }

    /// What was said since the last time.
    fn heard(&self) -> Vec<String> {
        let mut heard = Vec::new();
        let mut buffer = [0; 4_096];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    heard.push(String::from_utf8(buffer[..length].to_vec()).expect("UTF-8"));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return heard,
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn hears(&self, what: &str) {
        wait::until(what, async || {
            let heard = self.heard();
            match heard
                .iter()
                .any(|said| said.lines().any(|line| line == what))
            {
                true => Ok(()),
                false => Err(heard),
            }
        })
        .await;
    }
}

fn under(systemd: &Path, plan: Plan) -> Plan {
    plan.env("NOTIFY_SOCKET", &systemd.display().to_string())
        .env("WATCHDOG_USEC", "600000")
}

#[tokio::test]
async fn systemd_is_told_that_the_node_is_ready_lives_and_stops() {
    let systemd = Systemd::new();
    let mut node = under(&systemd.path(), Plan::dev()).start_unready().await;
    systemd.hears("READY=1").await;
    for _ in 0..3 {
        systemd.hears("WATCHDOG=1").await;
    }
    node.signal("TERM");
    systemd.hears("STOPPING=1").await;
    assert_eq!(node.ended().await.code(), Some(0));
    assert!(node.log_lines("systemd_notice_failed").is_empty());
}

#[tokio::test]
async fn the_watchdog_is_not_fed_while_the_node_is_not_live() {
    let systemd = Systemd::new();
    let plan = under(&systemd.path(), Plan::dev())
        .env("PLANTED_HANG", "worker-0@1000+3600000")
        .env("FANFARE_HEALTH__STUCK_S", "5");
    let node = plan.start_unready().await;
    systemd.hears("WATCHDOG=1").await;
    let live = async || http::get(node.api, "/health/live").await.status.as_u16();
    wait::until("the node not to be live", async || {
        // A socket that nobody reads is full after ten, and the next one waits.
        systemd.heard();
        (live().await == 503).then_some(())
    })
    .await;
    // One may have been on its way. Systemd would have waited for 0.6 s.
    tokio::time::sleep(Duration::from_millis(500)).await;
    systemd.heard();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(systemd.heard(), [""; 0]);
    assert_eq!(live().await, 503);
}

#[tokio::test]
async fn a_node_whose_systemd_hears_nothing_runs_and_tells_the_log() {
    let nowhere = Systemd::new();
    let path = nowhere.path();
    std::fs::remove_file(&path).expect("it was there");
    let node = under(&path, Plan::dev()).start().await;
    // The watchdog is fed by a thread of its own, which may be first.
    wait::until("READY to be missed", async || {
        let told = node.log_lines("systemd_notice_failed");
        let is_ready = |line: &Value| log_field(line, "what") == Some(&"READY".into());
        told.iter().any(is_ready).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_whose_systemd_reads_nothing_starts_and_stops_all_the_same() {
    let deaf = Systemd::new();
    // Its queue is full before the node begins.
    let filler = UnixDatagram::unbound().expect("a socket");
    filler.set_nonblocking(true).expect("it can be set");
    while filler.send_to(b"x", deaf.path()).is_ok() {}
    let plan = under(&deaf.path(), Plan::dev()).env("FANFARE_DRAIN__WINDOW_MS", "0");
    let mut node = plan.start().await;
    // READY is tried again until it went.
    deaf.heard();
    deaf.hears("READY=1").await;
    while filler.send_to(b"x", deaf.path()).is_ok() {}
    node.signal("TERM");
    assert_eq!(node.ended().await.code(), Some(0));
    let told = node.log_lines("systemd_notice_failed");
    let of = |what: &str| {
        let is_of = |line: &&Value| log_field(line, "what") == Some(&what.into());
        told.iter().filter(is_of).count()
    };
    assert_eq!((of("READY"), of("STOPPING")), (1, 1), "{told:?}");
}

#[tokio::test]
async fn a_socket_of_systemds_without_a_path_is_found() {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::SocketAddr;
    let folder = tempfile::tempdir().expect("a folder");
    // No other test has this name.
    let name = folder.path().display().to_string();
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let socket = UnixDatagram::bind_addr(&address).expect("a socket");
    socket.set_nonblocking(true).expect("it can be set");
    let systemd = Systemd { folder, socket };
    let at = PathBuf::from(format!("@{name}"));
    let _node = under(&at, Plan::dev()).start_unready().await;
    systemd.hears("READY=1").await;
}

#[tokio::test]
async fn a_line_for_cloudwatch_is_written_where_a_namespace_is_set_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let (with, without) = (folder.path().join("with"), folder.path().join("without"));
    let silent = Plan::dev().stdout(&without).start().await;
    let plan = Plan::dev().flag("--node-id=one").stdout(&with);
    let node = plan
        .env("FANFARE_TELEMETRY__EMF_NAMESPACE", "Fanfare/Test")
        .start()
        .await;
    let text = wait::until("a line", async || {
        let text = std::fs::read_to_string(&with).expect("the file is there");
        text.ends_with('\n').then_some(text)
    })
    .await;
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let line = lines.first().expect("a line");
    assert_eq!(line["fanfare_ready"], 1, "the first one waits for that");
    let of_cloudwatch = &line["_aws"]["CloudWatchMetrics"][0];
    assert_eq!(of_cloudwatch["Namespace"], "Fanfare/Test");
    for metric in of_cloudwatch["Metrics"].as_array().expect("a list") {
        let name = metric["Name"].as_str().expect("text");
        assert!(line[name].is_number(), "{name} in {line}");
    }
    assert_eq!(line["fanfare_sessions"], 0);
    assert_eq!(line["fanfare_queue_pressure"], 0);
    assert_eq!(
        (&line["service"], &line["node"]),
        (&"fanfare".into(), &"one".into())
    );
    assert!(node.is_ready().await && silent.is_ready().await);
    let nothing = std::fs::read_to_string(&without).expect("the file is there");
    assert_eq!(nothing, "");
}

/// Few enough for any machine.
const SESSIONS: usize = 60;

/// The settings of a node that stops soon.
const SOON: [(&str, &str); 4] = [
    ("FANFARE_SERVER__CONNECTIONS_MAX", "60"),
    ("FANFARE_DRAIN__WINDOW_MS", "2000"),
    ("FANFARE_DRAIN__COMMANDS_TIMEOUT_MS", "500"),
    ("FANFARE_SESSION__CLOSE_TIMEOUT_MS", "1000"),
];

/// What `config show` says of a node with these settings.
fn longest_s() -> u64 {
    let output = Command::new(program::fanfare())
        .args(["config", "show", "--dev"])
        .envs(SOON)
        .output()
        .expect("the binary starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let rows = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let mut found = rows.filter(|row| row["key"] == "stop.longest_s");
    let row = found.next().expect("it is shown");
    row["value"].as_u64().expect("a number")
}

async fn silent(node: &Node) -> Vec<Raw> {
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(Raw::upgraded(node.public, "/v1/connect?user=ada").await);
    }
    wait::until("all sessions", async || {
        let count = node.metric("fanfare_sessions").await;
        (count == SESSIONS as u64).then_some(())
    })
    .await;
    sessions
}

#[tokio::test]
async fn a_node_full_of_sessions_that_never_answer_stops_within_what_config_show_says() {
    let _turn = turns::heavy().await;
    let plan = SOON
        .iter()
        .fold(Plan::dev(), |plan, (name, value)| plan.env(name, value));
    let mut node = plan.start().await;
    let sessions = silent(&node).await;
    let told = Instant::now();
    assert_eq!(node.terminate().await.code(), Some(0));
    let took = told.elapsed();
    println!("{took:?} of {} s", longest_s());
    assert!(took < Duration::from_secs(longest_s()), "{took:?}");
    // They were waited for: nobody had said anything by then.
    assert!(took > Duration::from_secs(1), "{took:?}");
    drop(sessions);
}
