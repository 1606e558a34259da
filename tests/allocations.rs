//! How often memory is asked for on the way from a worker's queue to sockets.
//!
//! In: a worker that runs, with sessions on real sockets whose clients take everything. Out:
//! allocations of its thread, counted. What a publication costs must not depend on how many
//! sessions get it. And how much memory a session holds for what its token says: its text.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fanfare::auth::Claims;
use fanfare::auth::mint::{MintKey, mint};
use fanfare::auth::verifier::Verifier;
use fanfare::broker::interest::WishNumber;
use fanfare::broker::publication::Publication;
use fanfare::broker::{Body, Entry};
use fanfare::config::load::defaults;
use fanfare::config::{Secret, TokenKey};
use fanfare::lifecycle::Lifecycle;
use fanfare::telemetry::metrics::WorkerMetrics;
use fanfare::worker::handle::{Inbound, WorkerHandle};
use fanfare::worker::outbox::Bound;
use fanfare::worker::outgoing::Outgoing;
use fanfare::worker::{Worker, WorkerInterest};
use fanfare_protocol::data::Data;
use fanfare_protocol::form::{Encoding, WireForm};
use fanfare_protocol::ids::{App, Position, SessionId, Topic};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::{LocalSet, yield_now};

const BOUND: Bound = Bound {
    messages_max: 1_024,
    bytes_max: 1 << 20,
};
/// Many times a run's publications, or none.
const RECENT_BYTES_MAX: [usize; 2] = [0, 1 << 20];
/// Each run sends so many bursts before it counts, and then as many again.
const BURSTS: u64 = 16;
/// Most allocations of one publication in one wire form.
const PER_FORM_MAX: u64 = 16;

/// A worker that runs, and its sessions.
struct Running {
    runtime: Runtime,
    local: LocalSet,
    worker: Rc<Worker>,
    handle: WorkerHandle,
    topic: Topic,
    published: u64,
    sessions: u64,
    _clients: Vec<TcpStream>,
    _lifecycle: watch::Sender<Lifecycle>,
}

fn at(ms: u64) -> Position {
    Position { ms, seq: 0 }
}

impl Running {
    /// One session for each of `forms`.
    fn new(forms: &[WireForm], recent_bytes_max: usize) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let local = LocalSet::new();
        let interest = Arc::new(WorkerInterest::default());
        let metrics = Arc::new(WorkerMetrics::default());
        let counted = Arc::clone(&metrics);
        let worker = Worker::new(0, BOUND, recent_bytes_max, interest, counted);
        let topic = Topic::new(&App::default_app(), "t").expect("a name");
        let (handle, inbound) = WorkerHandle::new(metrics);
        let lifecycle = watch::Sender::new(Lifecycle::Ready);
        local.spawn_local(Rc::clone(&worker).run(inbound, lifecycle.subscribe()));
        let joined = Inbound::Joined {
            topic: topic.clone(),
            position: at(0),
            // The worker's first.
            wish: WishNumber(1),
        };
        let mut clients = Vec::new();
        local.block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("bound");
            let mut keys = Vec::new();
            for (n, form) in (0..).zip(forms) {
                let (client, accepted) =
                    tokio::join!(TcpStream::connect(address), listener.accept());
                let (stream, _) = accepted.expect("a connection");
                stream.writable().await.expect("open");
                let key = worker.add(SessionId(n), *form, Rc::new(stream.into()));
                let _live_soon = worker.join(key, &topic, true);
                keys.push(key);
                clients.push(client.expect("a connection"));
            }
            handle.send(joined).expect("room");
            while worker.begin_live(keys[0], &topic) != Some(at(0)) {
                yield_now().await;
            }
            for key in keys {
                worker.begin_live(key, &topic).expect("it joined");
            }
        });
        Self {
            runtime,
            local,
            worker,
            handle,
            topic,
            published: 0,
            sessions: forms.len() as u64,
            _clients: clients,
            _lifecycle: lifecycle,
        }
    }

    /// So many publications, one after the other, as the broker gives them.
    fn entries(&mut self, count: u64) -> Vec<Entry> {
        let data = format!("\"{}\"", "x".repeat(200));
        let publication = Arc::new(Publication {
            user: Some("ada".to_owned()),
            key: Some("k".to_owned()),
            ..Publication::new(Data::from_json(data.as_bytes()).expect("JSON"), 1)
        });
        let numbers = self.published + 1..=self.published + count;
        self.published += count;
        let entry = |n| Entry {
            position: at(n),
            prev: at(n - 1),
            body: Body::Publication(Arc::clone(&publication)),
        };
        numbers.map(entry).collect()
    }

    /// The worker takes these at once, and each session is sent all of them.
    fn deliver(&self, entries: Vec<Entry>, sent: u64) {
        for entry in entries {
            let outgoing = Outgoing::new(self.topic.clone(), entry, true);
            self.handle.send(Inbound::Deliver(outgoing)).expect("room");
        }
        let written = &self.worker.metrics().counters.frames_written;
        self.local.block_on(&self.runtime, async {
            while written.get() < sent * self.sessions {
                yield_now().await;
            }
        });
    }

    /// Allocations of [`BURSTS`] bursts of so many publications, from the dispatcher's wrapping of
    /// an entry to the last socket, after as many bursts that were not counted.
    fn allocations(&mut self, burst: u64) -> u64 {
        let mut total = 0;
        for counted in [false, true] {
            for _ in 0..BURSTS {
                let entries = self.entries(burst);
                let sent = self.published;
                let taken = allocation_counter::measure(|| self.deliver(entries, sent));
                total += u64::from(counted) * taken.count_total;
            }
        }
        let written = self.worker.metrics().counters.frames_written.get();
        assert_eq!(written, self.published * self.sessions);
        total
    }
}

