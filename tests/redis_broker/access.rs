//! Getting in: TLS with certificates of either side, users, passwords; refused, told, mended.

use std::sync::Arc;

use fanfare::broker::redis::RedisBroker;
use fanfare::broker::{BrokerHealth, FeedEvent};
use fanfare::config::RedisAccess;
use fanfare::telemetry::metrics::Metrics;

use crate::rig::{Peer, settings, topic};
use fanfare_testkit::certificates::{Authority, Files, NAME, self_made};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait::{self, PATIENCE};

/// Lets a server speak TLS with a certificate of this authority on a port of its own.
pub(crate) fn open_tls(
    server: &RedisServer,
    files: &Files,
    authority: &Authority,
    clients: &str,
) -> String {
    open_tls_with(server, files, authority, authority.sign(NAME), clients)
}

/// The same with this certificate and key.
fn open_tls_with(
    server: &RedisServer,
    files: &Files,
    authority: &Authority,
    (certificate, key): (String, String),
    clients: &str,
) -> String {
    let port = RedisServer::not_yet().port();
    let answer = server.command(&[
        "CONFIG",
        "SET",
        "tls-cert-file",
        &files.write("server.pem", &certificate),
        "tls-key-file",
        &files.write("server.key", &key),
        "tls-ca-cert-file",
        &files.write("clients-ca.pem", &authority.pem),
        "tls-auth-clients",
        clients,
        "tls-port",
        &port.to_string(),
    ]);
    assert_eq!(answer.as_deref(), Some("+OK"));
    format!("rediss://127.0.0.1:{port}")
}

/// Trusts what is in this file, and expects [`NAME`].
pub(crate) fn trusting(ca_file: String) -> RedisAccess {
    RedisAccess {
        tls_ca_file: Some(ca_file),
        tls_server_name: Some(NAME.to_owned()),
        ..RedisAccess::default()
    }
}

