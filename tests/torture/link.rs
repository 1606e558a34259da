//! A way between two processes that can be cut, delayed and stalled: a TCP proxy.
//!
//! In: connections to its own port. Out: connections to its target, which may change. A connection
//! that is cut is reset at both ends. A stalled one stays open and passes nothing, so that the
//! kernels' buffers fill as on a dead network. A link towards Redis can also swallow what is
//! published, for the controls. Owner: the run's thread. Bound: 16 KiB in flight a direction.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::swallow::Swallow;

/// What is read at once.
const CHUNK_BYTES: usize = 16 * 1_024;

/// What the link does with what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes it on.
    Pass,
    /// Passes it on later.
    Delay(Duration),
    /// Keeps it, and everything behind it.
    Stall,
    /// Resets what is there and what comes.
    Cut,
}

/// See the module.
pub(crate) struct Link {
    address: SocketAddr,
    shared: Rc<Shared>,
}

struct Shared {
    target: Cell<SocketAddr>,
    mode: watch::Sender<Mode>,
    /// Counts up whenever all connections are to end.
    resets: watch::Sender<u64>,
    swallow: Option<Swallow>,
}

impl Link {
    /// A link that passes everything.
    pub(crate) async fn to(target: SocketAddr) -> Self {
        Self::start(target, None).await
    }

    /// A link to Redis whose publications go through `swallow`.
    pub(crate) async fn swallowing(target: SocketAddr, swallow: Swallow) -> Self {
        Self::start(target, Some(swallow)).await
    }

    async fn start(target: SocketAddr, swallow: Option<Swallow>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let shared = Rc::new(Shared {
            target: Cell::new(target),
            mode: watch::Sender::new(Mode::Pass),
            resets: watch::Sender::new(0),
            swallow,
        });
        let accepting = Rc::clone(&shared);
        tokio::task::spawn_local(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::task::spawn_local(Rc::clone(&accepting).join(client));
            }
        });
        Self { address, shared }
    }

    /// Where to connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads elsewhere from the next connection on.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.shared.target.set(target);
    }

    /// Changes what is done with what passes.
    pub(crate) fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
        if mode == Mode::Cut {
            self.reset();
        }
    }

    /// Resets all connections; new ones pass.
    pub(crate) fn reset(&self) {
        self.shared.resets.send_modify(|count| *count += 1);
    }
}

impl Shared {
    /// Passes everything between a client and the target until one of them ends or all are cut.
    async fn join(self: Rc<Self>, client: TcpStream) {
        let mut resets = self.resets.subscribe();
        // A dropped socket is reset and not closed in order.
        let _ = client.set_zero_linger();
        if *self.mode.borrow() == Mode::Cut {
            return;
        }
        let Ok(server) = TcpStream::connect(self.target.get()).await else {
            return;
        };
        let _ = server.set_zero_linger();
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let back = async {
            match &self.swallow {
                None => self.pump(from_server, to_client).await,
                Some(swallow) => swallow.pump(BufReader::new(from_server), to_client).await,
            }
        };
        tokio::select! {
            () = self.pump(from_client, to_server) => {}
            () = back => {}
            _ = resets.changed() => {}
        }
    }

    async fn pump(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut mode = self.mode.subscribe();
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            let now = *mode.borrow_and_update();
            if let Mode::Delay(delay) = now {
                tokio::time::sleep(delay).await;
            }
            // What is waited for is a lock on the mode, which must not be held while writing.
            let goes_on = mode.wait_for(|mode| *mode != Mode::Stall).await.is_ok();
            if !goes_on || to.write_all(&chunk[..length]).await.is_err() {
                return;
            }
        }
    }
}
