//! The floor: a process of one thread that does nothing but `send()` a ready frame to each of its
//! sockets, one publication at a time.
//!
//! In: a frame on its first connection, prefixed by its length. Out: that frame on every other
//! connection, then one byte back. It ends when the first connection ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The argument that turns this program into the loop.
pub(crate) const MODE: &str = "bare-loop";

/// The loop itself: takes its connection of orders, then so many sockets, then orders.
pub(crate) fn run(sockets_count: usize) -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let (mut orders, _) = listener.accept()?;
    orders.set_nodelay(true)?;
    let mut sockets = Vec::with_capacity(sockets_count);
    for _ in 0..sockets_count {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        sockets.push(socket);
    }
    send_all(&mut orders, &mut sockets)
}

fn send_all(orders: &mut TcpStream, sockets: &mut [TcpStream]) -> std::io::Result<()> {
    let mut frame = [0; u16::MAX as usize];
    loop {
        let mut length = [0; 2];
        if orders.read_exact(&mut length).is_err() {
            return Ok(());
        }
        let frame = &mut frame[..usize::from(u16::from_be_bytes(length))];
        orders.read_exact(frame)?;
        for socket in &mut *sockets {
            socket.write_all(frame)?;
        }
        orders.write_all(&[1])?;
    }
}

/// The loop as a process of its own. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Bare {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Bare {
    /// Starts it.
    pub(crate) fn start(sockets_count: usize) -> Self {
        let program = std::env::current_exe().expect("a running program has a file");
        let mut child = Command::new(program)
            .args([MODE, &sockets_count.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts once more");
        let mut line = String::new();
        let told = child.stdout.as_mut().expect("stdout is piped");
        let read = BufReader::new(told).read_line(&mut line);
        read.expect("the loop says where it listens");
        let address = line.trim().parse().expect("an address");
        Self { child, address }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // An error means that the process is gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The connection over which the loop gets its orders.
#[derive(Debug)]
pub(crate) struct Orders(pub(crate) tokio::net::TcpStream);

impl Orders {
    /// Has one frame sent to every socket, and waits until that was done.
    pub(crate) async fn send(&mut self, frame: &[u8]) {
        let length = u16::try_from(frame.len()).expect("shorter than 64 KiB");
        let mut order = length.to_be_bytes().to_vec();
        order.extend_from_slice(frame);
        self.0.write_all(&order).await.expect("the loop lives");
        let done = self.0.read_u8().await;
        done.expect("the loop lives");
    }
}
