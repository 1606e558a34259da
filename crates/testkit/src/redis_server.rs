//! A real `redis-server` on a free port of this machine, in a directory of its own.
//!
//! Every write is on disk before it is answered, so that what was answered outlives a kill.
//! `FANFARE_TEST_REDIS` names another program to start, of another release or of Valkey.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::certificates::Encryption;
use crate::wait;

/// A server that is started, killed and started again on the same port with the same data.
#[derive(Debug)]
pub struct RedisServer {
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    directory: tempfile::TempDir,
    options: Vec<String>,
    /// How many seconds its clock is behind.
    clock_behind: u32,
    /// The file that its clock shows.
    clock: Option<PathBuf>,
    child: Option<Child>,
}

/// The program that the tests start.
pub fn program() -> String {
    std::env::var("FANFARE_TEST_REDIS").unwrap_or_else(|_| "redis-server".to_owned())
}

/// A port that nobody has at the moment.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound port")
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
        Self::with(&[])
    }

    /// The same, to be started with these options beside the usual ones.
    pub fn with(options: &[&str]) -> Self {
        Self {
            address: free_address(),
            tls_address: None,
            directory: tempfile::tempdir().expect("a temporary directory"),
            options: options.iter().map(ToString::to_string).collect(),
            clock_behind: 0,
            clock: None,
            child: None,
        }
    }

    /// The same with a clock that is so many seconds behind this machine's.
    #[must_use]
    pub fn clock_behind(mut self, seconds: u32) -> Self {
        self.clock_behind = seconds;
        self
    }

    /// The same with a clock that shows this, in unix milliseconds, until it is set.
    #[must_use]
    pub fn clock_at(mut self, now_ms: u64) -> Self {
        self.clock = Some(self.directory.path().join("clock"));
        self.set_clock(now_ms);
        self
    }

    /// Sets the clock of a server that has one of its own.
    pub fn set_clock(&self, now_ms: u64) {
        let path = self.clock.as_ref().expect("a clock that can be set");
        let now_us = (now_ms * 1_000).to_ne_bytes();
        let options = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        let file = options.expect("a file that can be written");
        file.write_all_at(&now_us, 0)
            .expect("a file that can be written");
    }

    /// As [`Self::with`]; with this encryption, nodes and other servers reach it by TLS.
    pub fn encrypted(options: &[&str], encryption: Option<&Encryption>) -> Self {
        let mut server = Self::with(options);
        if let Some(encryption) = encryption {
            let address = free_address();
            for (name, value) in encryption.options(address.port()) {
                server.options.extend([format!("--{name}"), value]);
            }
            server.tls_address = Some(address);
        }
        server
    }

    /// Where nodes and other servers reach it.
    pub fn offered(&self) -> SocketAddr {
        self.tls_address.unwrap_or(self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it keeps its files.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// For `--redis`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// The same as the user that docs/redis.md tells operators to make, who is made here.
    pub fn url_of_user(&self) -> String {
        make_user(self.address, "fanfare");
        format!("redis://fanfare:secret@{}", self.address)
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// The port, for what stands between a node and the server.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The same as [`Self::restart`] with more options, from now on.
    pub async fn restart_with(&mut self, options: &[&str]) {
        self.options.extend(options.iter().map(ToString::to_string));
        self.restart().await;
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
        let mut command = Command::new(program());
        if self.clock_behind > 0 || self.clock.is_some() {
            command
                .env("LD_PRELOAD", clock_library(self.directory.path()))
                .env("CLOCK_BEHIND_S", self.clock_behind.to_string());
        }
        if let Some(clock) = &self.clock {
            command.env("CLOCK_FILE", clock);
        }
        let child = command
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
        line(&mut request(self.address, words)?)
    }

    /// Sends a command and returns all texts and numbers of the answer, nested or not; `None`
    /// when nobody answers.
    ///
    /// # Panics
    /// When the answer is an error.
    pub fn ask(&self, words: &[&str]) -> Option<Vec<String>> {
        ask(self.address, words)
    }
}

/// The library that gives a process another clock, compiled into this directory.
///
/// # Panics
/// When there is no C compiler, which the crate's own dependencies need too.
fn clock_library(directory: &std::path::Path) -> PathBuf {
    let library = directory.join("clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/clock.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([library.as_os_str(), source.as_ref()])
        .status();
    assert!(compiled.is_ok_and(|status| status.success()), "cc {source}");
    library
}

/// Makes a user that docs/redis.md tells operators to make, with the password `secret`, at whoever
/// listens there.
pub fn make_user(address: SocketAddr, name: &str) {
    let page = include_str!("../../../docs/redis.md");
    let begin = format!("ACL SETUSER {name} ");
    let line = page.lines().find(|line| line.starts_with(&begin));
    let line = line.expect("docs/redis.md makes this user");
    let line = line.replace(">PASSWORD", ">secret");
    let made = ask(address, &line.split(' ').collect::<Vec<_>>());
    assert_eq!(made, Some(vec!["OK".to_owned()]), "{line}");
}

/// As [`RedisServer::ask`], of whoever listens there.
pub fn ask(address: SocketAddr, words: &[&str]) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    read(&mut request(address, words)?, &mut parts)?;
    Some(parts)
}

fn request(address: SocketAddr, words: &[&str]) -> Option<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .ok()?;
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes()).ok()?;
    Some(BufReader::new(stream))
}

fn line(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let count = stream.read_line(&mut line).ok()?;
    (count > 0).then(|| line.trim_end().to_owned())
}

fn read(stream: &mut BufReader<TcpStream>, parts: &mut Vec<String>) -> Option<()> {
    let line = line(stream)?;
    let (kind, rest) = line.split_at_checked(1)?;
    let count = rest.parse::<i64>();
    match kind {
        "-" => panic!("Redis answered {rest}"),
        "*" => {
            for _ in 0..count.ok()? {
                read(stream, parts)?;
            }
        }
        "$" => {
            // A length below 0 is no text.
            if let Ok(length) = usize::try_from(count.ok()?) {
                let mut text = vec![0; length + 2];
                stream.read_exact(&mut text).ok()?;
                text.truncate(length);
                parts.push(String::from_utf8_lossy(&text).into_owned());
            }
        }
        _ => parts.push(rest.to_owned()),
    }
    Some(())
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}
