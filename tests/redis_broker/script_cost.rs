//! What a publication costs Redis by its script, beside the script of the release before.
//!
//! In: the scripts, and with `FANFARE_SCRIPTS_BEFORE` a directory with `position.lua`, `append.lua`
//! and `publish.lua` of that form in place of `tests/redis_broker/before`. Out: processor time of
//! redis-server a publication, as it says itself. One connection writes 64 scripts at once and
//! reads their answers, over 1,000 topics in turn whose streams are full; both releases on the same
//! topics, by turns, and who begins changes from round to round.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;

use fanfare::broker::PublishRequest;
use fanfare::broker::publication::encode_publication;
use fanfare::broker::redis::publisher;
use fanfare::broker::redis::scripts::Scripts;
use fanfare::config::Retention;
use fanfare::redis::{Keys, Script};
use fanfare_protocol::data::Data;
use fred::types::Value;

use crate::before;
use crate::rig::{request, topic};
use fanfare_testkit::redis_server::RedisServer;

const TOPICS: usize = 1_000;
const AT_ONCE: usize = 64;
const ROUNDS: usize = 7;
/// Of one release in one round.
const PUBLICATIONS: usize = 600 * AT_ONCE;
const BODY_BYTES: usize = 200;

/// What is published to.
#[derive(Debug, Clone, Copy)]
enum Kind {
    History,
    Inbox,
    Plain,
}

impl Kind {
    fn request(self, n: usize) -> PublishRequest {
        let name = match self {
            Self::History => format!("room:{n}"),
            Self::Inbox => format!("@user:{n}"),
            Self::Plain => format!("plain:{n}"),
        };
        let mut request = request(&topic(&name), 0);
        let text = format!("\"{}\"", "x".repeat(BODY_BYTES));
        request.publication.data = Data::Json(text.into_bytes().into());
        request.retention = Retention {
            entries_max: if matches!(self, Self::Plain) { 0 } else { 100 },
            age_ms: 86_400_000,
        };
        request
    }
}

/// The commands of one release, one a topic.
struct Release {
    name: &'static str,
    commands: Vec<Vec<u8>>,
    costs_us: Vec<f64>,
}

impl Release {
    fn before(kind: Kind) -> (Script, Self) {
        let parts = match std::env::var("FANFARE_SCRIPTS_BEFORE") {
            Ok(directory) => ["position.lua", "append.lua", "publish.lua"].map(|name| {
                let path = Path::new(&directory).join(name);
                std::fs::read_to_string(path).expect("a file that can be read")
            }),
            Err(_) => before::PUBLISH.map(str::to_owned),
        };
        let script = before::publish_script(parts.each_ref().map(String::as_str));
        let command = |n| {
            let request = kind.request(n);
            let (keys, args) = before::arguments(&Keys::new("ff", 256), &request, rand::random());
            let mut words = vec![b"EVALSHA".to_vec(), script.sha().into()];
            words.push(keys.len().to_string().into());
            words.extend(keys.map(String::into_bytes));
            words.extend(args);
            command(&words)
        };
        let commands = (0..TOPICS).map(command).collect();
        (script.clone(), Self::new("before", commands))
    }

    fn now(kind: Kind) -> (Script, Self) {
        let (script, keys) = (Scripts::new(false).publish, Keys::new("ff", 256));
        let command = |n| {
            let request = kind.request(n);
            let body = encode_publication(&request.publication);
            let partition = keys.partition_of(&request.topic);
            let args: Vec<Value> = publisher::arguments(&script, &keys, &request, partition, body);
            let mut words = vec![b"EVALSHA".to_vec()];
            words.extend(args.iter().map(bytes));
            command(&words)
        };
        let commands = (0..TOPICS).map(command).collect();
        (script.clone(), Self::new("now", commands))
    }

    fn new(name: &'static str, commands: Vec<Vec<u8>>) -> Self {
        Self {
            name,
            commands,
            costs_us: Vec::new(),
        }
    }

    fn publish(&self, connection: &mut Connection, count: usize) {
        for first in (0..count).step_by(AT_ONCE) {
            let nth = |n: usize| self.commands[(first + n) % TOPICS].as_slice();
            let together: Vec<_> = (0..AT_ONCE).map(nth).collect();
            connection.send(&together.concat());
            for _ in 0..AT_ONCE {
                connection.read();
            }
        }
    }

    fn least_and_median(&mut self) -> (f64, f64) {
        self.costs_us.sort_by(f64::total_cmp);
        (self.costs_us[0], self.costs_us[self.costs_us.len() / 2])
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    value.as_bytes().expect("a text").to_vec()
}

fn command(words: &[Vec<u8>]) -> Vec<u8> {
    let mut command = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        command.extend(format!("${}\r\n", word.len()).bytes());
        command.extend(word.iter().chain(b"\r\n"));
    }
    command
}

