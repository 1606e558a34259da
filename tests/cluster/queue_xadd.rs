//! What docs/queue.md promises to backends that enqueue by themselves: its examples, run as they are.
//!
//! In: the programs below `examples/queue/`, in the languages that this machine has; `scripts/test`
//! installs the packages that they need. Out: the partitions that they compute, the entries that they
//! write, and the messages that sessions get of them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bytes::Bytes;
use fanfare::broker::queue::entry::of_fields;
use fanfare_protocol::form::Encoding;
use fanfare_protocol::ids::{Position, Priority, Topic};
use fanfare_testkit::node::Plan;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use serde_json::json;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const NAMES: [&str; 5] = ["orders:7", "@alice", "@", "user/42", "@alice@example.com"];

fn partition(name: &str) -> u32 {
    let topic = Topic::from_qualified(&format!("default:{name}"));
    topic.expect("a good name").partition(256)
}

/// Where `scripts/test` puts packages.
fn installed(what: &str) -> PathBuf {
    let path = Path::new(ROOT).join("target/clients").join(what);
    let shown = path.display();
    assert!(
        path.exists(),
        "{shown} is missing: run scripts/test, which installs it"
    );
    path
}

/// One example.
struct Example {
    file: &'static str,
    program: Vec<PathBuf>,
    /// Whether it takes an address instead of a URL.
    is_bare: bool,
}

/// All that this machine can run. The one in Go is built once.
fn examples(directory: &Path) -> Vec<Example> {
    let path = |file: &str| Path::new(ROOT).join("examples/queue").join(file);
    let mut examples = vec![
        Example {
            file: "enqueue.py",
            program: vec![installed("venv/bin/python"), path("enqueue.py")],
            is_bare: false,
        },
        Example {
            file: "enqueue.mjs",
            program: vec!["node".into(), path("enqueue.mjs")],
            is_bare: false,
        },
    ];
    let built = directory.join("enqueue");
    let build = Command::new("go")
        .args(["build", "-o"])
        .args([&built, &path("enqueue.go")])
        .output();
    match build {
        Err(_) => println!("there is no Go here: enqueue.go is left out"),
        Ok(build) => {
            let told = String::from_utf8_lossy(&build.stderr);
            assert!(build.status.success(), "{told}");
            examples.push(Example {
                file: "enqueue.go",
                program: vec![built],
                is_bare: true,
            });
        }
    }
    examples
}

impl Example {
    fn end(&self, arguments: &[&str]) -> Output {
        Command::new(&self.program[0])
            .args(&self.program[1..])
            .args(arguments)
            .env("NODE_PATH", installed("node_modules"))
            .output()
            .expect("the example starts")
    }

    fn address(&self, redis: &RedisServer) -> String {
        match self.is_bare {
            true => redis.address().to_string(),
            false => redis.url(),
        }
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.end(arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {told}", self.file);
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Enqueues, and gives the id that it printed.
    fn enqueue(&self, redis: &RedisServer, priority: &str, name: &str, data: &str) -> String {
        let printed = self.run(&[&self.address(redis), priority, name, data]);
        printed.trim().to_owned()
    }
}

#[test]
fn the_examples_compute_the_partitions_that_nodes_do_and_the_page_shows_both() {
    let page = std::fs::read_to_string(Path::new(ROOT).join("docs/queue.md")).expect("the page");
    let directory = tempfile::tempdir().expect("a directory");
    for example in examples(directory.path()) {
        let told = example.run(&[&["--partition"], &NAMES[..]].concat());
        let wanted = NAMES.map(|name| format!("{name} {}\n", partition(name)));
        assert_eq!(told, wanted.concat(), "{}", example.file);
    }
    for file in ["enqueue.py", "enqueue.mjs", "enqueue.go"] {
        let text = std::fs::read_to_string(Path::new(ROOT).join("examples/queue").join(file));
        assert!(
            page.contains(&text.expect("the example")),
            "{file} is not as in docs/queue.md"
        );
    }
    for name in NAMES {
        let (kind, target) = match name.strip_prefix('@') {
            Some(user) if !user.is_empty() => ("user", user),
            _ => ("topic", name),
        };
        let row = format!("| `{kind}` `{target}`");
        let row = page.lines().find(|line| line.starts_with(&row));
        let row = row.unwrap_or_else(|| panic!("no row for {name}"));
        assert!(row.ends_with(&format!("| {} |", partition(name))), "{row}");
    }
}

#[tokio::test]
async fn what_the_examples_write_is_read_as_an_entry_of_its_target() {
    let redis = RedisServer::start().await;
    let directory = tempfile::tempdir().expect("a directory");
    for example in examples(directory.path()) {
        for name in ["orders:7", "@alice", "@"] {
            let id = example.enqueue(&redis, "high", name, r#"{"a": 1.10}"#);
            let key = format!("ff:q:{{{}}}:high", partition(name));
            let entry = redis.ask(&["XREVRANGE", &key, "+", "-", "COUNT", "1"]);
            let mut words = entry.expect("an entry").into_iter();
            let what = format!("{} for {name}: {words:?}", example.file);
            let id_there = words.find(|word| *word == id);
            assert!(id_there.is_some(), "{what}");
            let rest: Vec<Bytes> = words.map(Bytes::from).collect();
            let fields: Vec<_> = rest
                .chunks_exact(2)
                .map(|pair| (pair[0].clone(), pair[1].clone()))
                .collect();
            let id: Position = id.parse().expect("an id");
            let message = of_fields(&fields, id, Priority::High, |_| false);
            let message = message.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(message.topic.name(), name, "{what}");
            assert_eq!(
                &message.publication.data.bytes()[..],
                br#"{"a": 1.10}"#,
                "{what}"
            );
        }
    }
}

#[tokio::test]
async fn a_misspelt_priority_is_an_error_of_the_examples_and_writes_nothing() {
    let redis = RedisServer::start().await;
    let directory = tempfile::tempdir().expect("a directory");
    for example in examples(directory.path()) {
        for priority in ["hihg", "High", ""] {
            let output = example.end(&[&example.address(&redis), priority, "orders:7", "1"]);
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{}: {told}", example.file);
            let words = "the priority must be one of critical, high, normal, low";
            assert!(told.starts_with(words), "{}: {told}", example.file);
            let keys = redis.command(&["DBSIZE"]);
            assert_eq!(keys.as_deref(), Some(":0"), "{}", example.file);
        }
    }
}

#[tokio::test]
async fn what_the_examples_enqueue_is_published() {
    let redis = RedisServer::start().await;
    let node = Plan::clustered("one", &redis.url()).start().await;
    let directory = tempfile::tempdir().expect("a directory");
    for (number, example) in examples(directory.path()).iter().enumerate() {
        let mut talk = Talk::welcomed(&node.connect_url("?user=alice"), Encoding::Json)
            .await
            .0;
        let data = json!({"by": example.file, "number": number}).to_string();
        example.enqueue(&redis, "high", "@alice", &data);
        // What the others have left in the inbox comes before it.
        let message = talk
            .event(|event| event["data"]["by"] == example.file)
            .await;
        assert_eq!(message["topic"], "@alice", "{message}");
        assert_eq!(message["priority"], "high", "{message}");
        let key = format!("ff:q:{{{}}}:high", partition("@alice"));
        assert_eq!(redis.command(&["XLEN", &key]).as_deref(), Some(":0"));
    }
}
