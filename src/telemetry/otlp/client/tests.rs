//! What a client makes of answers, and what becomes of its connections.

use std::fs;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::telemetry::otlp::answer::target;
use crate::telemetry::otlp::collectors::{SEND_ALL, answering, collector, deaf};

/// More than the two ends of a connection hold together.
const LARGE: usize = 16 << 20;
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

fn client_of(port: u16, protocol: Protocol) -> Client {
    let target = Target {
        url: format!("http://127.0.0.1:{port}"),
        protocol,
        // So the system gives up nothing before we do.
        timeout: Duration::from_secs(600),
        ..target()
    };
    Client::new(target, "/fanfare.Test/Export")
}

/// How many connections of this process lead there.
fn connections(port: u16) -> usize {
    let port = format!(":{port:04X}");
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let lines = table.lines().skip(1).filter(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (remote, state) = (fields[2], fields[3]);
        remote.ends_with(&port) && state == "01"
    });
    lines.count()
}

/// Waits until no more than so many are left.
async fn until_left(port: u16, most: usize) {
    let begun_at = Instant::now();
    while connections(port) > most {
        let waited = begun_at.elapsed();
        assert!(waited < Duration::from_secs(10), "{}", connections(port));
        sleep(Duration::from_millis(10)).await;
    }
}

fn of(status: u16, kind: &str, body: &[u8]) -> Result<Answer, Failure> {
    let response = Response::builder().status(status);
    let response = match kind {
        "" => response,
        kind => response.header(CONTENT_TYPE, kind),
    };
    let body = Ok(Bytes::copy_from_slice(body));
    read(&response.body(()).unwrap(), body, &target())
}

#[test]
fn what_a_proxy_answers_is_no_answer() {
    let protobuf = "application/x-protobuf";
    assert_eq!(of(200, protobuf, b""), Ok(Answer::default()));
    assert_eq!(of(200, "", b""), Ok(Answer::default()));
    let json = "application/json";
    assert_eq!(of(200, json, b""), Ok(Answer::default()));
    assert_eq!(of(200, json, b"{}"), Ok(Answer::default()));
    // Loki says 204, Zipkin 202.
    assert_eq!(of(204, "", b""), Ok(Answer::default()));
    assert_eq!(of(202, "text/plain", b""), Ok(Answer::default()));
    assert_eq!(of(202, protobuf, b""), Ok(Answer::default()));
    assert_eq!(of(200, "Application/JSON", b"{}"), Ok(Answer::default()));
    for name in ["Spans", "LogRecords", "DataPoints"] {
        for count in ["7", "\"7\""] {
            let partial = format!("\"rejected{name}\":{count},\"errorMessage\":\"no\"");
            let body = format!("{{\"partialSuccess\":{{{partial}}}}}");
            let answer = of(200, "application/json; charset=utf-8", body.as_bytes());
            let answer = answer.unwrap();
            assert_eq!((answer.rejected, &*answer.why), (7, "no"));
        }
    }
    for (status, kind, body) in [
        (200, "text/html", &b"<html>"[..]),
        (200, json, b"[]"),
        (200, json, b"ok"),
        (200, "", b"ok"),
        (202, "text/html", b"<html>"),
        (200, json, b"{\"error\":\"no\"}"),
        (
            200,
            json,
            b"{\"partialSuccess\":{\"rejectedSpans\":\"some\"}}",
        ),
        (200, protobuf, b"\xff\xff"),
    ] {
        let failure = of(status, kind, body).unwrap_err();
        assert!(!failure.is_passing, "{status} {kind}");
        // It may stand before a collector, or be one.
        assert!(failure.is_unknown, "{status} {kind}");
    }
}

#[test]
fn the_reason_has_what_the_collector_says_cut_and_without_our_headers() {
    let message = "no such tenant".to_owned();
    let body = Refusal { message }.encode_to_vec();
    let why = |status, kind, body: &[u8]| of(status, kind, body).unwrap_err().why;
    let protobuf = "application/x-protobuf";
    let said = "the collector answered 400 Bad Request: no such tenant";
    assert_eq!(why(400, protobuf, &body), said);
    let said = why(401, "text/plain", b"bad\nkey: Bearer abcdef ");
    assert!(said.ends_with(": bad key: *** ***"), "{said}");
    let said = why(401, "text/plain", &[b'a'; 4_096]);
    let said = said.rsplit(": ").next().unwrap();
    assert_eq!(said, "a".repeat(200));
}

#[test]
fn json_is_read_as_those_who_write_it_of_protobuf_do() {
    let of = |partial: &str| {
        let body = format!("{{{partial},\"more\":1}}");
        of(200, "application/json", body.as_bytes()).unwrap()
    };
    for (partial, rejected, why) in [
        ("\"partialSuccess\":null", 0, ""),
        ("\"partialSuccess\":{\"errorMessage\":null}", 0, ""),
        ("\"partialSuccess\":{\"rejectedSpans\":null}", 0, ""),
        ("\"partialSuccess\":{\"rejectedSpans\":\"-1\"}", 0, ""),
        ("\"partialSuccess\":{\"rejectedSpans\":-1}", 0, ""),
        (
            "\"partial_success\":{\"rejected_log_records\":\"7\",\"error_message\":\"no\"}",
            7,
            "no",
        ),
    ] {
        let answer = of(partial);
        assert_eq!(
            (answer.rejected, &*answer.why),
            (rejected, why),
            "{partial}"
        );
    }
}

#[test]
fn only_a_refusal_is_certain() {
    let of = |status| of(status, "text/plain", b"why").unwrap_err();
    for status in [400, 401, 403, 404, 413, 429] {
        assert!(!of(status).is_unknown, "{status}");
    }
    for status in [302, 408, 499, 500, 502, 503, 504] {
        assert!(of(status).is_unknown, "{status}");
    }
    for status in [429, 502, 503, 504] {
        assert!(of(status).is_passing, "{status}");
    }
}