/// A connection of the second version of the protocol.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn new(redis: &RedisServer) -> Self {
        let stream = TcpStream::connect(redis.address()).expect("Redis listens");
        Self(BufReader::with_capacity(1 << 16, stream))
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("Redis reads");
    }

    fn ask(&mut self, words: &[&str]) {
        let words: Vec<_> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        self.send(&command(&words));
        self.read();
    }

    fn read(&mut self) {
        let mut left = 1;
        while left > 0 {
            left -= 1;
            let mut line = String::new();
            self.0.read_line(&mut line).expect("Redis answers");
            let (kind, rest) = line.trim_end().split_at(1);
            assert_ne!(kind, "-", "{rest}");
            match (kind, rest.parse::<usize>()) {
                ("*", Ok(count)) => left += count,
                ("$", Ok(length)) => {
                    let mut text = vec![0; length + 2];
                    self.0.read_exact(&mut text).expect("Redis answers");
                }
                _ => {}
            }
        }
    }

    /// Hears all topics until Redis ends.
    fn hear(mut self, channels: &[String]) {
        let mut words = vec![b"SUBSCRIBE".to_vec()];
        words.extend(channels.iter().map(|channel| channel.clone().into_bytes()));
        self.send(&command(&words));
        // The last one stands when all do.
        for _ in channels {
            self.read();
        }
        thread::spawn(move || {
            let mut heard = [0; 1 << 16];
            while self
                .0
                .get_mut()
                .read(&mut heard)
                .is_ok_and(|count| count > 0)
            {}
        });
    }
}

/// Processor time that Redis has used, in microseconds.
pub(crate) fn used_us(redis: &RedisServer) -> f64 {
    let info = redis.ask(&["INFO", "cpu"]).expect("Redis answers").join("");
    let field = |name: &str| -> f64 {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        line.expect("it is told").trim().parse().expect("seconds")
    };
    (field("used_cpu_user:") + field("used_cpu_sys:")) * 1e6
}

async fn measure(kind: Kind, is_heard: bool) -> [Release; 2] {
    let mut redis = RedisServer::with(&["--appendonly", "no"]);
    redis.restart().await;
    let mut connection = Connection::new(&redis);
    let keys = Keys::new("ff", 256);
    let topics: Vec<_> = (0..TOPICS).map(|n| kind.request(n).topic).collect();
    if is_heard {
        let channels: Vec<_> = topics.iter().map(|topic| keys.channel(topic)).collect();
        Connection::new(&redis).hear(&channels);
    }
    for topic in topics.iter().filter(|_| matches!(kind, Kind::Inbox)) {
        connection.ask(&["SET", &keys.cursor(topic), "1700000000000-1"]);
    }
    let releases = [Release::before(kind), Release::now(kind)];
    let mut releases = releases.map(|(script, release)| {
        let load: Vec<_> = script.load_args().iter().map(bytes).collect();
        let words = [vec![b"SCRIPT".to_vec()], load].concat();
        connection.send(&command(&words));
        connection.read();
        release
    });
    // Streams are full, and what is made once is made.
    for release in &releases {
        release.publish(&mut connection, 60 * TOPICS);
    }
    for _ in 0..ROUNDS {
        for release in &mut releases {
            let before_us = used_us(&redis);
            release.publish(&mut connection, PUBLICATIONS);
            let cost_us = (used_us(&redis) - before_us) / PUBLICATIONS as f64;
            release.costs_us.push(cost_us);
        }
        releases.reverse();
    }
    releases.sort_by_key(|release| release.name);
    releases
}

/// A measurement; docs/performance.md has what came of it.
#[tokio::test]
#[ignore = "measures"]
async fn what_a_publication_costs_redis() {
    println!(
        "µs of Redis a publication, least and median of {ROUNDS} rounds: before, now, now to before"
    );
    for kind in [Kind::History, Kind::Inbox, Kind::Plain] {
        for is_heard in [false, true] {
            let releases = measure(kind, is_heard).await;
            let [(before_min, before), (now_min, now)] =
                releases.map(|mut release| release.least_and_median());
            let heard = if is_heard {
                "heard by one node"
            } else {
                "heard by nobody"
            };
            println!(
                "{kind:?}, {heard}: {before_min:.1} {before:.1}, {now_min:.1} {now:.1}, {:.2} {:.2}",
                now_min / before_min,
                now / before
            );
        }
    }
}
