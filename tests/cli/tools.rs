//! The command line against real nodes: what it carries, what it does with bad lines, and TLS.
//!
//! In: the binary as a user runs it, and the binary as a node. Out: exit codes, and what arrives,
//! byte for byte.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use fanfare_protocol::form::Encoding;
use fanfare_testkit::certificates::{Authority, Files};
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use rcgen::date_time_ymd;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// JSON that a program which reads and writes it anew would change.
const BODIES: [&str; 8] = [
    "18446744073709551615",
    "9007199254740993",
    r#"{"b":1,"a":2}"#,
    r#"{"a":1,"a":2}"#,
    "1.10",
    "1e2",
    r#"[1.0,  -0, 0.30000000000000004]"#,
    r#""\u0041\/\u001b""#,
];

/// Runs the binary with a node's addresses, and with these bytes on standard input.
async fn fanfare(node: &Node, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(fanfare_testkit::program::fanfare());
    command
        .args(arguments)
        .env("FANFARE_API_URL", format!("http://{}", node.api))
        .env("FANFARE_URL", format!("ws://{}", node.public))
        .env_remove("FANFARE_TOKEN")
        .env_remove("FANFARE_API_KEY");
    let input = input.to_vec();
    tokio::task::spawn_blocking(move || run(command, &input))
        .await
        .expect("no panic")
}

