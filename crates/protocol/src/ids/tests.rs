//! Tests of names and positions.

use super::*;

fn topic(name: &str) -> Result<Topic, NameError> {
    Topic::new(&App::default_app(), name)
}

#[test]
fn a_topic_knows_its_kind_and_namespace() {
    let cases = [
        ("orders:7", TopicKind::Plain, "orders"),
        ("plain", TopicKind::Plain, "default"),
        ("@", TopicKind::Everyone, "@"),
        ("@auth0|x", TopicKind::Inbox, "@"),
    ];
    for (name, kind, namespace) in cases {
        let topic = topic(name).unwrap();
        assert_eq!((topic.kind(), topic.namespace()), (kind, namespace));
        assert_eq!(topic.name(), name);
    }
    let members = topic("orders:7").unwrap().presence();
    assert_eq!(members.name(), "%orders:7");
    assert_eq!(members.presence_of(), topic("orders:7").ok());
    assert_eq!(
        Topic::from_qualified("default:%orders:7"),
        Some(members.clone())
    );
    assert_eq!(
        members.partition(256),
        topic("orders:7").unwrap().partition(256)
    );
}

#[test]
fn names_that_could_steer_a_key_are_refused() {
    for bad in [
        "", "a b", "a{b", "a}b", "a\nb", "%a", "ä", "a*b", "@a b", "@{x}",
    ] {
        assert!(topic(bad).is_err(), "{bad:?}");
    }
    assert!(topic(&"x".repeat(200)).is_ok());
    assert_eq!(
        topic(&"x".repeat(201)),
        Err(NameError::TooLong(TOPIC_BYTES_MAX))
    );
    assert!(User::new(&"u".repeat(199)).is_ok());
    assert!(User::new(&"u".repeat(200)).is_err());
}

#[test]
fn only_canonical_positions_are_read() {
    assert_eq!("0-0".parse(), Ok(Position::ZERO));
    let top: Position = "18446744073709551615-18446744073709551615".parse().unwrap();
    assert_eq!(top.to_string(), "18446744073709551615-18446744073709551615");
    for bad in [
        "",
        "1",
        "-",
        "1-",
        "-1",
        "01-0",
        "1-00",
        "+1-0",
        "1--1",
        "NaN-0",
        "18446744073709551616-0",
        "1-1 ",
    ] {
        assert_eq!(bad.parse::<Position>(), Err(PositionError), "{bad:?}");
    }
}

#[test]
fn partitions_follow_the_published_vectors() {
    // CRC-32 (IEEE) of the text mod 256: the values that docs/protocol.md prints.
    let default = App::default_app();
    let of = |name: &str| Topic::new(&default, name).unwrap().partition(256);
    assert_eq!(of("orders:7"), crc32fast::hash(b"default:orders:7") % 256);
    assert_eq!(of("@alice"), crc32fast::hash(b"default:@alice") % 256);
    assert_eq!(of("@"), crc32fast::hash(b"default:@") % 256);
}
