//! `fanfare subscribe` against a server that the test plays by hand: what the client says after
//! each break, what it prints, and with which code it ends.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use fanfare_testkit::played::{Server, message};
use fanfare_testkit::wait;

/// The running binary; killed when a test gives up on it.
struct Running {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Running {
    fn start(server: &Server, arguments: &[&str]) -> Self {
        let mut child = Command::new(fanfare_testkit::program::fanfare())
            .arg("subscribe")
            .args(arguments)
            .env("FANFARE_URL", server.url())
            .env_remove("FANFARE_TOKEN")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().map(read_all);
        let stderr = child.stderr.take().map(read_all);
        Self {
            child,
            stdout,
            stderr,
        }
    }

    async fn end(mut self) -> Ended {
        let ended = async || self.child.try_wait().expect("a child");
        let status = wait::until("it to end", ended).await;
        let text =
            |reader: Option<JoinHandle<String>>| reader.expect("started").join().expect("no panic");
        Ended {
            code: status.code(),
            stdout: text(self.stdout.take()),
            stderr: text(self.stderr.take()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_all(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("UTF-8");
        text
    })
}

impl Ended {
    /// The JSON lines without those about connections.
    fn events(&self) -> Vec<Value> {
        let events = self
            .stdout
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("a JSON line"));
        events
            .filter(|event| event["type"] != "disconnected" && event["type"] != "reconnected")
            .collect()
    }
}

#[tokio::test]
async fn after_a_break_it_resumes_where_it_was_and_tells_what_is_gone() {
    let server = Server::start().await;
    let arguments = [
        "news",
        "--since",
        "3-0",
        "--count",
        "4",
        "--presence",
        "--user",
        "a|b",
    ];
    let running = Running::start(&server, &arguments);

    let ok = json!({"recovered": true, "position": "3-0", "count": 1});
    let (mut session, subscribe) = server.joined(ok).await;
    assert_eq!(session.uri, "/v1/connect?wait=1&user=a%7Cb");
    let expected = json!({"type": "subscribe", "topic": "news", "since": "3-0", "presence": true});
    assert_eq!(subscribe, expected);
    session.message("news", "4-0").await;
    session.message("news", "5-0").await;
    drop(session);

    // The second time the newest position is asked for, and it is still known.
    let kept = json!({"news": {"recovered": true, "position": "5-0", "count": 1}});
    let (mut session, topics) = server.resumed(kept).await;
    let expected = json!([{"topic": "news", "since": "5-0", "presence": true}]);
    assert_eq!(topics, expected);
    session.message("news", "6-0").await;
    session.message("@", "9-9").await;
    drop(session);

    // The third time something is gone.
    let lost = json!({"recovered": false, "gap_reason": "retention", "position": "8-0"});
    let (mut session, topics) = server.resumed(json!({"news": lost})).await;
    let everyone = json!({"topic": "@", "since": "9-9"});
    let news = json!({"topic": "news", "since": "6-0", "presence": true});
    assert_eq!(topics, json!([everyone, news]));
    session.message("news", "9-0").await;

    let ended = running.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let members = json!({"type": "gap", "topic": "news", "of": "presence", "reason": "lost"});
    let expected = [
        json!({"type": "subscribed", "topic": "news", "recovered": true, "position": "3-0", "count": 1}),
        message("news", "4-0"),
        message("news", "5-0"),
        members.clone(),
        message("news", "6-0"),
        json!({"type": "gap", "topic": "news", "from": "6-0", "to": "8-0", "reason": "retention"}),
        members,
        message("news", "9-0"),
    ];
    assert_eq!(ended.events(), expected);
    assert!(matches!(session.ended().await, Some(Message::Close(_))));
}

#[tokio::test]
async fn people_read_messages_on_stdout_and_everything_else_on_stderr() {
    let server = Server::start().await;
    let running = Running::start(&server, &["news", "--format", "text", "--count", "2"]);
    let (mut session, subscribe) = server
        .joined(json!({"recovered": true, "position": "1-0"}))
        .await;
    assert_eq!(subscribe, json!({"type": "subscribe", "topic": "news"}));
    session.message("news", "2-0").await;
    let gap = json!({"type": "gap", "topic": "news", "from": "2-0", "to": "4-0", "reason": "slow", "dropped": 2});
    session.say(gap).await;
    session
        .say(json!({"type": "drain", "reconnect_after_ms": 0}))
        .await;
    // Told to go, the client goes by itself and takes the place after the gap along.
    assert!(matches!(session.ended().await, Some(Message::Close(_))));
    let kept = json!({"news": {"recovered": true, "position": "4-0"}});
    let (mut session, topics) = server.resumed(kept).await;
    assert_eq!(topics[0]["since"], "4-0");
    session.message("news", "5-0").await;

    let ended = running.end().await;
    assert_eq!(ended.code, Some(0));
    assert_eq!(
        ended.stdout,
        "00:00:01.007Z news 2-0  hi\n00:00:01.007Z news 5-0  hi\n"
    );
    for line in [
        "-- joined news after 1-0",
        "-- gap in news after 2-0 up to 4-0: lost (slow), 2 messages",
        "-- the node is leaving; connecting again soon",
        "-- connected again, to node n",
    ] {
        assert!(ended.stderr.contains(line), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn an_inbox_begins_where_it_was_told_and_is_resumed_by_connect() {
    let server = Server::start().await;
    let arguments = [
        "--inbox", "--since", "5-0", "--count", "2", "--token", "t0ken",
    ];
    let running = Running::start(&server, &arguments);
    let inbox = json!({"node": "n", "inbox": {"topic": "@alice", "position": "1-0", "pending": 9}});
    let (session, connect) = server.welcome(inbox.clone()).await;
    assert_eq!(session.authorization.as_deref(), Some("Bearer t0ken"));
    assert_eq!(connect, json!({"type": "connect"}));

    let mut welcome = inbox;
    welcome["topics"] = json!({"@alice": {"recovered": true, "position": "5-0"}});
    let (mut session, connect) = server.welcome(welcome.clone()).await;
    let from = |since: &str| json!([{"topic": "@alice", "since": since}]);
    assert_eq!(connect["topics"], from("5-0"));
    session.message("@alice", "6-0").await;
    drop(session);

    let (mut session, connect) = server.welcome(welcome).await;
    assert_eq!(connect["topics"], from("6-0"));
    session.message("@alice", "7-0").await;

    let ended = running.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let expected = [message("@alice", "6-0"), message("@alice", "7-0")];
    assert_eq!(ended.events(), expected);
}

#[tokio::test]
async fn it_does_not_come_back_where_it_is_not_wanted() {
    for (code, exit) in [(4001, 77), (4002, 1)] {
        let server = Server::start().await;
        let running = Running::start(&server, &["news"]);
        let (mut session, _) = server
            .joined(json!({"recovered": true, "position": "1-0"}))
            .await;
        session.close(code).await;
        let ended = running.end().await;
        assert_eq!(ended.code, Some(exit), "{}", ended.stderr);
        let says = format!("closed by the server with {code} (because)");
        assert!(ended.stderr.contains(&says), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_refused_handshake_or_command_ends_it_with_the_code_for_its_cause() {
    for (head, exit) in [
        ("401 Unauthorized", 77),
        ("503 Service Unavailable\r\nRetry-After: 1", 69),
        ("404 Not Found", 1),
    ] {
        let server = Server::start().await;
        let running = Running::start(&server, &["news"]);
        server.refuse(head).await;
        let ended = running.end().await;
        assert_eq!(ended.code, Some(exit), "{}", ended.stderr);
        assert!(ended.stderr.contains("hint: "), "{}", ended.stderr);
    }
    let server = Server::start().await;
    let running = Running::start(&server, &["news"]);
    let (mut session, _) = server.welcome(json!({"node": "n"})).await;
    let subscribe = session.hear().await;
    let error = json!({"code": "forbidden", "message": "not yours", "retry": false});
    session.answer(&subscribe, "error", error).await;
    let ended = running.end().await;
    assert_eq!(ended.code, Some(77));
    assert!(
        ended.stderr.contains("forbidden: not yours"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn ctrl_c_ends_it_with_130() {
    let server = Server::start().await;
    let running = Running::start(&server, &["news"]);
    let (_session, _) = server
        .joined(json!({"recovered": true, "position": "1-0"}))
        .await;
    let pid = running.child.id().to_string();
    let kill = Command::new("kill").args(["-INT", &pid]).status();
    assert!(kill.expect("kill runs").success());
    assert_eq!(running.end().await.code, Some(130));
}
