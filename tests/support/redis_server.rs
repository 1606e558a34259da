//! A real `redis-server` on a free port of this machine, in a directory of its own.
//!
//! Every write is on disk before it is answered, so that what was answered outlives a kill.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::wait;

/// A server that is started, killed and started again on the same port with the same data.
#[derive(Debug)]
pub struct RedisServer {
    address: SocketAddr,
    directory: tempfile::TempDir,
    program: String,
    options: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// A running server.
    pub async fn start() -> Self {
        let mut server = Self::not_yet();
        server.restart().await;
        server
    }

    /// A port on which nothing answers until [`Self::restart`].
    pub fn not_yet() -> Self {
        Self::with("redis-server", &[])
    }

    /// The same with another program, and options that come after those of this module.
    pub fn with(program: &str, options: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Self {
            address: listener.local_addr().expect("a bound port"),
            directory: tempfile::tempdir().expect("a temporary directory"),
            program: program.into(),
            options: options.iter().map(ToString::to_string).collect(),
            child: None,
        }
    }

    /// For `--redis`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// The port, for what stands between a node and the server.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Starts the server and waits until it has read its data and answers.
    ///
    /// # Panics
    /// When `redis-server` is not installed; `scripts/test` installs it.
    pub async fn restart(&mut self) {
        let port = self.address.port().to_string();
        let directory = self.directory.path().to_string_lossy().into_owned();
        let options = [
            ["--bind", "127.0.0.1"],
            ["--port", &port],
            ["--dir", &directory],
            ["--appendonly", "yes"],
            ["--appendfsync", "always"],
            ["--save", ""],
        ];
        let child = Command::new(&self.program)
            .args(options.iter().flatten())
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed: scripts/test does that");
        self.child = Some(child);
        wait::until("redis-server to answer", async || {
            (self.command(&["PING"])? == "+PONG").then_some(())
        })
        .await;
    }

    /// Stops the process where it stands, or lets it go on.
    pub fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.pid());
        let status = Command::new("sh").args(["-c", &command]).status();
        assert!(status.expect("a shell").success(), "{command}");
    }

    /// Ends the server as a lost machine ends: without a word.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the process can be killed");
            child.wait().expect("the process can be awaited");
        }
    }

    /// Ends the server and all that it had written, as a machine without a disk.
    pub fn kill_with_data(&mut self) {
        self.kill();
        self.directory = tempfile::tempdir().expect("a temporary directory");
    }

    /// Sends a command and returns the first line of the answer; `None` when nobody answers.
    pub fn command(&self, words: &[&str]) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n") {
            stream.read_exact(&mut byte).ok()?;
            answer.push(byte[0]);
        }
        Some(String::from_utf8_lossy(&answer).trim_end().to_owned())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
