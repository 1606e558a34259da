//! How often memory is asked for by one publication, from its bytes on a socket to its answer's.
//!
//! In: a kept connection to the API's listener that publishes again and again. Out: allocations of
//! the one thread on which listener and client run, counted; the client asks for none. What is
//! counted holds hyper's and the broker's part as well.

use allocation_counter::measure;
use fanfare::api::Api;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

use crate::fixture::{KEY, state};

/// Publications before any is counted, and then as many again.
const COUNT: u64 = 64;
/// Most allocations of one publication with one target.
const MOST: u64 = 26;

/// Publishes, and waits for the answer to its end.
async fn publish(client: &mut TcpStream, request: &[u8]) {
    let mut answer = [0; 1_024];
    let mut length = 0;
    client.write_all(request).await.expect("open");
    while !answer[..length].ends_with(b"}]}") {
        let read = client.read(&mut answer[length..]).await.expect("open");
        assert!(read > 0, "the API hung up");
        length += read;
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "not published");
}

#[test]
fn a_publication_asks_for_memory_few_times() {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut client = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (state, _) = state();
        let served =
            fanfare::api::serve::serve(listener, 1, Api::new(state), std::future::pending());
        tokio::spawn(served);
        TcpStream::connect(address).await.expect("the API listens")
    });
    let body = format!(
        r#"{{"topic":"live:t","data":{{"n":1,"text":"{}"}}}}"#,
        "x".repeat(180)
    );
    let request = format!(
        "POST /v1/publish HTTP/1.1\r\nHost: a:8081\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut round = || {
        runtime.block_on(async {
            for _ in 0..COUNT {
                publish(&mut client, request.as_bytes()).await;
            }
        });
    };
    round();
    let taken = measure(round).count_total;
    let each = taken.div_ceil(COUNT);
    println!("{each} allocations a publication");
    assert!(taken > 0, "they are counted");
    assert!(each <= MOST, "{each} of at most {MOST}");
}
