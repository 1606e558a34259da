//! The floor of `unicast` over Redis: a process of one thread that does with a publication what a
//! node does, on raw sockets and without a framework.
//!
//! In: so many sockets that only read, then those of the publishers, who call as they call the HTTP
//! API. A topic is a name and the number of its socket. Out: for each call the node's own script
//! with the node's arguments, under keys of its own; the message of the feed as a frame to the one
//! socket; the position to the publisher. All commands of a turn leave with one write, on one
//! connection; another one brings the feed. It ends when a publisher goes. Bounds: one call of a
//! publisher at a time; a socket that takes nothing stops everything, which is why readers never
//! pause.

use std::collections::{HashMap, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;

use crate::bare::Bare;
use crate::crowd::PUBLISHERS_MAX;
use fanfare::broker::Body;
use fanfare::broker::publication::{self, Publication};
use fanfare::broker::redis::scripts::Scripts;
use fanfare::config::Retention;
use fanfare::redis::Keys;
use fanfare_bench::frames;
use fanfare_protocol::data::Data;
use fanfare_protocol::ids::{App, Topic};

/// Keys begin with it: as long as the node's, and not heard by it.
const PREFIX: &str = "fr";
/// As a namespace has it by default.
const RETENTION: Retention = Retention {
    entries_max: 1_000,
    age_ms: 86_400_000,
};
/// Most that is taken in at once: more than eight publishers ever have under way.
const READ_BYTES: usize = 64 * 1_024;
/// Numbers of the two connections to Redis among those that are waited for, behind the publishers.
const COMMANDS: usize = PUBLISHERS_MAX;
const FEED: usize = COMMANDS + 1;

/// Starts it over this Redis.
pub(crate) fn start(sockets_count: usize, name: &str, redis: SocketAddr) -> Bare {
    Bare::start(&[
        format!("--bare-relay={sockets_count}"),
        format!("--relay-name={name}"),
        format!("--relay-redis={redis}"),
    ])
}

/// The relay itself.
pub(crate) fn run(sockets_count: usize, name: &str, redis: SocketAddr) -> std::io::Result<()> {
    let mut commands = Incoming::connect(redis)?;
    let mut feed = Incoming::connect(redis)?;
    let sha = load(&mut commands)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let accept = || {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        Ok::<_, std::io::Error>(socket)
    };
    let (mut targets, mut by_name) = (Vec::new(), HashMap::new());
    let keys = Keys::new(PREFIX, 256);
    for number in 0..sockets_count {
        let topic = Topic::new(&App::default_app(), &format!("{name}{number}"));
        let topic = topic.expect("a topic's name");
        // A call says the topic, and the feed its channel.
        by_name.insert(topic.name().to_owned(), number);
        by_name.insert(keys.channel(&topic), number);
        targets.push(Target {
            socket: accept()?,
            command: begin_of_command(&sha, &keys, &topic),
            topic,
        });
    }
    subscribe(&mut feed, &keys, &targets)?;
    let mut waited = Vec::new();
    for _ in 0..PUBLISHERS_MAX {
        waited.push(Incoming::of(accept()?));
    }
    waited.extend([commands, feed]);
    let relay = Relay {
        targets,
        by_name,
        waited,
        asked: VecDeque::new(),
        commands: Vec::new(),
    };
    relay.run()
}

/// One topic and its reader.
struct Target {
    socket: TcpStream,
    topic: Topic,
    /// The part of its command that is always the same.
    command: Vec<u8>,
}

struct Relay {
    targets: Vec<Target>,
    /// Which target has this topic or channel.
    by_name: HashMap<String, usize>,
    /// The publishers, [`COMMANDS`] and [`FEED`].
    waited: Vec<Incoming>,
    /// Whose calls Redis has, in its order: publisher and target.
    asked: VecDeque<(usize, usize)>,
    /// What the turn sends to Redis.
    commands: Vec<u8>,
}

impl Relay {
    fn run(mut self) -> std::io::Result<()> {
        let waiting = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (number, incoming) in self.waited.iter().enumerate() {
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&waiting, &incoming.socket, data, epoll::EventFlags::IN)?;
        }
        let mut events = Vec::with_capacity(self.waited.len());
        loop {
            epoll::wait(&waiting, spare_capacity(&mut events), None)?;
            for event in events.drain(..) {
                let data = event.data;
                let number = data.u64() as usize;
                if !self.waited[number].read()? {
                    return Ok(());
                }
                match number {
                    COMMANDS => self.answer_calls()?,
                    FEED => self.deliver()?,
                    publisher => self.take_calls(publisher),
                }
            }
            self.waited[COMMANDS].socket.write_all(&self.commands)?;
            self.commands.clear();
        }
    }

    fn take_calls(&mut self, publisher: usize) {
        let incoming = &mut self.waited[publisher];
        while let Some((topic, data, length)) = call(incoming.bytes()) {
            let target = self.by_name[topic];
            self.commands.extend(&self.targets[target].command);
            end_of_command(&mut self.commands, data);
            self.asked.push_back((publisher, target));
            incoming.taken += length;
        }
    }

    fn answer_calls(&mut self) -> std::io::Result<()> {
        while let Some((position, length)) = part(self.waited[COMMANDS].bytes()) {
            let (publisher, target) = self.asked.pop_front().expect("Redis answers what it has");
            let topic = self.targets[target].topic.name();
            let position = text(position);
            let body = format!(r#"{{"results":[{{"topic":"{topic}","position":"{position}"}}]}}"#);
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            );
            let publisher = &mut self.waited[publisher];
            publisher.socket.write_all(answer.as_bytes())?;
            self.waited[COMMANDS].taken += length;
        }
        Ok(())
    }

    fn deliver(&mut self) -> std::io::Result<()> {
        let feed = &mut self.waited[FEED];
        while let Some(([_, channel, told], length)) = list(feed.bytes()) {
            let target = &mut self.targets[self.by_name[text(channel)]];
            let mut parts = told.splitn(3, |byte| *byte == b' ');
            let mut next = || parts.next().expect("the script tells id, last id and body");
            let (position, _, body) = (next(), next(), next());
            let publication = match publication::decode(body) {
                Ok(Body::Publication(publication)) => publication,
                other => panic!("no publication: {other:?}"),
            };
            let Data::Json(data) = &publication.data else {
                panic!("publishers send JSON");
            };
            let message = format!(
                r#"{{"type":"message","topic":"{}","data":{},"position":"{}","time":{}}}"#,
                target.topic.name(),
                text(data),
                text(position),
                publication.time_ms
            );
            let frame = frames::unmasked(frames::TEXT, message.as_bytes());
            target.socket.write_all(&frame)?;
            feed.taken += length;
        }
        Ok(())
    }
}

