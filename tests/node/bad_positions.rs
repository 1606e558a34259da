//! Bad positions: what is no position, what is none any more, and what never was one.

use fanfare_protocol::form::Encoding;
use fanfare_testkit::beside::Beside;
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::talk::{Talk, data_of};
use serde_json::{Value, json};

async fn session(node: &Node, user: &str, wire: Encoding) -> Talk {
    Talk::welcomed(&node.connect_url(&format!("?user={user}")), wire)
        .await
        .0
}

/// A position of the same millisecond that was never given, far behind this one.
fn behind(position: &str) -> String {
    let (ms, sequence) = position.split_once('-').expect("a position");
    let sequence: u64 = sequence.parse().expect("a number");
    format!("{ms}-{}", sequence + (1 << 40))
}

#[tokio::test]
async fn a_position_that_is_none_is_a_bad_request() {
    let node = Plan::dev().start().await;
    let beside = Beside::start(&node, "?user=good").await;
    let positions = [
        json!(""),
        json!("1"),
        json!("-1"),
        json!("1-"),
        json!("01-0"),
        json!("1-00"),
        json!("NaN-0"),
        json!("$"),
        json!("18446744073709551616-0"),
        json!("1-1 "),
        json!(5),
    ];
    for wire in Encoding::ALL {
        let mut talk = session(&node, "ada", wire).await;
        for position in &positions {
            let rows = [
                json!({"type": "subscribe", "topic": "t", "since": position}),
                json!({"type": "history", "topic": "t", "since": position}),
                json!({"type": "history", "topic": "t", "until": position}),
                json!({"type": "ack", "position": position}),
            ];
            for command in rows {
                talk.refused(command, "bad_request").await;
                talk.ok(json!({"type": "ping"})).await;
            }
        }
    }
    let mut talk = Talk::connected(&node.connect_url("?user=ada&wait=1"), Encoding::Json).await;
    let connect = json!({"type": "connect", "positions": {"t": "nowhere"}});
    talk.refused(connect, "bad_request").await;
    assert_eq!(
        talk.ask(json!({"type": "connect"})).await["type"],
        "welcome"
    );
    beside.unharmed().await;
}

#[tokio::test]
async fn a_since_that_cannot_be_recovered_says_why_and_sends_what_is_there() {
    let node = Plan::dev().start().await;
    let mut talk = session(&node, "ada", Encoding::Json).await;
    let first = talk.publish("t", json!(0)).await;
    // The default history keeps 1,000: the first two go.
    let mut ids = Vec::new();
    for number in 1..=1001 {
        let publish = json!({"type": "publish", "topic": "t", "data": number});
        ids.push(talk.command(publish).await);
    }
    let mut positions = Vec::new();
    for id in ids {
        positions.push(talk.answer(id).await["position"].clone());
    }
    let newest = positions[1000].as_str().expect("a position").to_owned();
    let within = positions[500].as_str().expect("a position");
    let missing = behind(within);
    let ask = async |since: &str| {
        let mut talk = session(&node, "bob", Encoding::MsgPack).await;
        let subscribe = json!({"type": "subscribe", "topic": "t", "since": since});
        (talk.ok(subscribe).await, talk)
    };

    let (ok, mut below) = ask(&first).await;
    assert_eq!(
        (&ok["recovered"], &ok["gap_reason"]),
        (&json!(false), &json!("retention"))
    );
    assert_eq!(
        ok["position"], positions[0],
        "the `prev` of the first message sent"
    );
    let retained: Vec<Value> = (2..=1001).map(Value::from).collect();
    assert_eq!(data_of(&below.messages("t", 1000).await), retained);

    let (ok, mut above) = ask("99999999999999-0").await;
    assert_eq!(
        (&ok["recovered"], &ok["gap_reason"]),
        (&json!(false), &json!("failover"))
    );
    assert_eq!(ok["position"], positions[0]);
    assert_eq!(data_of(&above.messages("t", 1000).await), retained);

    let (ok, mut inside) = ask(&missing).await;
    assert_eq!(
        (&ok["recovered"], &ok["gap_reason"]),
        (&json!(false), &json!("failover"))
    );
    assert_eq!(ok["position"], positions[0]);
    assert_eq!(data_of(&inside.messages("t", 1000).await), retained);

    let (ok, mut at_newest) = ask(&newest).await;
    assert_eq!(
        (&ok["recovered"], &ok["position"]),
        (&json!(true), &json!(newest))
    );
    assert_eq!(ok.get("gap_reason"), None);

    talk.publish("t", json!("live")).await;
    for reader in [&mut below, &mut above, &mut inside, &mut at_newest] {
        assert_eq!(reader.message("t").await["data"], "live");
    }
}

#[tokio::test]
async fn an_ack_ahead_of_the_newest_is_a_bad_request_and_a_lower_one_changes_nothing() {
    let node = Plan::dev().start().await;
    let mut talk = session(&node, "ada", Encoding::Json).await;
    let ack = |position: &Value| json!({"type": "ack", "position": position});
    let mut positions = Vec::new();
    for number in 0..2 {
        let body = json!({"user": "ada", "data": number});
        let answer = http::post(node.api, "/v1/publish", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        positions.push(answer.json()["results"][0]["position"].clone());
    }
    talk.refused(ack(&json!("99999999999999-0")), "bad_request")
        .await;
    assert_eq!(talk.ok(ack(&positions[1])).await["position"], positions[1]);
    assert_eq!(talk.ok(ack(&positions[0])).await["position"], positions[1]);
    let mut nobody = Talk::connected(&node.connect_url(""), Encoding::Json).await;
    assert_eq!(
        nobody.ask(json!({"type": "connect"})).await["type"],
        "welcome"
    );
    // An anonymous session has no inbox.
    nobody.refused(ack(&positions[0]), "forbidden").await;
}
