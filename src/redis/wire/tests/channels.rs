//! Channels that are subscribed and left: what is told of them as an answer, and what unasked.

use super::*;

fn subscribe(connection: &mut Connection<u32, DuplexStream>, token: u32, channels: &[&str]) {
    let channels: Vec<_> = channels.iter().map(|name| (*name).to_owned()).collect();
    let sent = connection.send_channels(token, "SUBSCRIBE", b"subscribe", &channels);
    sent.expect("there is room");
}

/// What Redis says of a channel.
fn push(word: &str, channel: &str, last: &str) -> String {
    let (word_bytes, channel_bytes) = (word.len(), channel.len());
    format!(">3\r\n${word_bytes}\r\n{word}\r\n${channel_bytes}\r\n{channel}\r\n{last}\r\n")
}

#[tokio::test]
async fn channels_stand_when_each_is_told_or_none_does_when_one_is_refused() {
    let (mut connection, mut far) = pair(1 << 16);
    subscribe(&mut connection, 1, &["a", "b"]);
    subscribe(&mut connection, 2, &["c", "d"]);
    ask(&mut connection, 3);
    let subscribed = |channel| push("subscribe", channel, ":1");
    let (a, b, d) = (subscribed("a"), subscribed("b"), subscribed("d"));
    let [message, left] =
        [("message", "+x"), ("sunsubscribe", ":0")].map(|(word, last)| push(word, "a", last));
    // The first needs one more; what is no confirmation of it is told as it comes.
    far.write_all(format!("{a}{message}{left}{a}{d}").as_bytes())
        .await
        .unwrap();
    assert_eq!(turn(&mut connection).await.unwrap(), ["pushed 3"; 4]);
    let rest = format!("{b}-NOPERM no\r\n+c\r\n{b}");
    far.write_all(rest.as_bytes()).await.unwrap();
    let told = turn(&mut connection).await.unwrap();
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!(told[0], "1 null");
    assert!(
        told[1].starts_with("2 ") && told[1].contains("NOPERM"),
        "{told:?}"
    );
    // One that nobody waits for is told too.
    assert_eq!(told[2..], ["3 c", "pushed 3"]);
    subscribe(&mut connection, 4, &["a"]);
    far.write_all(b"+OK\r\n").await.unwrap();
    let why = turn(&mut connection).await.unwrap_err();
    assert_eq!(why, "Redis answers what it tells by pushes");
}

/// While a channel is left, its slot may leave too: Redis says so unasked in the same words, and then
/// answers.
#[tokio::test]
async fn what_is_said_unasked_of_a_channel_that_is_left_is_taken_for_no_answer() {
    let left = |channel| push("sunsubscribe", channel, ":0");
    let behind = push("unsubscribe", "b", ":0");
    let (a, b) = (left("a"), left("b"));
    let moved = "-MOVED 903 127.0.0.1:1\r\n";
    for (said, pushed_count, is_moved) in [
        (format!("{a}{b}{behind}"), 0, false),
        // The slot of the first has gone, after and before what was unasked; of both; and is back.
        (format!("{a}{moved}{b}{behind}"), 0, true),
        (format!("{b}{a}{moved}{behind}"), 0, true),
        (format!("{a}{b}{moved}{moved}{behind}"), 0, true),
        (format!("{a}{a}{b}{behind}"), 1, false),
        // Where the one behind is refused too, it says that it is that.
        (format!("{moved}{moved}-LOADING\r\n"), 0, true),
        (
            format!("{moved}{b}-NOPERM the 'unsubscribe' command\r\n"),
            0,
            true,
        ),
    ] {
        let (mut connection, mut far) = pair(1 << 16);
        let channels = ["a", "b"].map(str::to_owned);
        connection
            .leave_sharded(1, &channels)
            .expect("there is room");
        let taken = ["c".to_owned()];
        let sent = connection.send_channels(2, "SSUBSCRIBE", b"ssubscribe", &taken);
        sent.expect("there is room");
        ask(&mut connection, 3);
        let others = format!("{}+c\r\n", push("ssubscribe", "c", ":1"));
        far.write_all(format!("{said}{others}").as_bytes())
            .await
            .unwrap();
        let mut told = turn(&mut connection).await.unwrap();
        while told.len() < pushed_count + 3 {
            told.extend(turn(&mut connection).await.unwrap());
        }
        assert_eq!(told[..pushed_count], vec!["pushed 3"; pushed_count]);
        let told = &told[pushed_count..];
        assert_eq!(told[0].contains("MOVED"), is_moved, "{said}: {told:?}");
        assert_eq!(told[0] == "1 null", !is_moved, "{said}: {told:?}");
        assert_eq!(told[1..], ["2 null", "3 c"], "{said}");
    }
}

/// What is left is written in pieces, and the first may be answered before the last is written.
#[tokio::test]
async fn an_answer_before_all_that_is_left_is_written_belongs_to_it() {
    let command = b"*2\r\n$12\r\nSUNSUBSCRIBE\r\n$1\r\na\r\n";
    let (mut connection, mut far) = pair(command.len());
    let channels = ["a", "b"].map(str::to_owned);
    connection
        .leave_sharded(1, &channels)
        .expect("there is room");
    let mut events = Vec::new();
    tokio::select! {
        biased;
        turned = connection.turn(&mut events) => panic!("nobody answered, and yet {turned:?}"),
        () = std::future::ready(()) => {}
    }
    let left = push("sunsubscribe", "b", ":0") + &push("unsubscribe", "b", ":0");
    let answers = tokio::join!(turn(&mut connection), async {
        far.write_all(b"-MOVED 1 127.0.0.1:1\r\n").await.unwrap();
        let mut written = vec![0; 3 * command.len() - 1];
        far.read_exact(&mut written).await.unwrap();
        assert!(written.starts_with(command) && written.ends_with(b"UNSUBSCRIBE\r\n$1\r\nb\r\n"));
        far.write_all(left.as_bytes()).await.unwrap();
    });
    let told = answers.0.unwrap();
    assert!(told.len() == 1 && told[0].contains("MOVED"), "{told:?}");
}
