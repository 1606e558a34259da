//! A real `redis-server` of a test: on a free port of 127.0.0.1, in a directory of its own.
//!
//! In: options of the server. Out: its URL, its end in several ways, and commands to it. Owner:
//! the test; dropping it kills the process and removes the directory. Every wait has [`DEADLINE`]
//! as its bound and fails the test there.
// Each test binary uses a part of it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Longest wait for the server, many times what a loaded machine takes.
const DEADLINE: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(crate) struct RedisServer {
    port: u16,
    directory: TempDir,
    options: Vec<String>,
    process: Option<Child>,
}

impl RedisServer {
    /// A server that keeps nothing on disk.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A server with options as on its command line, for example `--appendonly yes`.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        let mut server = Self::reserve(options);
        server.restart().await;
        server
    }

    /// A server that does not run yet; [`Self::restart`] starts it.
    pub(crate) fn reserve(options: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Self {
            port: listener.local_addr().expect("a bound port").port(),
            directory: tempfile::tempdir().expect("a directory for the server"),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            process: None,
        }
    }

    /// What a node is given.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends the server as a crash does (SIGKILL).
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the server is our child");
            process.wait().expect("a killed child can be waited for");
        }
    }

    /// Ends the server in an orderly way.
    pub(crate) async fn stop(&mut self) {
        // The connection ends without an answer.
        let _ = self.try_command(&["SHUTDOWN", "NOSAVE"]).await;
        if let Some(mut process) = self.process.take() {
            process.wait().expect("the server was told to end");
        }
    }

    /// Starts the server again on the same port with what its directory holds, and waits until
    /// it answers.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--daemonize", "no"])
            .args(["--port", &self.port.to_string()])
            .arg("--dir")
            .arg(self.directory.path())
            .args(&self.options)
            .stdout(Stdio::null());
        self.process = Some(command.spawn().expect("redis-server is installed"));
        let deadline = Instant::now() + DEADLINE;
        while self.try_command(&["PING"]).await.ok().as_deref() != Some("PONG") {
            assert!(Instant::now() < deadline, "redis-server does not answer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends one command and returns the answer as text: lists have one part a line, errors
    /// begin with `-`, nothing is `(nil)`.
    pub(crate) async fn command(&self, parts: &[&str]) -> String {
        let bytes: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        self.command_bytes(&bytes).await
    }

    /// As [`Self::command`], for parts that are not text.
    pub(crate) async fn command_bytes(&self, parts: &[&[u8]]) -> String {
        let answer = tokio::time::timeout(DEADLINE, self.exchange(parts)).await;
        answer
            .expect("the server answers in time")
            .expect("the server can be reached")
    }

    async fn try_command(&self, parts: &[&str]) -> std::io::Result<String> {
        let bytes: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        self.exchange(&bytes).await
    }

    async fn exchange(&self, parts: &[&[u8]]) -> std::io::Result<String> {
        let mut request = format!("*{}\r\n", parts.len()).into_bytes();
        for part in parts {
            request.extend(format!("${}\r\n", part.len()).into_bytes());
            request.extend_from_slice(part);
            request.extend(b"\r\n");
        }
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let mut stream = BufReader::new(stream);
        stream.write_all(&request).await?;
        read_answer(&mut stream).await
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads one answer of the protocol's second version. Lists are flattened.
async fn read_answer(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut out = Vec::new();
    let mut left = 1_u64;
    while left > 0 {
        left -= 1;
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let (kind, rest) = line.trim_end().split_at(1);
        match kind {
            "+" | ":" => out.push(rest.to_owned()),
            "$" if rest.starts_with('-') => out.push("(nil)".to_owned()),
            "$" => {
                let length: usize = rest.parse().expect("a length");
                let mut bytes = vec![0; length + 2];
                stream.read_exact(&mut bytes).await?;
                bytes.truncate(length);
                out.push(String::from_utf8_lossy(&bytes).into_owned());
            }
            "*" => left += rest.parse::<u64>().unwrap_or(0),
            _ => out.push(format!("-{rest}")),
        }
    }
    Ok(out.join("\n"))
}
