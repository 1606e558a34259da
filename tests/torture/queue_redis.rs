//! Where a backend of its own finds the master of a partition of the queue, and how it speaks to it.
//!
//! In: the addresses of servers and sentinels, which stay for a run. Out: what became of one command,
//! or of several in a row. It knows of the product no more than docs/queue.md says: the partition,
//! and which deployment has it. Bounds: a connection a server; [`ANSWER_PATIENCE`] for an answer.

use std::rc::Rc;
use std::time::Duration;

use fanfare::broker::redis::shards::Shards;
use rustc_hash::FxHashMap;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::redis_form::Form;
use fanfare_testkit::redis_sentinels::MASTER;
use fanfare_testkit::resp::read_frame;

/// Longest wait for a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// Longest wait for an answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(4);
/// How long a sentinel's word is believed: a master that was replaced goes on taking entries for up
/// to ten seconds, and all of them are lost.
const MASTER_FOR: Duration = Duration::from_millis(500);

/// The addresses of a form of Redis.
#[derive(Debug, Clone)]
pub(crate) struct Doors {
    pub(crate) form: Form,
    /// Of servers, in the order in which they were started.
    pub(crate) ports: Vec<u16>,
    pub(crate) sentinels: Vec<u16>,
    /// The names of deployments.
    pub(crate) names: Vec<String>,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// Its answer, a text.
    Ok(String),
    /// Surely not done.
    Refused(String),
    /// It was sent, and no answer came.
    Lost,
}

/// See the module.
pub(crate) struct Wire {
    doors: Doors,
    shards: Rc<Shards>,
    connections: FxHashMap<u16, BufReader<TcpStream>>,
    /// The masters of slots, by partition, as servers of a cluster said.
    slots: FxHashMap<u32, u16>,
    /// The master as a sentinel said, and when.
    master: Option<(u16, Instant)>,
}

impl Wire {
    /// One that is connected to nobody.
    pub(crate) fn to(doors: &Doors, partitions_count: u32) -> Self {
        Self {
            shards: Rc::new(Shards::new(&doors.names, partitions_count)),
            doors: doors.clone(),
            connections: FxHashMap::default(),
            slots: FxHashMap::default(),
            master: None,
        }
    }

    /// Sends commands of one partition in a row. An answer for each, in their order.
    pub(crate) async fn ask(&mut self, partition: u32, commands: &[Vec<String>]) -> Vec<Told> {
        let refused = |why: &str| vec![Told::Refused(why.to_owned()); commands.len()];
        let Some(port) = self.port(partition).await else {
            return refused("no master is known");
        };
        let told = self.ask_at(port, commands).await;
        match told.first() {
            Some(Told::Refused(why)) if why.starts_with("MOVED") => {
                if let Some(port) = port_in(why) {
                    self.slots.insert(partition, port);
                }
            }
            Some(Told::Refused(why)) if why.starts_with("ASK ") && commands.len() == 1 => {
                let Some(port) = port_in(why) else {
                    return told;
                };
                let both = [vec!["ASKING".to_owned()], commands[0].clone()];
                return self.ask_at(port, &both).await.split_off(1);
            }
            Some(Told::Ok(_)) => {}
            _ => {
                self.master = None;
                self.slots.remove(&partition);
            }
        }
        told
    }

    /// The same at one server.
    pub(crate) async fn ask_at(&mut self, port: u16, commands: &[Vec<String>]) -> Vec<Told> {
        let known = self.connections.remove(&port);
        let connection = match known {
            Some(connection) => Some(connection),
            None => connect(port).await,
        };
        let Some(mut connection) = connection else {
            return vec![Told::Refused("nobody listens".to_owned()); commands.len()];
        };
        let mut bytes = Vec::new();
        for words in commands {
            bytes.extend(format!("*{}\r\n", words.len()).bytes());
            for word in words {
                bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
            }
        }
        let mut told = Vec::new();
        if connection.write_all(&bytes).await.is_ok() {
            for _ in commands {
                match timeout(ANSWER_PATIENCE, read_frame(&mut connection)).await {
                    Ok(Some(frame)) => told.push(Told::of(&frame)),
                    _ => break,
                }
            }
        }
        if told.len() == commands.len() {
            self.connections.insert(port, connection);
        }
        told.resize(commands.len(), Told::Lost);
        told
    }

    async fn port(&mut self, partition: u32) -> Option<u16> {
        let ports = &self.doors.ports;
        match self.doors.form {
            Form::Single => Some(ports[0]),
            Form::Shards => Some(ports[self.shards.of(partition)]),
            Form::Cluster => {
                let any = ports[rand::random_range(0..ports.len())];
                Some(self.slots.get(&partition).copied().unwrap_or(any))
            }
            Form::Sentinel => {
                let asked = self.master.map(|(_, at)| at);
                if asked.is_none_or(|at| at.elapsed() > MASTER_FOR)
                    && let Some(port) = self.named_master().await
                {
                    self.master = Some((port, Instant::now()));
                }
                self.master.map(|(port, _)| port)
            }
        }
    }

    /// The master that a sentinel names.
    async fn named_master(&mut self) -> Option<u16> {
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
        let command = words.map(str::to_owned).to_vec();
        for sentinel in self.doors.sentinels.clone() {
            let told = self.ask_at(sentinel, std::slice::from_ref(&command)).await;
            if let Some(Told::Ok(text)) = told.first()
                && let Some(port) = text.lines().last().and_then(|port| port.parse().ok())
            {
                return Some(port);
            }
        }
        None
    }
}

/// A connection, or nothing.
async fn connect(port: u16) -> Option<BufReader<TcpStream>> {
    let connecting = TcpStream::connect(("127.0.0.1", port));
    let stream = timeout(CONNECT_PATIENCE, connecting).await.ok()?.ok()?;
    let _ = stream.set_nodelay(true);
    Some(BufReader::new(stream))
}

/// The port at the end of `MOVED 3999 127.0.0.1:6381`.
fn port_in(words: &str) -> Option<u16> {
    words.rsplit(':').next()?.trim().parse().ok()
}

impl Told {
    /// A frame with its texts, a line each, without what stands before them.
    fn of(frame: &[u8]) -> Self {
        let text = String::from_utf8_lossy(frame);
        if let Some(why) = text.strip_prefix('-') {
            return Self::Refused(why.trim_end().to_owned());
        }
        let lines = text.lines().filter(|line| !line.starts_with(['$', '*']));
        Self::Ok(lines.collect::<Vec<_>>().join("\n"))
    }
}