/// A socket that is read, and what came and was not taken yet.
struct Incoming {
    socket: TcpStream,
    buffer: Vec<u8>,
    taken: usize,
    end: usize,
}

impl Incoming {
    fn of(socket: TcpStream) -> Self {
        Self {
            socket,
            buffer: vec![0; READ_BYTES],
            taken: 0,
            end: 0,
        }
    }

    fn connect(to: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpStream::connect(to)?;
        socket.set_nodelay(true)?;
        Ok(Self::of(socket))
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.taken..self.end]
    }

    /// Reads once. False at the end of the stream.
    fn read(&mut self) -> std::io::Result<bool> {
        self.buffer.copy_within(self.taken..self.end, 0);
        self.end -= self.taken;
        self.taken = 0;
        let read = self.socket.read(&mut self.buffer[self.end..])?;
        self.end += read;
        Ok(read > 0)
    }
}

/// Topic and `data` of the first call, and how long it is; none while it has not all come.
fn call(bytes: &[u8]) -> Option<(&str, &[u8], usize)> {
    let (head, rest) = text(bytes).split_once("\r\n\r\n")?;
    let (_, length) = head.split_once("Content-Length: ").expect("a length");
    let length: usize = length.parse().expect("the last header is a number");
    let call = rest.get(..length)?.strip_prefix(r#"{"topic":""#);
    let (topic, data) = call
        .and_then(|call| call.strip_suffix('}')?.split_once(r#"","data":"#))
        .expect("a call as publishers make it");
    Some((topic, data.as_bytes(), head.len() + 4 + length))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it was sent as text")
}

/// Gives Redis the script, and returns the name by which it knows it.
fn load(commands: &mut Incoming) -> std::io::Result<String> {
    let load = Scripts::new(false).publish.load_args();
    let mut command = b"*3\r\n$6\r\nSCRIPT\r\n".to_vec();
    for word in &load {
        put(&mut command, word.as_bytes().expect("a script is text"));
    }
    commands.socket.write_all(&command)?;
    loop {
        assert!(commands.read()?, "Redis hung up");
        if let Some((sha, length)) = part(commands.bytes()) {
            let sha = text(sha).to_owned();
            commands.taken += length;
            return Ok(sha);
        }
    }
}

/// Hears every topic from when this returns.
fn subscribe(feed: &mut Incoming, keys: &Keys, targets: &[Target]) -> std::io::Result<()> {
    let mut command = format!("*{}\r\n", targets.len() + 1).into_bytes();
    put(&mut command, b"SUBSCRIBE");
    for target in targets {
        put(&mut command, keys.channel(&target.topic).as_bytes());
    }
    feed.socket.write_all(&command)?;
    let mut confirmed = 0;
    while confirmed < targets.len() {
        assert!(feed.read()?, "Redis hung up");
        while let Some(([_, _, _], length)) = list(feed.bytes()) {
            feed.taken += length;
            confirmed += 1;
        }
    }
    Ok(())
}

/// EVALSHA with its keys: as `src/broker/scripts/publish.lua` lists them.
fn begin_of_command(sha: &str, keys: &Keys, topic: &Topic) -> Vec<u8> {
    let mut command = b"*11\r\n".to_vec();
    for word in [
        "EVALSHA",
        sha,
        "3",
        &keys.channel(topic),
        &keys.stream(topic),
        &keys.last(topic),
    ] {
        put(&mut command, word.as_bytes());
    }
    command
}

/// The arguments behind the keys.
fn end_of_command(command: &mut Vec<u8>, data: &[u8]) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let publication = Publication::new(
        Data::Json(Bytes::copy_from_slice(data)),
        now.expect("after 1970").as_millis() as u64,
    );
    put(command, &publication::encode_publication(&publication));
    for number in [
        u64::from(rand::random::<u32>()),
        RETENTION.entries_max.into(),
        RETENTION.age_ms,
        RETENTION.last_life_ms(),
    ] {
        put(command, number.to_string().as_bytes());
    }
}

/// Writes one word of a command.
fn put(command: &mut Vec<u8>, word: &[u8]) {
    write!(command, "${}\r\n", word.len()).expect("memory takes it");
    command.extend_from_slice(word);
    command.extend_from_slice(b"\r\n");
}

/// The first answer, a list of so many texts and numbers, and how long it is; none while it has not
/// all come.
fn list<const N: usize>(bytes: &[u8]) -> Option<([&[u8]; N], usize)> {
    let head = first_line(bytes)?;
    let is_list = text(head).strip_prefix('*').map(str::parse) == Some(Ok(N));
    assert!(is_list, "Redis answered {}", text(head));
    let mut length = head.len() + 2;
    let mut parts = [&[][..]; N];
    for into in &mut parts {
        let (text, text_length) = part(&bytes[length..])?;
        *into = text;
        length += text_length;
    }
    Some((parts, length))
}

/// The first answer where it is a text or a number.
fn part(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let head = first_line(bytes)?;
    let begin = head.len() + 2;
    match head.split_first()? {
        (b'$', length) => {
            let length: usize = text(length).parse().expect("a length");
            let end = begin + length + 2;
            (bytes.len() >= end).then(|| (&bytes[begin..begin + length], end))
        }
        (b':', number) => Some((number, begin)),
        _ => panic!("Redis answered {}", text(head)),
    }
}

fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == b'\r')?;
    (bytes.len() > end + 1).then(|| &bytes[..end])
}
