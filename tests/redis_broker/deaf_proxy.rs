//! A way to Redis that can be made deaf: published messages vanish, everything else passes.
//!
//! In: the port of a server. Out: a port that leads there. A connection that is deaf looks well
//! from both ends, its PINGs are answered, which is what the end-to-end probe is there to find.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use fanfare_testkit::resp::read_frame;

/// See the module.
pub(crate) struct DeafProxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Connections made up to now become deaf; later ones hear.
    deaf_connections: AtomicUsize,
    connections: AtomicUsize,
    has_swallowed: AtomicBool,
}

impl DeafProxy {
    /// A proxy that hears.
    pub(crate) async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("a bound port").port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", to)).await;
                let (from_server, mut to_server) = server.expect("the server runs").into_split();
                let (mut from_client, to_client) = client.into_split();
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                });
                tokio::spawn(pass_answers(from_server, to_client, Arc::clone(&shared)));
            }
        });
        Self { port, state }
    }

    /// What a node is given.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Makes the present connections deaf.
    pub(crate) fn deafen(&self) {
        let count = self.state.connections.load(Ordering::SeqCst);
        self.state.deaf_connections.store(count, Ordering::SeqCst);
    }

    /// Whether a message has vanished.
    pub(crate) fn has_swallowed(&self) -> bool {
        self.state.has_swallowed.load(Ordering::SeqCst)
    }
}

/// Passes frames on one by one, so that single ones can be left out.
async fn pass_answers(server: OwnedReadHalf, mut client: OwnedWriteHalf, state: Arc<State>) {
    let number = state.connections.fetch_add(1, Ordering::SeqCst);
    let mut server = BufReader::new(server);
    while let Some(frame) = read_frame(&mut server).await {
        let is_deaf = number < state.deaf_connections.load(Ordering::SeqCst);
        if is_deaf && frame.starts_with(b">3\r\n$7\r\nmessage\r\n") {
            state.has_swallowed.store(true, Ordering::SeqCst);
        } else if client.write_all(&frame).await.is_err() {
            return;
        }
    }
}
