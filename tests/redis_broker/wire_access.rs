//! Our own connection, getting in: users, TLS, sockets, databases; and the words when it does not.

use fanfare::config::RedisAccess;
use fanfare::redis::access::{Target, explain};
use fanfare::redis::wire::Connection;

use crate::access::{open_tls, trusting};
use crate::rig::settings;
use crate::wire::{PATIENCE, ask};
use fanfare_testkit::certificates::{Authority, Files};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait;

async fn opened(url: &str, access: RedisAccess) -> Result<Connection<u64>, String> {
    let target = Target::new(&settings(url.to_owned(), access)).expect("a good URL");
    let opened = Connection::open(&target, "fanfare-test", PATIENCE).await;
    opened.map_err(|error| explain(&error))
}

async fn refused(url: &str, access: RedisAccess) -> String {
    opened(url, access).await.expect_err("nobody is let in")
}

/// What Redis says of the connection itself.
async fn said(connection: &mut Connection<u64>, words: &[&[u8]]) -> String {
    let answer = ask(connection, words).await.expect("an answer");
    answer.as_str().expect("a text").into_owned()
}

#[tokio::test]
async fn users_names_and_databases_are_told_with_the_first_words() {
    let server = RedisServer::start().await;
    let url = format!("{}/3", server.url_of_user());
    let mut connection = opened(&url, RedisAccess::default()).await.expect("let in");
    ask(&mut connection, &[b"SET", b"ff:key", b"1"])
        .await
        .expect("a right");
    let mut plain = opened(&server.url(), RedisAccess::default())
        .await
        .expect("let in");
    assert_eq!(
        said(&mut plain, &[b"CLIENT", b"GETNAME"]).await,
        "fanfare-test"
    );
    assert!(
        said(&mut plain, &[b"CLIENT", b"INFO"])
            .await
            .contains("resp=3")
    );
    ask(&mut plain, &[b"SELECT", b"3"])
        .await
        .expect("a database");
    assert_eq!(said(&mut plain, &[b"GET", b"ff:key"]).await, "1");
    assert_eq!(server.command(&["ACL", "LOG"]).as_deref(), Some("*0"));
}

#[tokio::test]
async fn who_is_not_let_in_is_told_why_in_the_words_of_the_client() {
    let server = RedisServer::start().await;
    let none = RedisAccess::default;
    let wrong = server.url_of_user().replace("secret", "wrong");
    let expected = "WRONGPASS invalid username-password pair or user is disabled. (look into \
                    redis.user and redis.password_file, or the login in redis.url)";
    assert_eq!(refused(&wrong, none()).await, expected);
    let far = refused(&format!("{}/99", server.url()), none()).await;
    assert!(
        far.starts_with("ERR DB index is out of range (the server has no"),
        "{far}"
    );
    server.command(&["CONFIG", "SET", "requirepass", "secret"]);
    let bare = refused(&server.url(), none()).await;
    assert!(bare.starts_with("NOAUTH "), "{bare}");
    assert!(
        bare.ends_with("(it wants a password: set redis.password_file, or a login in redis.url)")
    );
    let nobody = RedisServer::not_yet();
    assert_eq!(refused(&nobody.url(), none()).await, "Connection refused");
    let full = RedisServer::start().await;
    full.command(&["CONFIG", "SET", "maxclients", "1"]);
    // The place of the connection that set it is free a moment later.
    let held = async || opened(&full.url(), none()).await.ok();
    let _held = wait::until("a place", held).await;
    let expected = "ERR max number of clients reached (it has as many connections as maxclients \
                    allows: raise that)";
    assert_eq!(refused(&full.url(), none()).await, expected);
}

#[tokio::test]
async fn the_password_file_is_read_for_each_connection() {
    let server = RedisServer::start().await;
    let files = Files::new();
    let access = || RedisAccess {
        user: Some("ada".to_owned()),
        password_file: Some(files.path("password")),
        ..RedisAccess::default()
    };
    let target = Target::new(&settings(server.url(), access())).expect("a good URL");
    let opened = async || {
        let opened = Connection::<u64>::open(&target, "fanfare-test", PATIENCE).await;
        opened.map(drop).map_err(|error| explain(&error))
    };
    let missing = opened().await.expect_err("there is no file");
    assert!(missing.starts_with("redis.password_file "), "{missing}");
    // Whatever is in it goes to Redis as it is.
    for password in ["secret", "two words \"and\" \\x41", "ünï→✓"] {
        let secret = format!(">{password}");
        let set = ["ACL", "SETUSER", "ada", "reset", "on", &secret, "+@all"];
        assert_eq!(server.command(&set).as_deref(), Some("+OK"), "{password}");
        files.write("password", &format!("{password}\n"));
        opened().await.expect("the password of now");
    }
    files.write("password", "another");
    let wrong = opened().await.expect_err("it is another one");
    assert!(wrong.starts_with("WRONGPASS "), "{wrong}");
}

#[tokio::test]
async fn by_tls_too_and_what_is_wrong_with_it_is_a_sentence() {
    let server = RedisServer::start().await;
    let (files, authority) = (Files::new(), Authority::new());
    let url = open_tls(&server, &files, &authority, "no");
    let ca_file = files.write("ca.pem", &authority.pem);
    let mut connection = opened(&url, trusting(ca_file.clone()))
        .await
        .expect("let in");
    let body = vec![b'x'; 1 << 20];
    let echo = said(&mut connection, &[b"ECHO", &body]).await;
    assert!(echo.as_bytes() == body, "a MiB by TLS");
    let nameless = RedisAccess {
        tls_server_name: None,
        ..trusting(ca_file.clone())
    };
    let expected = "the certificate of Redis is for another name: see redis.tls_server_name";
    assert_eq!(refused(&url, nameless).await, expected);
    let stranger = trusting(files.write("stranger.pem", &Authority::new().pem));
    let expected = "no CA that this node trusts has signed the certificate of Redis: see \
                    redis.tls_ca_file";
    assert_eq!(refused(&url, stranger).await, expected);
    let plain = refused(&url.replace("rediss", "redis"), RedisAccess::default()).await;
    assert!(plain.starts_with("Connection "), "{plain}");
    let tls = server.url().replace("redis://", "rediss://");
    let expected = "Request timed out. (it does not answer; with rediss:// also where it waits for \
                    plain commands on this port)";
    assert_eq!(refused(&tls, trusting(ca_file.clone())).await, expected);
    let url = open_tls(&server, &files, &authority, "yes");
    let bare = trusting(ca_file);
    let target = Target::new(&settings(url, bare)).expect("a good URL");
    // By TLS 1.3 a server refuses the client behind the handshake.
    let opened = Connection::<u64>::open(&target, "fanfare-test", PATIENCE).await;
    let told = explain(&opened.expect_err("it has no certificate"));
    assert!(
        told.starts_with("Redis asks this node for a certificate"),
        "{told}"
    );
}

#[tokio::test]
async fn by_a_socket_of_this_machine_too() {
    let files = Files::new();
    let path = files.path("redis.sock");
    let mut server = RedisServer::with(&["--unixsocket", &path]);
    server.restart().await;
    server.url_of_user();
    let url = format!("unix://fanfare:secret@{path}?db=1");
    let mut connection = opened(&url, RedisAccess::default()).await.expect("let in");
    ask(&mut connection, &[b"SET", b"ff:key", b"1"])
        .await
        .expect("a right");
    let away = refused(&format!("unix://{path}.not"), RedisAccess::default()).await;
    assert_eq!(away, "No such file or directory");
}
