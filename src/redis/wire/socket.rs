//! The sockets by which a server of Redis is reached: TCP, TLS over it, and those of this machine.
//!
//! In: a [`Target`]. Out: one stream that is connected and has every option set. Owner of the socket.
//! Bounds: `CONNECT_TIMEOUT` for the name, all its addresses and the handshake of TLS together. Errors
//! are reported in the form of fred, so that `access` explains both in the same words.

use std::io::{Error as IoError, Result as IoResult};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use fred::error::{Error, ErrorKind};
use fred::rustls::pki_types::ServerName;
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
    let mut last = Error::new(ErrorKind::IO, format!("Failed to resolve {server}"));
    for address in tokio::net::lookup_host(server).await? {
        match TcpStream::connect(address).await.and_then(prepared) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
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
