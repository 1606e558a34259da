//! Listening: one socket a worker on the same port, and the accept loop over it.
//!
//! In: TCP connections. Out: a task per connection on the worker's own thread. With
//! `SO_REUSEPORT` a second process on the same port would start without error and take half of
//! the clients, so the port is bound once without it first. Closing a listener resets what waits
//! in its queue, so on leaving it is accepted until empty, then closed. Bound: the room of the
//! [`Gate`](super::listener_state::Gate) for all workers; a connection that finds none is closed at once.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::http::connection::{Answering, Rest, end, tell_timeout};
use crate::lifecycle::{Lifecycle, LifecycleReceiver};
use crate::tasks;

use super::handshake::Opened;
use super::listener_state::{ConnectionPermit, PublicState};
use super::public;

/// Connections that the kernel queues for one worker.
const BACKLOG: i32 = 4_096;
/// Most headers of a request. The crate's default is 100.
const HEADERS_MAX: usize = 64;
/// Longest request head. The crate's default is about 400 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// What is still read of a request that was refused, so that its answer arrives.
const REST_OF_REFUSED: Rest = Rest {
    timeout: Duration::from_secs(1),
    bytes_max: 256 * 1024,
};
/// How long accepting rests when the process is out of file descriptors.
const REST: Duration = Duration::from_millis(100);

/// Binds one listener for each worker.
///
/// # Errors
/// What the operating system says; `AddrInUse` also when another process shares the port by
/// `SO_REUSEPORT`.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<StdListener>> {
    let alone = socket(address, false)?;
    // The port may have been chosen by the system.
    let address = alone.local_addr()?;
    drop(alone);
    (0..count).map(|_| socket(address, true)).collect()
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<StdListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if shared {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}

/// Accepts until the node leaves, then until nobody waits any more.
pub async fn accept(
    listener: TcpListener,
    state: Rc<PublicState>,
    mut lifecycle: LifecycleReceiver,
) {
    let leaving = async {
        // The sender lives as long as the node.
        let _ = lifecycle.wait_for(|now| *now >= Lifecycle::Draining).await;
        tokio::time::sleep(state.drain_delay()).await;
    };
    tokio::pin!(leaving);
    loop {
        tokio::select! {
            accepted = listener.accept() => accepted_one(&state, accepted).await,
            () = &mut leaving => break,
        }
    }
    while let Some(accepted) = listener.accept().now_or_never() {
        accepted_one(&state, accepted).await;
    }
}

async fn accepted_one(state: &Rc<PublicState>, accepted: io::Result<(TcpStream, SocketAddr)>) {
    match accepted {
        Ok((stream, _)) => {
            state.counters().connections.add_owned(1);
            match state.gate.limit.take() {
                Some(place) => {
                    let opened = Opened::new(Instant::now());
                    let serve = serve(Rc::clone(state), stream, place, opened);
                    tasks::spawn_local("connection", serve);
                }
                None => close_at_once(state, stream),
            }
        }
        // The peer went away while it waited.
        Err(e) if is_peers_fault(&e) => {}
        Err(error) => {
            tell_failure(state, &error);
            tokio::time::sleep(REST).await;
        }
    }
}

/// Ends a connection for which there is no room. An answer would need what is short.
fn close_at_once(state: &PublicState, stream: TcpStream) {
    drop(stream);
    state.counters().connections_refused.add_owned(1);
    let gate = Arc::clone(&state.gate);
    if gate.refused.begins() {
        tracing::warn!(
            event = "connections_refused",
            "the public listener has as many connections as it may have; more are closed at once"
        );
        tasks::spawn_local("connections_refused", async move {
            let count = gate.refused.ended().await;
            let text = "there is room for connections again";
            tracing::info!(event = "connections_recovered", count, "{text}");
        });
    }
}

fn tell_failure(state: &PublicState, error: &io::Error) {
    let gate = Arc::clone(&state.gate);
    if gate.failed.begins() {
        tracing::warn!(
            event = "accept_failed",
            error = error as &(dyn std::error::Error + 'static),
            "no connection can be accepted"
        );
        tasks::spawn_local("accept_failed", async move {
            let count = gate.failed.ended().await;
            let text = "connections can be accepted again";
            tracing::info!(event = "accept_recovered", count, "{text}");
        });
    }
}

fn is_peers_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// Answers HTTP requests of one connection; if one of them opens a WebSocket, starts its session.
/// That is a task of its own, so that nothing of what HTTP needed stays with it: this one's state
/// is many times that of a session.
async fn serve(state: Rc<PublicState>, stream: TcpStream, place: ConnectionPermit, opened: Opened) {
    // Small frames must not wait for the acknowledgement of earlier ones.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(|request: Request<Incoming>| {
        let (state, opened) = (&state, &opened);
        // Boxed, because the connection is given away as a whole, and what is pinned in it could not be.
        Box::pin(async move { Ok::<_, Infallible>(public::answer(state, opened, &request).await) })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(state.handshake_timeout())
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(true)
        .half_close(false)
        .serve_connection(TokioIo::new(Answering::new(stream)), service);
    let ended = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    let parts = connection.into_parts();
    let stream = parts.io.into_inner().into_inner();
    if let Some(open) = opened.take() {
        // A slice, even an empty one, would keep the whole read buffer.
        let early = Bytes::copy_from_slice(&parts.read_buf);
        tasks::spawn_local("session", open.run(stream.into(), early, place, &state));
        return;
    }
    // The peer's fault: hyper has answered what could be answered.
    if let Err(error) = ended {
        refused(&state, &stream, &error, !parts.read_buf.is_empty());
    }
    end(stream, REST_OF_REFUSED).await;
}

/// Counts a request that the parser refused, or that came too slowly.
fn refused(state: &PublicState, stream: &TcpStream, error: &hyper::Error, has_begun: bool) {
    if error.is_timeout() && has_begun {
        tell_timeout(stream);
    }
    if error.is_parse() || (error.is_timeout() && has_begun) {
        state.counters().refused_request.add_owned(1);
        tracing::debug!(
            event = "request_refused",
            error = error as &(dyn std::error::Error + 'static),
            "a request could not be read"
        );
    }
}
