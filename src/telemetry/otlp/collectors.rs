//! Collectors for tests, as bare as their connections.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Nobody can send more to one who does not read.
const WINDOW: u32 = 4_096;

/// One that does this with each connection, and where it listens.
pub(super) async fn collector<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(WINDOW).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(64).unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

/// How a collector of gRPC says that all of a message may be sent at once: `SETTINGS` and `WINDOW_UPDATE`.
pub(super) const SEND_ALL: &[u8] = &[
    0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff, //
    0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xff, 0, 0,
];

/// One that says this and never reads.
pub(super) async fn deaf(says: &'static [u8]) -> u16 {
    collector(move |mut stream| async move {
        stream.write_all(says).await.unwrap();
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await
}

/// How many requests came, and by how many connections.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: AtomicUsize,
    pub(super) connections: AtomicUsize,
}

/// One that answers each request so.
pub(super) async fn answering(answer: String) -> (u16, Arc<Counts>) {
    let counts: Arc<Counts> = Arc::default();
    let counting = Arc::clone(&counts);
    let port = collector(move |mut stream| {
        let (counts, answer) = (Arc::clone(&counting), answer.clone());
        async move {
            counts.connections.fetch_add(1, Ordering::Relaxed);
            let mut read = Vec::new();
            while stream
                .read_buf(&mut read)
                .await
                .is_ok_and(|count| count > 0)
            {
                if is_whole(&read) {
                    read.clear();
                    counts.requests.fetch_add(1, Ordering::Relaxed);
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        }
    })
    .await;
    (port, counts)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = lengths.next().unwrap().1.parse().unwrap();
    request.len() >= head.len() + 4 + length
}
