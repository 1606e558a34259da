//! The floor: a process of one thread that does nothing but `send()` ready frames to each of its
//! sockets, merging all that waits when it looks.
//!
//! In: frames on its first connection, each prefixed by its length. Out: those frames on every
//! other connection, then one byte back for each. With one publication at a time that is one
//! `send()` a socket and publication; under a backlog one a socket for all that came meanwhile.
//! It ends when the first connection ends. Bound: what its orders' sender has under way; a socket
//! that takes nothing stops it, which is why its readers never pause.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Mutex, watch};

/// Most that is taken in at once: more than eight publishers ever have under way.
const READ_BYTES: usize = 64 * 1_024;
/// Bytes of an order before its frame.
const LENGTH_BYTES: usize = 2;

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
    let mut chunk = vec![0; READ_BYTES];
    let (mut waiting, mut merged) = (Vec::new(), Vec::new());
    loop {
        let Some(read) = orders.read(&mut chunk).ok().filter(|n| *n > 0) else {
            return Ok(());
        };
        waiting.extend_from_slice(&chunk[..read]);
        merged.clear();
        let (mut taken, mut count) = (0, 0);
        while let Some(frame) = order(&waiting[taken..]) {
            merged.extend_from_slice(frame);
            taken += LENGTH_BYTES + frame.len();
            count += 1;
        }
        waiting.drain(..taken);
        if count > 0 {
            for socket in &mut *sockets {
                socket.write_all(&merged)?;
            }
            orders.write_all(&vec![1; count])?;
        }
    }
}

/// The frame of the first order, when all of it is there.
fn order(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    rest.get(..usize::from(u16::from_be_bytes(*length)))
}

/// A floor as a process of its own: this program once more. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Bare {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Bare {
    /// The loop over so many sockets.
    pub(crate) fn of_loop(sockets_count: usize) -> Self {
        Self::start(&[format!("--bare-loop={sockets_count}")])
    }

    /// Starts what these arguments ask for, which says where it listens.
    pub(crate) fn start(arguments: &[String]) -> Self {
        let program = std::env::current_exe().expect("a running program has a file");
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts once more");
        let mut line = String::new();
        let told = child.stdout.as_mut().expect("stdout is piped");
        let read = BufReader::new(told).read_line(&mut line);
        read.expect("the floor says where it listens");
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

/// The connection over which the loop gets its orders; several may have one under way.
#[derive(Debug)]
pub(crate) struct Orders {
    /// With the number of orders sent.
    writer: Mutex<(OwnedWriteHalf, u64)>,
    /// The number of orders carried out.
    answered: watch::Receiver<u64>,
}

impl Orders {
    /// Must be the first connection to the loop, within a `LocalSet`.
    pub(crate) async fn connect(bare: &Bare) -> Self {
        let stream = tokio::net::TcpStream::connect(bare.address).await;
        let stream = stream.expect("the loop listens");
        stream.set_nodelay(true).expect("a TCP socket");
        let (mut reader, writer) = stream.into_split();
        let (count, answered) = watch::channel(0);
        tokio::task::spawn_local(async move {
            let mut done = [0; 64];
            while let Some(read) = reader.read(&mut done).await.ok().filter(|n| *n > 0) {
                count.send_modify(|count| *count += read as u64);
            }
        });
        Self {
            writer: Mutex::new((writer, 0)),
            answered,
        }
    }

    /// Has one frame sent to every socket, and waits until that was done.
    pub(crate) async fn send(&self, frame: &[u8]) {
        let length = u16::try_from(frame.len()).expect("shorter than 64 KiB");
        let mut order = length.to_be_bytes().to_vec();
        order.extend_from_slice(frame);
        let ticket = {
            let (writer, sent) = &mut *self.writer.lock().await;
            writer.write_all(&order).await.expect("the loop lives");
            *sent += 1;
            *sent
        };
        let mut answered = self.answered.clone();
        let done = answered.wait_for(|count| *count >= ticket).await;
        done.expect("the loop lives");
    }
}
