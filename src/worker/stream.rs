//! The socket of a session, whatever lies between the session and the network; the only file that
//! knows what that is.
//!
//! In: bytes to write, room to read into. Out: what the socket took or gave, or that it would block.
//! Owner: the session and its worker together, on one thread. Nothing waits here but for readiness.

use std::io;
use std::net::Shutdown;
use std::task::{Context, Poll};

use rustix::net::SendFlags;
use socket2::SockRef;
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;

/// A connection that has become a session's.
#[derive(Debug)]
pub enum Stream {
    /// TCP without encryption.
    Tcp(TcpStream),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl Stream {
    /// Whether there may be bytes to read; registers the task for when there are.
    ///
    /// # Errors
    /// The runtime is shutting down.
    #[inline]
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Whether there may be room to write; registers the task for when there is.
    ///
    /// # Errors
    /// The runtime is shutting down.
    #[inline]
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Until there may be room to write. Cancel-safe.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
        }
    }

    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock`, or the stream's.
    #[inline]
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
        }
    }

    /// [`Self::try_read`] into what is free of a buffer.
    ///
    /// # Errors
    /// As [`Self::try_read`].
    #[inline]
    pub fn try_read_buf(&self, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read_buf(buffer),
        }
    }

    /// A read shorter than its buffer has emptied the socket. Told so, the runtime waits for the
    /// next bytes at once; otherwise every message would cost a second read that finds nothing.
    #[inline]
    pub fn mark_drained(&self) {
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        // The answer is the error given here.
        let _ = match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, nothing),
        };
    }

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// `WouldBlock`, or the stream's.
    #[inline]
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
        }
    }

    /// [`Self::try_write`] of several pieces at once.
    ///
    /// # Errors
    /// As [`Self::try_write`].
    #[inline]
    pub fn try_write_vectored(&self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write_vectored(pieces),
        }
    }

    /// HOT: one frame, straight to the socket. Asking the runtime first whether there is room touches
    /// memory that is cold when there are many sockets: 8 % of a delivery's CPU (`benches/fanout`,
    /// `paced`). Where there is none, the runtime tries again and notes it, so that the session can
    /// wait for it.
    ///
    /// # Errors
    /// As [`Self::try_write`].
    #[inline]
    pub fn send(&self, frame: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => {
                let sent =
                    rustix::net::send(stream, frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
                sent.or_else(|_| stream.try_write(frame))
            }
        }
    }

    /// Tells the client that nothing more comes. Reading goes on.
    ///
    /// # Errors
    /// Nobody is there any more.
    pub fn shut_writing(&self) -> io::Result<()> {
        self.raw().shutdown(Shutdown::Write)
    }

    /// The socket below, for its options.
    #[must_use]
    pub fn raw(&self) -> SockRef<'_> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_no_larger_than_the_socket_that_it_is() {
        assert_eq!(size_of::<Stream>(), size_of::<TcpStream>());
    }
}