/// Each kind of session that a run has, the same number of each.
const JSON: WireForm = WireForm::websocket(Encoding::Json);
const MSGPACK: WireForm = WireForm::websocket(Encoding::MsgPack);
const FORMS: [&[WireForm]; 3] = [&[JSON], &[MSGPACK], &[JSON, MSGPACK]];

#[test]
fn a_delivery_to_one_more_session_asks_for_no_memory() {
    for recent_bytes_max in RECENT_BYTES_MAX {
        for forms in FORMS {
            for burst in [1, 2, 8] {
                let of = |sessions| {
                    let mut running = Running::new(&forms.repeat(sessions), recent_bytes_max);
                    running.allocations(burst)
                };
                let (few, many) = (of(1), of(100));
                assert_eq!(few, many, "{forms:?}, {burst} at once");
            }
        }
    }
}

#[test]
fn a_publication_asks_for_memory_at_most_sixteen_times_a_wire_form() {
    for recent_bytes_max in RECENT_BYTES_MAX {
        for forms in FORMS {
            let mut running = Running::new(&forms.repeat(10), recent_bytes_max);
            let allocations = running.allocations(1);
            let most = BURSTS * PER_FORM_MAX * forms.len() as u64;
            assert!(allocations > 0, "they are counted");
            assert!(
                allocations <= most,
                "{allocations} of {BURSTS} in {forms:?}"
            );
        }
    }
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// Most bytes that an identity holds beside the length of its claims.
const IDENTITY_BYTES_MAX: i64 = 256;

fn verifier() -> Verifier {
    let mut config = defaults();
    config.auth.token_life_max = Duration::from_secs(10_000_000_000);
    config.auth.keys = vec![TokenKey {
        id: None,
        algorithm: "HS256".into(),
        material: Secret(SECRET.into()),
    }];
    Verifier::new(&config.auth, config.session.info_bytes_max).expect("a key")
}

fn token(user: usize, claims: &Value) -> String {
    let mut all = json!({"sub": format!("user-{user:06}"), "exp": 4_000_000_000_u64});
    let claims = claims.as_object().expect("a map").clone();
    all.as_object_mut().expect("a map").extend(claims);
    let key = MintKey {
        id: None,
        algorithm: "HS256".into(),
        material: Secret(SECRET.into()),
    };
    mint(&key, all.as_object().expect("a map")).expect("the key signs")
}

/// Bytes that each of many identities holds whose tokens say this, in a vector of their own.
fn held(claims: impl Fn(usize) -> Value) -> i64 {
    const IDENTITIES: usize = 200;
    let verifier = verifier();
    let tokens: Vec<_> = (0..IDENTITIES).map(|n| token(n, &claims(n))).collect();
    let mut identities: Vec<Claims> = Vec::with_capacity(IDENTITIES);
    let taken = allocation_counter::measure(|| {
        for token in &tokens {
            let claims = verifier.session(token, None, std::time::SystemTime::now());
            identities.push(claims.expect("a good token"));
        }
    });
    let inline = i64::try_from(size_of::<Claims>()).expect("small");
    taken.bytes_current / i64::try_from(IDENTITIES).expect("few") + inline
}

#[test]
fn an_identity_holds_no_more_than_what_its_token_says() {
    let bare = held(|_| json!({}));
    assert!(bare <= IDENTITY_BYTES_MAX, "{bare} bytes");
    let many_values: Vec<_> = (0..200).map(|n| json!({"n": n})).collect();
    let info = json!({"info": many_values});
    let info_bytes = i64::try_from(info["info"].to_string().len()).expect("short");
    assert!((1_500..2_048).contains(&info_bytes), "{info_bytes} of info");
    let with_info = held(|_| info.clone());
    let most = IDENTITY_BYTES_MAX + info_bytes;
    assert!(
        with_info <= most,
        "{with_info} bytes for {info_bytes} of info"
    );
    // Forty patterns that all tokens share are held once; those of one token as their text.
    let patterns = |of: String| -> Vec<_> {
        let names = (0..40).map(|n| format!("orders-of-{of}:{n}:**"));
        names.collect()
    };
    let shared = held(|_| json!({"can": {"subscribe": patterns("all".into())}}));
    assert!(shared <= IDENTITY_BYTES_MAX, "{shared} bytes");
    let own = |n: usize| json!({"can": {"subscribe": patterns(n.to_string())}});
    let can_bytes = i64::try_from(own(100)["can"].to_string().len()).expect("short");
    let own = held(own);
    let most = IDENTITY_BYTES_MAX + can_bytes;
    assert!(own <= most, "{own} bytes for {can_bytes} of rights");
    println!("{bare} bare, {with_info} with {info_bytes} of info, {shared} and {own} with rights");
}
