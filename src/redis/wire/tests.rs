//! What is written and read, against the encoder of `redis-protocol`, bytes of no sense, and streams
//! that take and give a piece at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use redis_protocol::resp3::encode::complete::extend_encode;
use redis_protocol::resp3::types::{BytesFrame, VerbatimStringFormat};
use tokio::io::{AsyncWriteExt, DuplexStream, ReadBuf, duplex};

use super::extent::{ANSWER_BYTES_MAX, DEPTH_MAX, ELEMENTS_MAX, Fault, LINE_BYTES_MAX};
use super::*;

mod channels;

/// A frame and what it is read as, the text of an error in its place.
type Expected = (BytesFrame, Result<Value, String>);

fn text(bytes: &[u8]) -> Value {
    Value::Bytes(Bytes::copy_from_slice(bytes))
}

/// Frames without others in them.
fn single() -> impl Strategy<Value = Expected> {
    let read = |frame, data: &[u8]| -> Expected { (frame, Ok(text(data))) };
    let failed = |frame, data: String| -> Expected { (frame, Err(data)) };
    let line = "[ -~]{0,40}";
    let blob = proptest::collection::vec(any::<u8>(), 0..200).prop_map(move |bytes| {
        let (data, attributes) = (bytes.clone().into(), None);
        read(BytesFrame::BlobString { data, attributes }, &bytes)
    });
    let simple = line.prop_map(move |line| {
        let (data, attributes) = (line.clone().into(), None);
        read(
            BytesFrame::SimpleString { data, attributes },
            line.as_bytes(),
        )
    });
    let verbatim = line.prop_map(move |line| {
        let (data, attributes) = (line.clone().into(), None);
        let format = VerbatimStringFormat::Text;
        let frame = BytesFrame::VerbatimString {
            data,
            format,
            attributes,
        };
        read(frame, line.as_bytes())
    });
    let error = "ERR [ -~]{0,40}".prop_map(move |line| {
        let (data, attributes) = (line.clone().into(), None);
        failed(BytesFrame::SimpleError { data, attributes }, line)
    });
    let blob_error = line.prop_map(move |line| {
        let (data, attributes) = (line.clone().into(), None);
        failed(BytesFrame::BlobError { data, attributes }, line)
    });
    let number = any::<i64>().prop_map(|data| -> Expected {
        let attributes = None;
        let value = Ok(Value::Integer(data));
        (BytesFrame::Number { data, attributes }, value)
    });
    let boolean = any::<bool>().prop_map(|data| -> Expected {
        let attributes = None;
        let value = Ok(Value::Boolean(data));
        (BytesFrame::Boolean { data, attributes }, value)
    });
    let null: Expected = (BytesFrame::Null, Ok(Value::Null));
    prop_oneof![
        blob,
        simple,
        verbatim,
        error,
        blob_error,
        number,
        boolean,
        Just(null)
    ]
}

/// The first error of several makes an error of the whole.
fn whole(frames: Vec<Expected>) -> (Vec<BytesFrame>, Result<Value, String>) {
    let (frames, values): (Vec<_>, Vec<_>) = frames.into_iter().unzip();
    let values: Result<Vec<_>, _> = values.into_iter().collect();
    (frames, values.map(Value::Array))
}

/// Frames with others in them, a few levels deep.
fn frame() -> impl Strategy<Value = Expected> {
    single().prop_recursive(4, 64, 8, |inner| {
        let list = proptest::collection::vec(inner.clone(), 0..8).prop_map(|frames| {
            let (data, expected) = whole(frames);
            let attributes = None;
            (BytesFrame::Array { data, attributes }, expected)
        });
        // Of one pair, whose order is no question.
        let map = (0..1000_u32, inner).prop_map(|(key, inner)| {
            let key = key.to_string();
            let (data, attributes) = (key.clone().into(), None);
            let frame = BytesFrame::BlobString { data, attributes };
            let (mut frames, expected) = whole(vec![(frame, Ok(text(key.as_bytes()))), inner]);
            let (value, key) = (frames.pop().unwrap(), frames.pop().unwrap());
            let (data, attributes) = ([(key, value)].into_iter().collect(), None);
            (BytesFrame::Map { data, attributes }, expected)
        });
        prop_oneof![3 => list, 1 => map]
    })
}

