//! The sockets by which a server of Redis is reached: TCP, TLS over it, and those of this machine.
//!
//! In: a [`Target`]. Out: one stream that is connected and has every option set. Owner of the socket.
//! Bounds: `CONNECT_TIMEOUT` for the name, all its addresses and the handshake of TLS together; where one
//! address says nothing for [`STAGGER`], the next is tried beside it. Errors are reported in the form of fred, so that `access` explains both in the same words.

use std::io::{Error as IoError, Result as IoResult};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use fred::error::{Error, ErrorKind};
use fred::rustls::pki_types::ServerName;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::redis::access::{Place, Target};
use crate::redis::clients::{CONNECT_TIMEOUT, TCP_USER_TIMEOUT};
use crate::redis::outcome::timed_out;

/// How long a connection says nothing before the kernel asks whether the other end is there. What
/// is sent and not acknowledged is found by `TCP_USER_TIMEOUT`; this finds the end of an idle one.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// How long an address of a name may say nothing before the next is tried too.
const STAGGER: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub enum Socket {
    /// Plain.
    Tcp(TcpStream),
    /// Encrypted. Boxed, because it is many times as large.
    Tls(Box<TlsStream<TcpStream>>),
    /// On this machine.
    Unix(UnixStream),
}

impl Socket {
    /// Connects.
    ///
    /// # Errors
    /// Why that failed, in the form of fred.
    pub(super) async fn connect(target: &Target) -> Result<Self, Error> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, Self::connect_at_all(target));
        connected.await.unwrap_or_else(|_| Err(timed_out()))
    }

    async fn connect_at_all(target: &Target) -> Result<Self, Error> {
        let (host, port) = match &target.place {
            Place::Socket(path) => return Ok(Self::Unix(UnixStream::connect(path).await?)),
            Place::Host(host, port) => (host, port),
        };
        let stream = connect_to_any(&format!("{host}:{port}")).await?;
        let Some((tls, name)) = &target.tls else {
            return Ok(Self::Tcp(stream));
        };
        let name = ServerName::try_from(name.clone())?;
        let connector = TlsConnector::from(tls.clone());
        let stream = connector.connect(name, stream).await?;
        Ok(Self::Tls(Box::new(stream)))
    }
}

/// The first of a name's addresses that can be connected to.
async fn connect_to_any(server: &str) -> Result<TcpStream, Error> {
    let unresolved = || Error::new(ErrorKind::IO, format!("Failed to resolve {server}"));
    let connected = connect_to_first(tokio::net::lookup_host(server).await?).await;
    Ok(connected.ok_or_else(unresolved)??)
}

/// The first of these that takes a connection. Each is tried when the one before has failed, or has said
/// nothing for [`STAGGER`]. `None`: there is none. It has no end of its own.
pub(in crate::redis) async fn connect_to_first(
    addresses: impl Iterator<Item = SocketAddr>,
) -> Option<IoResult<TcpStream>> {
    let mut addresses = addresses.fuse();
    let (mut attempts, mut last) = (FuturesUnordered::new(), None);
    loop {
        let next = addresses.next();
        let has_next = next.is_some();
        attempts.extend(next.map(TcpStream::connect));
        tokio::select! {
            biased;
            attempt = attempts.next(), if !attempts.is_empty() => {
                match attempt?.and_then(prepared) {
                    Ok(stream) => return Some(Ok(stream)),
                    Err(error) => last = Some(Err(error)),
                }
            }
            () = tokio::time::sleep(STAGGER), if has_next => {}
            else => return last,
        }
    }
}

fn prepared(stream: TcpStream) -> Result<TcpStream, IoError> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    socket.set_tcp_keepalive(&keepalive.with_interval(KEEPALIVE))?;
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    Ok(stream)
}

/// Calls the same method of whichever stream it is.
macro_rules! of_stream {
    ($socket:expr, $stream:ident => $call:expr) => {
        match $socket.get_mut() {
            Socket::Tcp($stream) => $call,
            Socket::Tls($stream) => $call,
            Socket::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<IoResult<()>> {
        of_stream!(self, stream => Pin::new(stream).poll_read(context, into))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<IoResult<usize>> {
        of_stream!(self, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<IoResult<()>> {
        of_stream!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<IoResult<()>> {
        of_stream!(self, stream => Pin::new(stream).poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Type};
    use std::net::{Ipv4Addr, TcpListener};

    /// An address that swallows whoever comes: the queue of its listener is full. With what must live
    /// for it.
    fn swallowing() -> (SocketAddr, Vec<socket2::Socket>) {
        let socket = || socket2::Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let listener = socket();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        listener.bind(&any.into()).expect("a free port");
        listener.listen(0).expect("it listens");
        let address = listener.local_addr().expect("it is bound");
        let mut sockets = vec![listener];
        for _ in 0..4 {
            let client = socket();
            client.set_nonblocking(true).expect("a socket");
            // It is on its way.
            let _ = client.connect(&address);
            sockets.push(client);
        }
        (address.as_socket().expect("of the Internet"), sockets)
    }

    #[tokio::test]
    async fn an_address_that_swallows_all_keeps_nobody_from_the_next() {
        let (silent, _sockets) = swallowing();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let good = listener.local_addr().expect("it is bound");
        let refusing = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let refused = refusing.local_addr().expect("it is bound");
        drop(refusing);
        for (addresses, expected) in [
            (vec![silent, refused, good], Some(Some(good))),
            (vec![good, silent], Some(Some(good))),
            (vec![refused], Some(None)),
            (vec![], None),
        ] {
            let connecting = connect_to_first(addresses.into_iter());
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
            let connected = connected.expect("within the time of all");
            let found = connected.map(|stream| stream.ok()?.peer_addr().ok());
            assert_eq!(found, expected);
        }
        let alone = connect_to_first([silent].into_iter());
        let swallowed = tokio::time::timeout(3 * STAGGER, alone).await;
        assert!(swallowed.is_err(), "it took a connection");
    }
}
