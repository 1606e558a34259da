//! The API's listener: accepts connections and ends them in order.
//!
//! In: connections of backends and probes. Out: requests to [`super::Api`], answered on the same
//! connection. Owner of the connections' tasks. Bound: the API's share of the files
//! (`src/config/file_shares.rs`); at the bound no further connection is accepted and the system's
//! queue holds the callers. A connection that
//! sends no request head within [`FIRST_HEAD_TIMEOUT`], or [`HEAD_TIMEOUT`] after an answer, is closed,
//! and one that takes no answer within [`ANSWER_TIMEOUT`]. A second listener (`metrics.listen`) serves metrics and health alone.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt as _;
use hyper::Request;
use hyper::body::{Body as _, Incoming};
use hyper::header;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Api;
use crate::config;
use crate::http::connection::{Answering, Rest, end, tell_timeout};
use crate::tasks::spawn_alone;
use crate::telemetry::episode::Episode;

/// Longest wait for a request's head, between two requests of one connection too. Longer than the
/// idle limit of 60 s that balancers and client pools commonly have, so that the caller is the
/// one who closes, and no request meets a closing connection.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// Longest wait for the first head of a connection. Whoever connects has something to ask; silent
/// connections would take the places of probes, and of all callers.
const FIRST_HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long requests in flight may take after the shutdown began, or longer where commands to Redis
/// may take longer.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time in which a caller takes an answer, or those that it asked for without waiting. A
/// page of history of some megabytes has it too.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The same where only metrics and health are told: as long as Prometheus waits for a scrape.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that the rest of a refused request is still taken.
const REST_TIMEOUT: Duration = Duration::from_secs(5);

/// Wait after an accept that failed for want of descriptors or memory.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves at most so many connections at once until `shutdown` is ready, then lets the requests in
/// flight end. Returns when every connection has ended.
pub async fn serve(
    listener: TcpListener,
    connections_max: usize,
    api: Api,
    shutdown: impl Future<Output = ()>,
) {
    let config = Arc::clone(&api.state.config);
    // The rest of a body that was refused is taken, so that the answer arrives.
    let rest = Rest {
        timeout: REST_TIMEOUT,
        bytes_max: 2 * config.api.body_bytes_max,
    };
    let patience = shutdown_patience(&config.redis);
    let permits = Arc::new(Semaphore::new(connections_max));
    let failures = Arc::new(Episode::default());
    let (stop, _) = watch::channel(());
    let mut shutdown = pin!(shutdown);
    loop {
        // Both are cancel-safe: a permit or connection is taken whole or not at all.
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                let api = api.to_peer(peer.ip());
                let stopped = stop.subscribe();
                spawn_alone("api_connection", async move {
                    connection(stream, &api, (rest, patience), stopped).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tell_failure(&failures, &error);
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    stop.send_replace(());
    // Each connection holds one permit until it has ended, and ends within the timeout.
    let all = u32::try_from(connections_max).expect("the bound is far below 2^32");
    let _ended = permits
        .acquire_many(all)
        .await
        .expect("nobody closes this semaphore");
}

/// Who asks for something of Redis gets its answer. So long the requests in flight have at the end.
#[must_use]
pub fn shutdown_patience(redis: &config::Redis) -> Duration {
    SHUTDOWN_TIMEOUT.max(redis.commands_end())
}

fn tell_failure(failures: &Arc<Episode>, error: &io::Error) {
    if failures.begins() {
        tracing::warn!(
            event = "api_accept_failed",
            error = error as &(dyn std::error::Error + 'static),
            "the API listener could not accept a connection"
        );
        let failures = Arc::clone(failures);
        spawn_alone("api_accept_failed", async move {
            let count = failures.ended().await;
            let text = "the API listener accepts connections again";
            tracing::info!(event = "api_accept_recovered", count, "{text}");
        });
    }
}

/// Waits for room first, so that no connection is taken that cannot be served.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits)
        .acquire_owned()
        .await
        .expect("nobody closes this semaphore");
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}

/// Serves one connection; once `stopped` changes, until the request in flight is answered, for which
/// it may take so long.
async fn connection(
    stream: TcpStream,
    api: &Api,
    (rest, patience): (Rest, Duration),
    mut stopped: watch::Receiver<()>,
) {
    // Answers are small and written whole; waiting to fill a segment would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(
            event = "api_nodelay_failed",
            error = &error as &(dyn std::error::Error + 'static),
            "TCP_NODELAY could not be set"
        );
    }
    let stream = Answering::new(stream).patient(match api.has_calls {
        true => ANSWER_TIMEOUT,
        false => PROBE_TIMEOUT,
    });
    let is_begun = AtomicBool::new(false);
    let service = service_fn(|mut request: Request<Incoming>| {
        is_begun.store(true, Ordering::Relaxed);
        ask_for_body(&mut request);
        Box::pin(api.answer(request).map(Ok::<_, Infallible>))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => Some(ended),
        () = is_overdue(&is_begun) => None,
        _ = stopped.changed() => {
            Pin::new(&mut connection).graceful_shutdown();
            let last = poll_fn(|cx| connection.poll_without_shutdown(cx));
            match tokio::time::timeout(patience, last).await {
                Ok(ended) => Some(ended),
                Err(_elapsed) => {
                    tracing::warn!(
                        event = "api_request_cut_off",
                        "a request to the API was cut off at the end of the shutdown"
                    );
                    return;
                }
            }
        }
    };
    let parts = connection.into_parts();
    let stream = parts.io.into_inner().into_inner();
    let error = ended.as_ref().and_then(|ended| ended.as_ref().err());
    let is_late = ended.is_none() || error.is_some_and(hyper::Error::is_timeout);
    if is_late && !parts.read_buf.is_empty() {
        tell_timeout(&stream);
    }
    if let Some(error) = error {
        if is_cut_off(error) {
            api.state.metrics.api.cut_off.add(1);
        }
        tracing::debug!(
            event = "api_connection_broke",
            error = error as &(dyn std::error::Error + 'static),
            "a connection to the API broke"
        );
    }
    let is_stopping = stopped.has_changed().unwrap_or(true);
    if !is_stopping {
        end(stream, rest).await;
    }
}

/// Waits until the first head is overdue; for ever where it has come.
async fn is_overdue(is_begun: &AtomicBool) {
    tokio::time::sleep(FIRST_HEAD_TIMEOUT).await;
    if is_begun.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

/// Whether the caller did not take an answer in its time.
fn is_cut_off(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::TimedOut)
}

/// Asks for the body at once. hyper reads a body only when it is asked for, and goes on with that as
/// soon as it has called the service: what came with the head is then there before a handler wants
/// it, who would otherwise have to wait for another turn of the connection's task.
fn ask_for_body(request: &mut Request<Incoming>) {
    // Being asked for it tells this peer to send it (100), which may not be what its headers are
    // answered with.
    if request.headers().contains_key(header::EXPECT) {
        return;
    }
    let mut context = Context::from_waker(Waker::noop());
    let asked = Pin::new(request.body_mut()).poll_frame(&mut context);
    debug_assert!(
        matches!(asked, Poll::Pending | Poll::Ready(None)),
        "nothing is read before it is asked for"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_not_cut_off_while_its_command_to_redis_has_time() {
        for ms in [10, 2_000, 60_000] {
            let redis = config::Redis {
                command_timeout: Duration::from_millis(ms),
                ..config::load::defaults().redis
            };
            let patience = shutdown_patience(&redis);
            assert!(patience >= SHUTDOWN_TIMEOUT);
            assert!(patience > redis.command_timeout, "{ms}");
        }
    }
}