fn read(incoming: &mut Incoming) -> Option<Result<Value, String>> {
    match incoming.next().expect("it is RESP3")? {
        Message::Answer(answer) => Some(answer.map_err(|error| error.details().to_owned())),
        Message::Push(values) => panic!("nothing was pushed, and yet {values:?}"),
    }
}

proptest! {
    #[test]
    fn what_was_encoded_is_read_however_it_is_cut(
        frames in proptest::collection::vec(frame(), 1..6),
        cuts in proptest::collection::vec(1..80_usize, 1..40),
    ) {
        let mut bytes = BytesMut::new();
        for (frame, _) in &frames {
            extend_encode(&mut bytes, frame, false).unwrap();
        }
        let mut incoming = Incoming::default();
        let (mut found, mut cuts) = (Vec::new(), cuts.into_iter().cycle());
        while !bytes.is_empty() {
            let length = cuts.next().unwrap().min(bytes.len());
            incoming.room().extend_from_slice(&bytes.split_to(length));
            found.extend(std::iter::from_fn(|| read(&mut incoming)));
        }
        let expected: Vec<_> = frames.into_iter().map(|(_, value)| value).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn bytes_of_no_sense_are_an_error_or_the_beginning_of_something(
        mut bytes in proptest::collection::vec(prop_oneof![
            any::<u8>(),
            prop::sample::select(b"+-:_,#($!=*~>%|;.H\r\n0123?".to_vec()),
        ], 0..400),
        valid in frame(),
        at in any::<prop::sample::Index>(),
    ) {
        let mut damaged = BytesMut::new();
        extend_encode(&mut damaged, &valid.0, false).unwrap();
        let place = at.index(damaged.len());
        damaged[place] = damaged[place].wrapping_add(1);
        for bytes in [std::mem::take(&mut bytes), damaged.to_vec()] {
            let mut incoming = Incoming::default();
            incoming.room().extend_from_slice(&bytes);
            while let Ok(Some(_)) = incoming.next() {}
        }
    }
}

/// What is wrong with these bytes.
fn fault(bytes: &[u8]) -> Option<String> {
    let mut incoming = Incoming::default();
    incoming.room().extend_from_slice(bytes);
    loop {
        match incoming.next() {
            Ok(None) => return None,
            Ok(Some(_)) => {}
            Err(error) => return Some(error.details().to_owned()),
        }
    }
}

#[test]
fn each_bound_has_an_error_of_its_own() {
    let deep = |depth: usize| [b"*1\r\n".repeat(depth), b":1\r\n".to_vec()].concat();
    let line = |length: usize| [b"+".to_vec(), vec![b'a'; length]].concat();
    let wide = |count: u64| format!("*{count}\r\n").into_bytes();
    let long = |length: usize| format!("${length}\r\n").into_bytes();
    for (bytes, expected) in [
        (deep(DEPTH_MAX), None),
        (deep(DEPTH_MAX + 1), Some(Fault::Deep)),
        (line(LINE_BYTES_MAX - 1), None),
        (line(LINE_BYTES_MAX), Some(Fault::Line)),
        (wide(ELEMENTS_MAX - 1), None),
        (wide(ELEMENTS_MAX), Some(Fault::Wide)),
        (wide(u64::MAX), Some(Fault::Long)),
        (b"%999999999\r\n".to_vec(), Some(Fault::Wide)),
        (long(ANSWER_BYTES_MAX - 100), None),
        (long(ANSWER_BYTES_MAX), Some(Fault::Long)),
        (
            b"HTTP/1.1 400 Bad Request\r\n".to_vec(),
            Some(Fault::Kind(b'H')),
        ),
        (b"$-1\r\n".to_vec(), Some(Fault::Length)),
        (b"*?\r\n".to_vec(), Some(Fault::Length)),
        (b"$\r\n".to_vec(), Some(Fault::Length)),
        (b"$3\r\nabcde\r\n".to_vec(), Some(Fault::Unended)),
        (b"$3\r\nabc".to_vec(), None),
    ] {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        assert_eq!(fault(&bytes), expected.map(|f| f.to_string()), "{shown}");
    }
    // One of several parts is too long with those before it.
    let half = ANSWER_BYTES_MAX / 2;
    let first = [format!("*2\r\n${half}\r\n").into_bytes(), vec![0; half]].concat();
    let both = [first, format!("\r\n${half}\r\n").into_bytes()].concat();
    assert_eq!(fault(&both), Some(Fault::Long.to_string()));
}

/// Those of lists within lists count too.
#[test]
fn an_answer_is_bounded_in_all_its_values() {
    let lists_count = ELEMENTS_MAX as usize / 2;
    let head = format!("*{lists_count}\r\n").into_bytes();
    let lists = |count| [head.clone(), b"*1\r\n:1\r\n".repeat(count)].concat();
    assert_eq!(fault(&lists(lists_count - 1)), None);
    assert_eq!(fault(&lists(lists_count)), Some(Fault::Wide.to_string()));
}

#[test]
fn an_attribute_belongs_to_what_follows_it() {
    let mut incoming = Incoming::default();
    let bytes = b"*2\r\n|1\r\n+ttl\r\n:9\r\n$1\r\na\r\n:2\r\n:3\r\n";
    incoming.room().extend_from_slice(bytes);
    let first = Ok(Value::Array(vec![text(b"a"), Value::Integer(2)]));
    assert_eq!(read(&mut incoming), Some(first));
    assert_eq!(read(&mut incoming), Some(Ok(Value::Integer(3))));
    assert_eq!(read(&mut incoming), None);
}

/// A text that was read is a part of what was read, not a copy of it.
#[test]
fn a_body_is_not_copied() {
    let mut incoming = Incoming::default();
    let bytes = [b"$4096\r\n".to_vec(), vec![7; 4096], b"\r\n".to_vec()].concat();
    incoming.room().extend_from_slice(&bytes);
    let read_at = incoming.room().as_ptr();
    let Some(Message::Answer(Ok(Value::Bytes(body)))) = incoming.next().unwrap() else {
        panic!("expected a text");
    };
    assert_eq!(body.as_ptr(), read_at.wrapping_add(7));
}

/// Counts writes and reads on its way.
struct Counting {
    stream: DuplexStream,
    writes: Arc<AtomicUsize>,
    reads: Arc<AtomicUsize>,
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        self.reads
            .fetch_add(usize::from(read.is_ready()), Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.writes
            .fetch_add(usize::from(written.is_ready()), Ordering::Relaxed);
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

const TIMEOUT: Duration = Duration::from_secs(2);

/// A connection and its other end, between which so many bytes may be on the way.
fn pair(bytes: usize) -> (Connection<u32, DuplexStream>, DuplexStream) {
    let (near, far) = duplex(bytes);
    (Connection::over(near, TIMEOUT), far)
}

fn ask<S: AsyncRead + AsyncWrite + Unpin>(connection: &mut Connection<u32, S>, token: u32) {
    let sent = connection.send(token, 1, |arguments| {
        arguments.bytes(b"PING");
    });
    sent.expect("there is room");
}

/// The bytes of [`ask`].
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// What a turn brought, in short.
async fn turn<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<u32, S>,
) -> Result<Vec<String>, String> {
    let mut events = Vec::new();
    let turned = connection.turn(&mut events).await;
    turned.map_err(|error| error.details().to_owned())?;
    let told = events.into_iter().map(|event| match event {
        Event::Answered(token, Ok(value)) => {
            format!("{token} {}", value.as_str().as_deref().unwrap_or("null"))
        }
        Event::Answered(token, Err(error)) => format!("{token} {error}"),
        Event::Pushed(values) => format!("pushed {}", values.len()),
    });
    Ok(told.collect())
}

#[tokio::test]
async fn all_that_waits_is_one_write_and_all_that_has_come_is_one_read() {
    let (near, mut far) = duplex(1 << 20);
    let [writes, reads] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let counting = Counting {
        stream: near,
        writes: Arc::clone(&writes),
        reads: Arc::clone(&reads),
    };
    let mut connection = Connection::over(counting, TIMEOUT);
    far.write_all(&b"+PONG\r\n".repeat(1_000)).await.unwrap();
    (0..1_000).for_each(|token| ask(&mut connection, token));
    assert_eq!(turn(&mut connection).await.unwrap().len(), 1_000);
    let counts = [&writes, &reads].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts, [1, 1]);
}

#[tokio::test]
async fn answers_belong_to_commands_in_their_order_whatever_is_pushed_between() {
    let (mut connection, mut far) = pair(1 << 16);
    (1..=3).for_each(|token| ask(&mut connection, token));
    let said = b"+a\r\n>2\r\n+invalidate\r\n_\r\n-NOSCRIPT none\r\n+c\r\n";
    far.write_all(said).await.unwrap();
    let told = turn(&mut connection).await.unwrap();
    let expected = [
        "1 a",
        "pushed 2",
        "2 the script is not loaded: NOSCRIPT none",
        "3 c",
    ];
    assert_eq!(told, expected);
    assert_eq!(connection.unanswered_count(), 0);
}

#[tokio::test]
async fn an_answer_to_no_command_ends_the_connection_behind_what_came_before() {
    let (mut connection, mut far) = pair(1 << 16);
    ask(&mut connection, 1);
    far.write_all(b"+a\r\n+b\r\n").await.unwrap();
    assert_eq!(turn(&mut connection).await.unwrap(), ["1 a"]);
    let why = turn(&mut connection).await.unwrap_err();
    assert_eq!(why, "Redis answers what it was not asked");
    let refused = connection.send(2, 1, |arguments| {
        arguments.bytes(b"PING");
    });
    assert!(matches!(refused, Err((2, RedisError::NotDone(_)))));
}

/// What the other end says unasked before it closes is why it closes.
#[tokio::test]
async fn an_error_to_no_command_is_why_the_connection_ends() {
    let (mut connection, mut far) = pair(1 << 16);
    far.write_all(b"-ERR max number of clients reached\r\n")
        .await
        .unwrap();
    let why = turn(&mut connection).await.unwrap_err();
    assert_eq!(why, "ERR max number of clients reached");
}

#[tokio::test]
async fn what_was_written_is_unknown_and_what_was_not_is_not_done() {
    // The second is cut, and Redis executes no part of a command.
    let (mut connection, far) = pair(PING.len() + 5);
    (1..=3).for_each(|token| ask(&mut connection, token));
    let mut events = Vec::new();
    tokio::select! {
        biased;
        turned = connection.turn(&mut events) => panic!("nobody answered, and yet {turned:?}"),
        () = std::future::ready(()) => drop(far),
    }
    let error = connection.turn(&mut events).await.unwrap_err();
    let ended: Vec<_> = connection.into_unanswered(error).collect();
    assert!(matches!(
        ended[..],
        [
            (1, RedisError::Unknown(_)),
            (2, RedisError::NotDone(_)),
            (3, RedisError::NotDone(_))
        ]
    ));
}

#[tokio::test]
async fn a_command_without_an_answer_is_unknown_and_a_late_one_is_nobodys() {
    let (near, mut far) = duplex(1 << 16);
    let mut connection = Connection::over(near, Duration::from_millis(20));
    ask(&mut connection, 1);
    let told = turn(&mut connection).await.unwrap();
    assert_eq!(told, ["1 the outcome is unknown: Request timed out."]);
    ask(&mut connection, 2);
    far.write_all(b"+late\r\n+b\r\n").await.unwrap();
    assert_eq!(turn(&mut connection).await.unwrap(), ["2 b"]);
    assert_eq!(connection.unanswered_count(), 0);
    // The timer was set for one that is answered.
    ask(&mut connection, 3);
    ask(&mut connection, 4);
    let mut told = turn(&mut connection).await.unwrap();
    while told.len() < 2 {
        told.extend(turn(&mut connection).await.unwrap());
    }
    let unknown = |token| format!("{token} the outcome is unknown: Request timed out.");
    assert_eq!(told, [3, 4].map(unknown));
    assert_eq!(connection.unanswered_count(), 2);
}

#[tokio::test]
async fn beyond_its_bounds_a_command_is_refused_as_not_done() {
    let (mut connection, _far) = pair(16);
    (0..UNANSWERED_MAX as u32).for_each(|token| ask(&mut connection, token));
    let refused = |connection: &mut Connection<u32, DuplexStream>| {
        let sent = connection.send(7, 1, |arguments| {
            arguments.bytes(b"PING");
        });
        let (token, error) = sent.expect_err("there is no room");
        assert_eq!(token, 7);
        assert!(matches!(error, RedisError::NotDone(_)), "{error}");
        error.to_string()
    };
    let why = "not done: too much waits for this connection";
    assert_eq!(refused(&mut connection), why);
    let (mut connection, _far) = pair(16);
    let body = vec![0; UNSENT_BYTES_MAX];
    let sent = connection.send(1, 2, |arguments| {
        arguments.bytes(b"ECHO").bytes(&body);
    });
    sent.expect("the first is taken, however long");
    assert_eq!(refused(&mut connection), why);
}