/// Publishes and hears it.
async fn works(mut peer: Peer) {
    peer.is_up().await;
    let room = topic("room");
    peer.hear(&room).await;
    peer.publish(&room, 1).await.expect("up");
    let event = peer.next().await;
    assert!(matches!(event, FeedEvent::Delivery { .. }), "{event:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_and_feed_go_through_tls_to_the_name_that_was_expected() {
    let server = RedisServer::start().await;
    let (files, authority) = (Files::new(), Authority::new());
    let url = open_tls(&server, &files, &authority, "no");
    let ca_file = files.write("ca.pem", &authority.pem);

    let nameless = RedisAccess {
        tls_server_name: None,
        ..trusting(ca_file.clone())
    };
    let misled = Peer::start_with(&settings(url.clone(), nameless));
    misled
        .is_down_for("the certificate of Redis is for another name: see redis.tls_server_name")
        .await;

    works(Peer::start_with(&settings(
        url.clone(),
        trusting(ca_file.clone()),
    )))
    .await;
    let valkeys = url.replace("rediss://", "valkeys://");
    works(Peer::start_with(&settings(valkeys, trusting(ca_file)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_ca_is_refused_and_the_mended_file_is_taken_up() {
    let server = RedisServer::start().await;
    let (files, authority) = (Files::new(), Authority::new());
    let url = open_tls(&server, &files, &authority, "no");
    let ca_file = files.write("ca.pem", &Authority::new().pem);
    let peer = Peer::start_with(&settings(url, trusting(ca_file)));
    peer.is_down_for("the certificate of Redis").await;
    files.write("ca.pem", "half written");
    peer.is_down_for("there is no certificate in it").await;
    files.write("ca.pem", &authority.pem);
    works(peer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_certificates_count_for_the_next_connection() {
    let server = RedisServer::start().await;
    let (files, authority) = (Files::new(), Authority::new());
    let url = open_tls(&server, &files, &authority, "no");
    let ca_file = files.write("ca.pem", &authority.pem);
    let peer = Peer::start_with(&settings(url, trusting(ca_file)));
    peer.is_up().await;
    let cut = async || {
        let reconnects = || peer.metrics.control.redis_reconnects.get();
        let before = reconnects();
        let cut = server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        assert!(cut.is_some_and(|count| count.starts_with(':')));
        wait::until_within(PATIENCE, "new connections", async || {
            (reconnects() > before).then_some(())
        })
        .await;
    };
    // It cannot be used: what was read before stays.
    files.write("ca.pem", "half written");
    cut().await;
    peer.is_up().await;
    // No longer trusted, though it was when the client was made.
    files.write("ca.pem", &Authority::new().pem);
    let killed = server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert!(killed.is_some_and(|count| count.starts_with(':')));
    peer.is_down_for("the certificate of Redis").await;
    files.write("ca.pem", &authority.pem);
    works(peer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_asks_for_a_certificate_gets_one() {
    let server = RedisServer::start().await;
    let (files, authority) = (Files::new(), Authority::new());
    let url = open_tls(&server, &files, &authority, "yes");
    let ca_file = files.write("ca.pem", &authority.pem);
    let bare = Peer::start_with(&settings(url.clone(), trusting(ca_file.clone())));
    bare.is_down_for("Redis asks this node for a certificate")
        .await;
    let (certificate, key) = Authority::new().sign("fanfare");
    let strange = RedisAccess {
        tls_certificate_file: Some(files.write("strange.pem", &certificate)),
        tls_key_file: Some(files.write("strange.key", &key)),
        ..trusting(ca_file.clone())
    };
    let strange = Peer::start_with(&settings(url.clone(), strange));
    strange
        .is_down_for("Redis does not take this node's certificate")
        .await;

    let (certificate, key) = authority.sign("fanfare");
    let shown = RedisAccess {
        tls_certificate_file: Some(files.write("client.pem", &certificate)),
        tls_key_file: Some(files.write("client.key", &key)),
        ..trusting(ca_file)
    };
    works(Peer::start_with(&settings(url, shown))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_used_ends_the_start() {
    let files = Files::new();
    let authority = Authority::new();
    let refusal = |access: RedisAccess| {
        let settings = settings("rediss://127.0.0.1:1".to_owned(), access);
        let metrics = std::sync::Arc::new(Metrics::new(0));
        let started = RedisBroker::start(&settings, metrics);
        started.expect_err("nothing can be started").to_string()
    };
    let absent = files.path("absent.pem");
    let text = refusal(trusting(absent.clone()));
    let begin = format!("redis.tls_ca_file {absent} cannot be used: ");
    assert!(text.starts_with(&begin), "{text}");

    let empty = files.write("empty.pem", "");
    let expected =
        format!("redis.tls_ca_file {empty} cannot be used: there is no certificate in it");
    assert_eq!(refusal(trusting(empty)), expected);

    let (certificate, _) = authority.sign("one");
    let (_, key) = authority.sign("another");
    let mismatched = RedisAccess {
        tls_certificate_file: Some(files.write("one.pem", &certificate)),
        tls_key_file: Some(files.write("another.key", &key)),
        ..trusting(files.write("ca.pem", &authority.pem))
    };
    let text = refusal(mismatched);
    assert!(
        text.starts_with("TLS to Redis cannot be set up: "),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_password_is_taken_up_with_the_next_connection() {
    let server = RedisServer::start().await;
    let files = Files::new();
    server.url_of_user();
    let access = RedisAccess {
        user: Some("fanfare".to_owned()),
        password_file: Some(files.write("password", "secret\n")),
        ..RedisAccess::default()
    };
    let peer = Peer::start_with(&settings(server.url(), access));
    peer.is_up().await;

    let answer = server.command(&["ACL", "SETUSER", "fanfare", "resetpass", ">another"]);
    assert_eq!(answer.as_deref(), Some("+OK"));
    // Connections that stand are not asked again.
    peer.publish(&topic("room"), 1).await.expect("still up");
    let cut = || server.command(&["CLIENT", "KILL", "USER", "fanfare"]);
    cut().expect("the server runs");
    peer.is_down_for(
        "WRONGPASS invalid username-password pair or user is disabled. (look into redis.user",
    )
    .await;
    files.write("password", "");
    peer.is_down_for("cannot be used: it is empty").await;
    files.write("password", "another");
    works(peer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_user_of_the_documents_is_never_refused_anything() {
    let server = RedisServer::start().await;
    works(Peer::start(server.url_of_user())).await;
    // Channels of another database have its number in their names.
    works(Peer::start(format!("{}/3", server.url_of_user()))).await;
    assert_eq!(server.command(&["ACL", "LOG"]).as_deref(), Some("*0"));
    // The log does tell what is refused.
    let stranger = Peer::start(server.url_of_user());
    stranger.is_up().await;
    let rights = ["ACL", "SETUSER", "fanfare", "-evalsha"];
    assert_eq!(server.command(&rights).as_deref(), Some("+OK"));
    stranger.is_down_for("NOPERM").await;
    assert_ne!(server.command(&["ACL", "LOG"]).as_deref(), Some("*0"));
}

/// What is wrong with a certificate is a sentence that says what to do, and nothing of the insides
/// of a library.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_of_a_certificate_is_told_in_a_sentence() {
    let server = RedisServer::start().await;
    let (files, authority) = (Files::new(), Authority::new());
    let (year, other_year) = (
        rcgen::date_time_ymd(2020, 1, 1),
        rcgen::date_time_ymd(2021, 1, 1),
    );
    let (next, after_next) = (
        rcgen::date_time_ymd(2190, 1, 1),
        rcgen::date_time_ymd(2191, 1, 1),
    );
    let of_version_1 = include_str!("../recorded/certificate_v1.pem");
    let key_at = of_version_1.find("-----BEGIN PRIVATE").expect("a key");
    let (certificate, key) = of_version_1.split_at(key_at);
    let itself = self_made(NAME);
    let cases = [
        ("is that of a CA", itself.clone(), itself.0),
        (
            "has expired",
            authority.sign_as(NAME, |params| {
                (params.not_before, params.not_after) = (year, other_year);
            }),
            authority.pem.clone(),
        ),
        (
            "is not valid yet",
            authority.sign_as(NAME, |params| {
                (params.not_before, params.not_after) = (next, after_next);
            }),
            authority.pem.clone(),
        ),
        (
            "is for another name",
            authority.sign("another.test"),
            authority.pem.clone(),
        ),
        (
            "is not for a server",
            authority.sign_as(NAME, |params| {
                params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
            }),
            authority.pem.clone(),
        ),
        (
            "is of version 1",
            (certificate.to_owned(), key.to_owned()),
            authority.pem.clone(),
        ),
        (
            "no CA that this node trusts has signed",
            Authority::new().sign(NAME),
            authority.pem.clone(),
        ),
    ];
    for (words, pair, trusted) in cases {
        let url = open_tls_with(&server, &files, &authority, pair, "no");
        let ca_file = files.write("trusted.pem", &trusted);
        let peer = Peer::start_with(&settings(url, trusting(ca_file)));
        peer.is_down_for(words).await;
        let told = peer.is_down().await;
        for inside in ["InvalidCertificate", "Custom", "kind:", "Error("] {
            assert!(!told.contains(inside), "{told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_on_a_plain_port_and_plain_on_one_of_tls_say_which_to_write() {
    let server = RedisServer::start().await;
    let (files, authority) = (Files::new(), Authority::new());
    let tls = open_tls(&server, &files, &authority, "no");
    let plain = Peer::start(tls.replace("rediss://", "redis://"));
    plain.is_down_for("write rediss:// in redis.url").await;
    let told = plain.is_down().await;
    assert!(told.contains("Connection reset by peer (if"), "{told}");
    let ca_file = files.write("ca.pem", &authority.pem);
    let url = server.url().replace("redis://", "rediss://");
    let tls = Peer::start_with(&settings(url, trusting(ca_file)));
    tls.is_down_for("with rediss:// also where it waits for plain commands")
        .await;
}

/// Every printable character, and some that are more than a byte.
fn passwords() -> Vec<String> {
    let printable: String = (' '..='~').collect();
    let fixed = [
        "two words",
        " spaces around ",
        "qu\"ote",
        "it's",
        "back\\slash\\x41\\n",
        "#/?%@:&=+",
        "%41%zz",
        "ünï→✓",
        "\"",
    ];
    let fixed = fixed.into_iter().map(str::to_owned);
    fixed.chain([printable]).collect()
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_password_works_in_every_form() {
    let server = RedisServer::start().await;
    let (files, authority) = (Files::new(), Authority::new());
    let tls = open_tls(&server, &files, &authority, "no");
    let ca_file = files.write("ca.pem", &authority.pem);
    let user = "ops: team\"one";
    for password in passwords() {
        let set = [
            "ACL",
            "SETUSER",
            "ada",
            "reset",
            "on",
            &format!(">{password}"),
            "~*",
            "&*",
            "+@all",
        ];
        assert_eq!(server.command(&set).as_deref(), Some("+OK"), "{password}");
        let login = format!("ada:{}@", encoded(&password));
        let url = server
            .url()
            .replace("redis://", &format!("redis://{login}"));
        Peer::up(url).await;
        let url = tls.replace("rediss://", &format!("rediss://{login}"));
        let peer = Peer::start_with(&settings(url, trusting(ca_file.clone())));
        peer.is_up().await;
        let by_file = RedisAccess {
            user: Some("ada".to_owned()),
            password_file: Some(files.write("password", &format!("{password}\n"))),
            ..RedisAccess::default()
        };
        let peer = Peer::start_with(&settings(server.url(), by_file));
        peer.is_up().await;
    }
    // Users have names of any kind too; of the default user only the password is given, last.
    let password = passwords().pop().expect("some");
    let secret = format!(">{password}");
    let set = [
        "ACL", "SETUSER", user, "reset", "on", &secret, "~*", "&*", "+@all",
    ];
    if server.command(&set).as_deref() == Some("+OK") {
        let login = format!("redis://{}:{}@", encoded(user), encoded(&password));
        Peer::up(server.url().replace("redis://", &login)).await;
    }
    let set = ["CONFIG", "SET", "requirepass", &password];
    assert_eq!(server.command(&set).as_deref(), Some("+OK"));
    let login = format!("redis://:{}@", encoded(&password));
    Peer::up(server.url().replace("redis://", &login)).await;
    let by_file = RedisAccess {
        password_file: Some(files.write("password", &password)),
        ..RedisAccess::default()
    };
    let peer = Peer::start_with(&settings(server.url(), by_file));
    peer.is_up().await;
    std::fs::write(files.path("password"), b"p\xe4ss").expect("a file of the test");
    let by_file = RedisAccess {
        password_file: Some(files.path("password")),
        ..RedisAccess::default()
    };
    let peer = Peer::start_with(&settings(server.url(), by_file));
    peer.is_down_for("is not UTF-8").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_of_the_same_machine_is_used_like_a_port() {
    let files = Files::new();
    let path = files.path("redis.sock");
    let mut server = RedisServer::with(&["--unixsocket", &path]);
    server.restart().await;
    server.url_of_user();
    let peer = Peer::up(format!("unix://{path}")).await;
    let circuits = peer.broker.circuits();
    assert!(
        circuits.iter().all(|(name, ..)| name.starts_with(&path)),
        "{circuits:?}"
    );
    peer.publish(&topic("room"), 1).await.expect("up");
    let other = Peer::up(format!("unix://fanfare:secret@{path}")).await;
    assert_eq!(other.retained(&topic("room")).await.len(), 1);
    drop(other);
    let database = Peer::up(format!("unix://{path}?db=1")).await;
    assert_eq!(database.retained(&topic("room")).await.len(), 0);
    server.kill();
    peer.is_down_for(&path).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_whose_channel_is_forbidden_holds_up_no_other() {
    let server = RedisServer::start().await;
    let mut peer = Peer::up(server.url_of_user()).await;
    // The fixed channels, and those of topics that end in "allowed".
    let only = ["&*:probe:*", "&*:ctl", "&*allowed*"];
    let mut rights = vec!["ACL", "SETUSER", "fanfare", "resetchannels"];
    rights.extend(only);
    assert_eq!(server.command(&rights).as_deref(), Some("+OK"));
    let interest = peer.broker.interest();
    for n in 0..20 {
        interest.want(topic(&format!("t{n}.forbidden")));
    }
    peer.hear(&topic("one.allowed")).await;
    let metrics = Arc::clone(&peer.metrics);
    let word = || metrics.control.refusing_noperm.get();
    wait::until_within(PATIENCE, "the word", async || (word() == 1).then_some(())).await;
    let forbids = |reason: &str| reason.contains("forbidden: NOPERM (");
    // The word is counted a little before it is a part of what is told.
    wait::until_within(PATIENCE, "a part to be forbidden", async || {
        let health = peer.broker.health().borrow().clone();
        match &health {
            BrokerHealth::Partly(reason) if forbids(reason) => Ok(()),
            _ => Err(health),
        }
    })
    .await;
    peer.hear(&topic("two.allowed")).await;
    // What becomes allowed is heard without anything being built anew.
    let wished = topic("t3.forbidden");
    let wish = (wished.clone(), peer.broker.interest().want(wished));
    assert_eq!(
        server
            .command(&["ACL", "SETUSER", "fanfare", "allchannels"])
            .as_deref(),
        Some("+OK")
    );
    loop {
        if let FeedEvent::Subscribed(wishes) = peer.next().await
            && wishes.contains(&wish)
        {
            break;
        }
    }
    wait::until_within(PATIENCE, "no word", async || (word() == 0).then_some(())).await;
    peer.is_up().await;
}
