//! A way to Redis on which answers arrive in small pieces.
//!
//! In: the port of a server, and how long a piece is. Out: a port that leads there. What goes to the
//! server is passed on as it comes.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Starts one and returns its URL.
pub(crate) async fn start(to: u16, piece_bytes: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("a bound port").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            client.set_nodelay(true).expect("a socket");
            let server = TcpStream::connect(("127.0.0.1", to)).await;
            let (mut from_server, mut to_server) = server.expect("the server runs").into_split();
            let (mut from_client, mut to_client) = client.into_split();
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
            });
            tokio::spawn(async move {
                let mut bytes = vec![0; 1 << 16];
                while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
                    for piece in bytes[..count].chunks(piece_bytes) {
                        if to_client.write_all(piece).await.is_err() {
                            return;
                        }
                        tokio::task::yield_now().await;
                    }
                }
            });
        }
    });
    format!("redis://127.0.0.1:{port}")
}
