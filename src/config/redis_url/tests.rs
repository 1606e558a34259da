//! Each form, what is shown of it, and what is said where it is none.

use super::*;

#[test]
fn one_server_is_given_as_it_was_written() {
    let url = RedisUrl::parse("redis://u:p%40@localhost/3").unwrap();
    assert_eq!(url.form, RedisForm::Single);
    assert_eq!(
        (&*url.name, &url.hosts[..]),
        ("localhost:6379", &["localhost:6379".to_owned()][..])
    );
    assert_eq!((url.login(), url.database), (("u", "p@"), 3));
    assert_eq!(url.server(&url.hosts[0]), "redis://u:p%40@localhost:6379/3");
    assert_eq!(url.guide(&url.hosts[0]), url.server(&url.hosts[0]));
}

#[test]
fn sentinels_have_a_login_of_their_own_and_the_master_a_name() {
    let text = "valkey-sentinel://:pw@s1,s2:7000,[::1]:7001/2?master=main&sentinel=a:b";
    let url = RedisUrl::parse(text).unwrap();
    let master = "main".to_owned();
    assert_eq!(url.form, RedisForm::Sentinel { master });
    assert_eq!(url.hosts, ["s1:26379", "s2:7000", "[::1]:7001"]);
    assert_eq!(url.guide("s1:26379"), "valkey://a:b@s1:26379");
    assert_eq!((url.login(), url.is_tls()), (("", "pw"), false));
    assert_eq!(url.server("10.0.0.1:6379"), "valkey://:pw@10.0.0.1:6379/2");
}

#[test]
fn a_cluster_is_called_by_its_hosts_or_by_its_name() {
    let url = RedisUrl::parse("redis-cluster://a:1,b:2").unwrap();
    assert_eq!((&url.form, &*url.name), (&RedisForm::Cluster, "a:1,b:2"));
    let url = RedisUrl::parse("rediss-cluster://u@a:1, b:2?name=east").unwrap();
    assert_eq!(
        (&*url.name, url.login(), url.is_tls()),
        ("east", ("u", ""), true)
    );
    assert_eq!(url.hosts, ["a:1", "b:2"]);
    assert_eq!(url.guide("a:1"), "rediss://u@a:1");
}

#[test]
fn a_socket_has_a_path_and_its_database_behind_it() {
    for (text, server) in [
        ("unix:///run/r.sock", "unix:///run/r.sock"),
        ("unix:/run/r.sock", "unix:///run/r.sock"),
        ("unix://u:p@/run/r.sock?db=2", "unix://u:p@/run/r.sock?db=2"),
    ] {
        let url = RedisUrl::parse(text).unwrap();
        assert!(url.is_unix() && !url.is_tls(), "{text}");
        assert_eq!((&url.form, &*url.name), (&RedisForm::Single, "/run/r.sock"));
        assert_eq!(url.hosts, ["/run/r.sock"]);
        assert_eq!(url.server("/run/r.sock"), server);
    }
}

#[test]
fn a_password_is_what_redis_knows_however_it_is_written() {
    for (written, password) in [
        ("p%20w", "p w"),
        ("p w", "p w"),
        ("a\"b'c", "a\"b'c"),
        ("p@w", "p@w"),
        ("a:b", "a:b"),
        ("%2F%3f%23%25", "/?#%"),
        ("gr\u{fc}n", "gr\u{fc}n"),
        ("a&b=c+d", "a&b=c+d"),
    ] {
        let url = RedisUrl::parse(&format!("redis://:{written}@h:1/2")).unwrap();
        assert_eq!(url.login(), ("", password));
        let again = RedisUrl::parse(&url.server("h:1")).unwrap();
        assert_eq!(again.login(), ("", password));
    }
}

#[test]
fn no_password_is_shown() {
    for (text, shown) in [
        ("redis://h:1/2", "redis://h:1/2"),
        ("redis://u:p@w@h", "redis://u:***@h"),
        ("redis://hunter2@h", "redis://***@h"),
        (
            "redis-sentinel://u:p@h?master=m&sentinel=:q&name=n",
            "redis-sentinel://u:***@h?master=m&sentinel=:***&name=n",
        ),
        ("unix://u:p@/r.sock?db=3", "unix://u:***@/r.sock?db=3"),
        ("redis://u:p#hunter2@h", "***"),
    ] {
        assert_eq!(hidden(text), shown);
    }
}

#[test]
fn what_is_wrong_is_said_without_the_text() {
    for (text, what) in [
        ("hunter2.example:6379", "of which form"),
        ("http://hunter2", "no form of Redis"),
        ("redis-ring://hunter2", "no form of Redis"),
        ("unix-cluster:///hunter2", "no form of Redis"),
        ("redis://", "a host is missing"),
        ("redis://:hunter2@", "a host is missing"),
        ("redis://::1", "a host is missing"),
        ("redis://hunter2,b", "several hosts"),
        ("redis://hunter2:x", "a port is no number"),
        ("redis://hunter2:0", "a port is no number"),
        ("redis://hunter2:70000", "a port is no number"),
        ("redis://hunter2/x", "the database is no number"),
        ("redis://hunter2/65536", "the database is no number"),
        ("redis://hunter2/+1", "the database is no number"),
        ("redis://hunter2/1/2", "the database is no number"),
        ("redis://hunter2?master=m", "is not known"),
        ("redis://hunter2?name=", "has no value"),
        ("redis-sentinel://hunter2,b", "which master"),
        ("redis-sentinel://a,,b?master=hunter2", "a host is missing"),
        ("redis-sentinel://a?master=m&master=hunter2", "twice"),
        ("redis-sentinel://a?master=m&sentinel=hunter2", "no colon"),
        ("redis-cluster://hunter2/1", "no database but 0"),
        ("redis://u:hun#ter2@h", "there is a #"),
        ("redis://u:hun/ter2@h", "there is a /"),
        ("redis://u:hun?ter2@h", "there is a ?"),
        ("redis://u:hunter2%zz@h", "there is a %"),
        ("redis://u:hunter2%ff@h", "not UTF-8"),
        ("redis://hunter2:@h", "is empty"),
        ("unix://hunter2", "the path of the socket"),
    ] {
        let wrong = RedisUrl::parse(text).unwrap_err();
        let said = format!("{}; {}", wrong.what, wrong.remedy);
        assert!(said.contains(what), "{text}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn databases_are_numbers_however_they_are_written() {
    for (text, database) in [("", 0), ("/", 0), ("/0", 0), ("/007", 7), ("/300", 300)] {
        let url = RedisUrl::parse(&format!("redis://h{text}")).unwrap();
        assert_eq!(url.database, database, "{text}");
    }
    let url = RedisUrl::parse("redis://h/007").unwrap();
    assert_eq!(url.server("h:6379"), "redis://h:6379/7");
}
