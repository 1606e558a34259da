//! Getting in: TLS with certificates of either side, users, passwords; refused, told, mended.

use fanfare::broker::FeedEvent;
use fanfare::broker::redis::RedisBroker;
use fanfare::config::RedisAccess;
use fanfare::telemetry::metrics::Metrics;

use crate::rig::{Peer, settings, topic};
use crate::support::certificates::{Authority, Files, NAME};
use crate::support::redis_server::RedisServer;

/// Lets a server speak TLS with a certificate of this authority on a port of its own.
fn open_tls(server: &RedisServer, files: &Files, authority: &Authority, clients: &str) -> String {
    let port = RedisServer::not_yet().port();
    let (certificate, key) = authority.sign(NAME);
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
fn trusting(ca_file: String) -> RedisAccess {
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
async fn a_server_that_asks_for_a_certificate_gets_one() {
    let server = RedisServer::start().await;
    let (files, authority) = (Files::new(), Authority::new());
    let url = open_tls(&server, &files, &authority, "yes");
    let ca_file = files.write("ca.pem", &authority.pem);
    let bare = Peer::start_with(&settings(url.clone(), trusting(ca_file.clone())));
    bare.is_down_for("Redis does not take this node's certificate")
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