#[test]
fn patience_is_asked_for_in_seconds_or_until_a_date() {
    let after = |value: &str, date: Option<&str>| {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        retry_after(&headers)
    };
    let long = Some(Duration::from_secs(u64::MAX));
    assert_eq!(after("7", None), Some(Duration::from_secs(7)));
    assert_eq!(after("99999999999999999999999", None), long);
    for wrong in ["", "soon", "-1", "1.5"] {
        assert_eq!(after(wrong, None), None, "{wrong}");
    }
    // By the collector's clock, whatever ours says.
    let (now, then) = (
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:51:37 GMT",
    );
    assert_eq!(after(then, Some(now)), Some(Duration::from_secs(120)));
    assert_eq!(after(now, Some(then)), Some(Duration::ZERO));
    let soon = SystemTime::now() + Duration::from_secs(120);
    let soon = after(&httpdate::fmt_http_date(soon), None).unwrap();
    assert!(soon > Duration::from_secs(60) && soon <= Duration::from_secs(120));
}

#[tokio::test]
async fn a_collector_that_does_not_read_holds_no_connection_when_it_is_given_up() {
    for (protocol, says) in [(Protocol::Http, &b""[..]), (Protocol::Grpc, SEND_ALL)] {
        let port = deaf(says).await;
        let client = client_of(port, protocol);
        let body = Bytes::from(vec![b'x'; LARGE]);
        for attempt in 0..10 {
            let sent = timeout(Duration::from_millis(50), client.send(body.clone())).await;
            assert!(sent.is_err(), "{attempt}: {sent:?}");
            client.renew();
            sleep(Duration::from_millis(10)).await;
        }
        until_left(port, 0).await;
    }
}

#[tokio::test]
async fn a_collector_that_answers_before_it_reads_holds_few_connections() {
    let port = collector(|mut stream| async move {
        let mut begin = [0; 1_024];
        let _ = stream.read_exact(&mut begin).await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    let port = port.await;
    let client = client_of(port, Protocol::Http);
    let body = Bytes::from(vec![b'x'; LARGE]);
    for _ in 0..10 {
        assert_eq!(client.send(body.clone()).await, Ok(Answer::default()));
    }
    until_left(port, TASKS_MAX).await;
}

#[tokio::test]
async fn a_connection_is_used_again_but_not_after_it_was_idle() {
    for (idle, connections) in [(IDLE, 1), (Duration::from_millis(1), 2)] {
        let (port, counts) = answering(OK.to_owned()).await;
        let client = Client {
            idle,
            ..client_of(port, Protocol::Http)
        };
        for _ in 0..2 {
            let sent = client.send(Bytes::from_static(b"body")).await;
            assert_eq!(sent, Ok(Answer::default()));
            // It goes back by a task of its own.
            sleep(Duration::from_millis(50)).await;
        }
        let made = counts.connections.load(Ordering::Relaxed);
        assert_eq!(made, connections, "{idle:?}");
    }
}

#[tokio::test]
async fn what_was_taken_with_an_answer_that_cannot_be_read_is_told() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\nconnection: close\r\n";
    let long = "a".repeat(ANSWER_BYTES_MAX + 1);
    for (length, body, why) in [(long.len(), &*long, TOO_LONG), (9, "a", CUT_OFF)] {
        let answer = format!("{head}content-length: {length}\r\n\r\n{body}");
        let port = collector(move |mut stream| {
            let answer = answer.clone();
            async move {
                let mut request = [0; 1_024];
                let _ = stream.read(&mut request).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let client = client_of(port.await, Protocol::Http);
        let sent = client.send(Bytes::from_static(b"body")).await;
        assert_eq!(sent, Ok(Answer::unread(why)));
    }
}

/// A collector of gRPC that answers each call with a message so long.
async fn wordy(length: usize) -> u16 {
    use hyper::server::conn::http2;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let port = collector(move |stream| async move {
        let service = service_fn(move |request: Request<hyper::body::Incoming>| async move {
            let _ = request.into_body().collect().await;
            let mut frame = vec![0];
            frame.extend(u32::try_from(length).unwrap().to_be_bytes());
            frame.extend(vec![0; length]);
            let answer = Response::builder().header(CONTENT_TYPE, "application/grpc");
            answer.body(Full::new(Bytes::from(frame)))
        });
        let served = http2::Builder::new(TokioExecutor::new());
        let _ = served.serve_connection(TokioIo::new(stream), service).await;
    });
    port.await
}

#[tokio::test]
async fn an_answer_by_grpc_that_is_too_long_is_no_reason_to_send_again() {
    let send = async |length| {
        let client = client_of(wordy(length).await, Protocol::Grpc);
        client.send(Bytes::from_static(b"body")).await
    };
    let taken = send(ANSWER_BYTES_MAX + 1).await;
    assert_eq!(taken, Ok(Answer::unread(TOO_LONG)));
    // It says nothing of an answer that can be read and has no status.
    assert!(send(1).await.unwrap_err().is_unknown);
}

#[tokio::test]
async fn the_reason_of_a_call_that_does_not_arrive_is_one_sentence() {
    let port = collector(async |stream| drop(stream)).await;
    let failure = client_of(port, Protocol::Grpc)
        .send(Bytes::from_static(b"body"))
        .await
        .unwrap_err();
    assert!(failure.is_unknown && failure.is_passing);
    for dumped in ["{", "Some(", "source:", "code:"] {
        assert!(!failure.why.contains(dumped), "{}", failure.why);
    }
}