fn run(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    // A command that reads nothing may be gone before all is written.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What `data` is in a JSON line of `subscribe`, as it stands there.
fn data_of(line: &str) -> String {
    let parsed: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_str(line).expect("a JSON line");
    parsed["data"].get().to_owned()
}

async fn carries(node: &Node) {
    for body in BODIES {
        let output = fanfare(node, &["publish", "t", body], b"").await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    let lines = BODIES.join("\n");
    let output = fanfare(node, &["publish", "t", "-"], lines.as_bytes()).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let mut talk = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::ALL[0])
        .await
        .0;
    let raw = r#"{"type":"publish","id":9,"topic":"t","data":{"b":1.10,"a":18446744073709551615}}"#;
    talk.send_bytes(raw.as_bytes()).await;
    let count = (2 * BODIES.len() + 1).to_string();
    let read = ["subscribe", "t", "--since", "0-0", "--count", &count];
    let output = fanfare(node, &read, b"").await;
    let came = text(&output.stdout);
    let came: Vec<_> = came.lines().skip(1).map(data_of).collect();
    let session = [r#"{"b":1.10,"a":18446744073709551615}"#];
    let sent: Vec<_> = [&BODIES[..], &BODIES, &session].concat();
    assert_eq!(came, sent, "{}", text(&output.stderr));

    let shown = [&read[..], &["--format", "text"]].concat();
    let shown = text(&fanfare(node, &shown, b"").await.stdout);
    for (line, body) in shown.lines().zip(BODIES) {
        let end = match body {
            r#""\u0041\/\u001b""# => r"  A/\u{1b}".to_owned(),
            body => format!("  {body}"),
        };
        assert!(line.ends_with(&end), "{line}");
    }
}

#[tokio::test]
async fn a_body_is_carried_byte_for_byte() {
    carries(&Plan::dev().start().await).await;
}

#[tokio::test]
async fn a_body_is_carried_byte_for_byte_over_redis() {
    let redis = RedisServer::start().await;
    carries(&Plan::clustered("one", &redis.url()).start().await).await;
}

#[tokio::test]
async fn what_the_contract_cannot_carry_is_refused_and_not_rounded() {
    let node = Plan::dev().start().await;
    for (body, why) in [
        ("18446744073709551616", "an integer beyond 64 bits"),
        ("-9223372036854775809", "an integer beyond 64 bits"),
        ("1e400", "not finite as a double"),
        (r#""\ud800""#, "a lone surrogate"),
    ] {
        let output = fanfare(&node, &["publish", "t", body], b"").await;
        assert_eq!(output.status.code(), Some(1), "{body}");
        assert!(
            text(&output.stderr).contains(why),
            "{}",
            text(&output.stderr)
        );
    }
    let history = http::get(node.api, "/v1/topics/t/history").await.json();
    assert_eq!(history["publications"], json!([]));
}

#[tokio::test]
async fn json_and_text_are_told_apart_where_one_asks() {
    let node = Plan::dev().start().await;
    let output = fanfare(&node, &["publish", "t", "{\"a\":1,}", "--json"], b"").await;
    assert_eq!(output.status.code(), Some(65));
    let says = text(&output.stderr);
    assert!(
        says.contains("no JSON: ") && says.contains("line 1 column 8"),
        "{says}"
    );
    let output = fanfare(&node, &["publish", "t", "{\"a\":1,}"], b"").await;
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("is published as text"));
    let output = fanfare(&node, &["publish", "t", "5", "--text"], b"").await;
    assert_eq!(output.status.code(), Some(0));
    let output = fanfare(&node, &["publish", "t", "-", "--json"], b"1\nno\n3").await;
    assert_eq!(output.status.code(), Some(65));
    assert!(text(&output.stderr).contains("line 2: the message is no JSON"));
    let history = http::get(node.api, "/v1/topics/t/history").await.text();
    for body in [r#""data":"{\"a\":1,}""#, r#""data":"5""#, r#""data":3"#] {
        assert!(history.contains(body), "{history}");
    }
}

#[tokio::test]
async fn a_bad_line_is_named_and_the_others_are_published() {
    let node = Plan::dev().start().await;
    let long = "x".repeat((4 << 20) + 1);
    let too_large = "y".repeat(70_000);
    let mut input = b"one\r\ntwo\n\xff\xfe\n\nfive \n".to_vec();
    input.extend(format!("{long}\n{too_large}\na\0b\nlast").into_bytes());
    let output = fanfare(&node, &["publish", "t", "-", "--format", "text"], &input).await;
    let says = text(&output.stderr);
    let named = [
        "fanfare: line 3 is not UTF-8 and was not sent\n",
        "fanfare: line 6 is longer than 4194304 bytes and was not sent\n",
        "fanfare: line 7: too_large: ",
    ];
    for what in named {
        assert!(says.contains(what), "{says}");
    }
    assert_eq!(says.lines().count(), named.len(), "{says}");
    assert_eq!(output.status.code(), Some(65));
    assert_eq!(text(&output.stdout).lines().count(), 5);
    let read = ["subscribe", "t", "--since", "0-0", "--count", "5"];
    let came = text(&fanfare(&node, &read, b"").await.stdout);
    let came: Vec<_> = came.lines().skip(1).map(data_of).collect();
    let sent = [
        r#""one""#,
        r#""two""#,
        r#""five ""#,
        r#""a\u0000b""#,
        r#""last""#,
    ];
    assert_eq!(came, sent);
}

#[tokio::test]
async fn positions_that_nobody_reads_stop_no_publication() {
    let node = Plan::dev().start().await;
    let mut command = Command::new(fanfare_testkit::program::fanfare());
    command
        .args(["publish", "t", "-"])
        .env("FANFARE_API_URL", format!("http://{}", node.api));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().expect("piped");
    for number in 0..50 {
        writeln!(stdin, "{number}").expect("it reads on");
    }
    drop(stdin);
    let output = tokio::task::spawn_blocking(|| child.wait_with_output());
    let output = output.await.expect("no panic").expect("it ends");
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    let history = http::get(node.api, "/v1/topics/t/history?limit=100")
        .await
        .json();
    assert_eq!(history["publications"].as_array().map(Vec::len), Some(50));
}

/// Ends TLS in front of a listener, as a balancer does, with this certificate; returns its port.
async fn front(certificate: &str, key: &str, behind: SocketAddr) -> u16 {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate and its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut outer) = acceptor.accept(stream).await else {
                    return;
                };
                let mut inner = TcpStream::connect(behind).await.expect("the node listens");
                // Ends when either side does; how is the matter of the test.
                let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn sockets_and_api_are_reached_through_tls() {
    let node = Plan::dev().start().await;
    let (files, authority) = (Files::new(), Authority::new());
    let ca = files.write("ca.pem", &authority.pem);
    let (certificate, key) = authority.sign("localhost");
    let api = front(&certificate, &key, node.api).await;
    let sockets = front(&certificate, &key, node.public).await;
    let api = format!("https://localhost:{api}");
    let sockets = format!("wss://localhost:{sockets}");
    for trust in [&["--ca", &*ca][..], &["--insecure"]] {
        let publish = ["publish", "t", "-", "--api-url", &api];
        let output = fanfare(&node, &[&publish[..], trust].concat(), b"1\n2\n").await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let nodes = ["nodes", "--api-url", &api];
        let output = fanfare(&node, &[&nodes[..], trust].concat(), b"").await;
        assert!(
            text(&output.stdout).contains("\"node\""),
            "{}",
            text(&output.stderr)
        );
        let read = [
            "subscribe",
            "t",
            "--since",
            "0-0",
            "--count",
            "2",
            "--url",
            &sockets,
        ];
        let output = fanfare(&node, &[&read[..], trust].concat(), b"").await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout).lines().count(), 3);
        let is_warned = text(&output.stderr).contains("warning: ");
        assert_eq!(is_warned, trust == ["--insecure"]);
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_told_in_a_sentence() {
    let node = Plan::dev().start().await;
    let (files, authority, other) = (Files::new(), Authority::new(), Authority::new());
    let ca = files.write("ca.pem", &authority.pem);
    let (elsewhere, elsewhere_key) = authority.sign("example.org");
    let (unknown, unknown_key) = other.sign("localhost");
    let (expired, expired_key) = authority.sign_as("localhost", |params| {
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2001, 1, 1);
    });
    let (early, early_key) = authority.sign_as("localhost", |params| {
        params.not_before = date_time_ymd(2500, 1, 1);
        params.not_after = date_time_ymd(2501, 1, 1);
    });
    let mut places = Vec::new();
    for (certificate, key, why) in [
        (&elsewhere, &elsewhere_key, "is for another name"),
        (
            &unknown,
            &unknown_key,
            "signed by nobody whom this machine trusts",
        ),
        (&expired, &expired_key, "has expired"),
        (&early, &early_key, "is not valid yet"),
    ] {
        places.push((front(certificate, key, node.public).await, why));
    }
    places.push((node.public.port(), "does not speak TLS on port"));
    let its_own = front(&authority.pem, &authority.key(), node.public).await;
    places.push((its_own, "is that of a CA"));
    for (port, why) in places {
        let sockets = format!("wss://localhost:{port}");
        let api = format!("https://localhost:{port}");
        for arguments in [
            &["subscribe", "t", "--url", &sockets, "--ca", &ca][..],
            &["nodes", "--api-url", &api, "--ca", &ca],
        ] {
            let output = fanfare(&node, arguments, b"").await;
            let says = text(&output.stderr);
            assert!(says.contains(why), "{says}");
            assert_eq!(output.status.code(), Some(69), "{says}");
        }
    }
}
