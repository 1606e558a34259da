//! Leases of partitions where a server takes no script whose keys lie in several slots: each is asked
//! for alone.

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::rig::{Node, PARTITIONS};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::resp::read_frame;
use fanfare_testkit::wait::until_equal;

/// A way to a server which then knows this flag of scripts by another name only.
async fn without(flag: &'static str, to: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            let (mut from_server, to_server) = server.into_split();
            let (from_client, mut to_client) = client.into_split();
            tokio::spawn(pass_commands(from_client, to_server, flag));
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
            });
        }
    });
    port
}

async fn pass_commands(client: OwnedReadHalf, mut server: OwnedWriteHalf, flag: &str) {
    let mut client = BufReader::new(client);
    while let Some(mut command) = read_frame(&mut client).await {
        let mut parts = command.windows(flag.len());
        if let Some(at) = parts.position(|part| part == flag.as_bytes()) {
            command[at] = b'x';
        }
        if server.write_all(&command).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_leases_cannot_be_asked_for_together_each_is_asked_for_alone() {
    let redis = RedisServer::start().await;
    let port = without("allow-cross-slot-keys", redis.port()).await;
    let a = Node::joined(port, "a").await;
    until_equal((0..PARTITIONS).collect(), || async {
        a.partitions.now().partitions()
    })
    .await;
}
