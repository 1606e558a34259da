//! A whole node in this process, on one thread: in-process broker, dispatcher, one worker.
//!
//! In: a configuration, and connections over real sockets whose handshake is taken for done. Out:
//! clients that speak to real sessions. Everything ends with [`run`]'s runtime.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use crate::apps::Apps;
use crate::authorizer::Authorizers;
use crate::broker::memory::{MemoryBroker, clock::Clock};
use crate::broker::publication::Publication;
use crate::broker::{Broker, PublishRequest};
use crate::cluster::occupancy::Occupancy;
use crate::cluster::settled::Settled;
use crate::cluster::view::{NodeDetails, View};
use crate::config::Config;
use crate::dispatcher::Dispatcher;
use crate::lifecycle::{Lifecycle, LifecycleSender};
use crate::presence::Presence;
use crate::revocation::known::Revocations;
use crate::session::drain_schedule::DrainSchedule;
use crate::session::registry::Registry;
use crate::session::shared_reads::SharedReads;
use crate::session::state::Identity;
use crate::session::{self, Accepted, SCRATCH_BYTES, Scratch, Services};
use crate::telemetry::family::Label as _;
use crate::telemetry::labels::CommandType;
use crate::telemetry::metrics::{ControlCounters, Metrics, WorkerCounters};
use crate::telemetry::trace::tracer::Tracer;
use crate::verification::Checks;
use crate::worker::handle::WorkerHandle;
use crate::worker::outbox::Bound;
use crate::worker::{Worker, WorkerInterest};
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::data::Data;
use fanfare_protocol::form::{Encoding, WireForm};
use fanfare_protocol::ids::{App, Position, Topic, User};

/// Runs a test on a thread of its own, with everything that it started.
pub(crate) fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let all = LocalSet::new();
    all.block_on(&runtime, test)
}

/// How a client comes in, as its handshake would have said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entrance {
    pub(crate) app: Option<&'static str>,
    pub(crate) user: Option<&'static str>,
    pub(crate) waits: bool,
    pub(crate) app_pings: bool,
    pub(crate) encoding: Encoding,
    /// Socket buffers as small as they get, so that a client that does not read is felt at once.
    pub(crate) narrow: bool,
    /// How many orders to disconnect there were at its handshake; `None`: as many as now.
    pub(crate) disconnects: Option<u64>,
}

/// As `?user=NAME`.
pub(crate) fn user(name: &'static str) -> Entrance {
    Entrance {
        user: Some(name),
        ..nobody()
    }
}

/// Without a token and without a name.
pub(crate) fn nobody() -> Entrance {
    Entrance {
        app: None,
        user: None,
        waits: false,
        app_pings: false,
        encoding: Encoding::Json,
        narrow: false,
        disconnects: None,
    }
}

/// See the module.
pub(crate) struct Node {
    pub(crate) services: Arc<Services>,
    worker: Rc<Worker>,
    reads: Rc<SharedReads>,
    scratch: Scratch,
    metrics: Arc<Metrics>,
    lifecycle: LifecycleSender,
    _view: watch::Sender<Arc<View>>,
}

impl Node {
    pub(crate) fn start(config: Arc<Config>) -> Self {
        Self::revoking(config, Revocations::default())
    }

    /// The same, with these revocations.
    pub(crate) fn revoking(config: Arc<Config>, known: Revocations) -> Self {
        let metrics = Arc::new(Metrics::new(1));
        let (memory, feed) = MemoryBroker::new(Clock::System, Arc::clone(&metrics));
        let broker = Arc::new(Broker::Memory(memory));
        let running = Arc::clone(&broker);
        spawn_local(async move {
            if let Broker::Memory(memory) = &*running {
                memory.run().await;
            }
        });
        let me = "rig~5".parse().expect("an owner");
        let view = View::alone(me, NodeDetails::default(), 256);
        let view_sender = watch::Sender::new(Arc::new(view));
        let view = view_sender.subscribe();
        let occupancy = Arc::new(Occupancy::alone(view.clone()));
        let presence = Presence::new(
            Arc::clone(&broker),
            view.clone(),
            Arc::clone(&occupancy),
            Arc::clone(&metrics),
        );
        let presence = Arc::new(presence);
        let running = Arc::clone(&presence);
        spawn_local(async move { running.run(&Settled::default()).await });
        let verifier = Arc::into_inner(super::verifier(&config)).expect("nobody else has it");
        let verifier = Arc::new(verifier.revoking(known));
        let apps = Arc::new(Apps::of(&config));
        let services = Arc::new(Services {
            apps: Arc::clone(&apps),
            broker: Arc::clone(&broker),
            authorizers: Authorizers::new(&config, &metrics.authorizers),
            checks: Checks::new(Arc::clone(&verifier), Arc::clone(&metrics.checks)),
            verifier,
            presence,
            tracer: Arc::new(Tracer::without_exporter(Arc::clone(&metrics.trace))),
            registry: Registry::new(occupancy),
            view,
            config: Arc::clone(&config),
            departure: OnceLock::new(),
        });
        let interest = Arc::new(WorkerInterest::default());
        let (handle, inbound) = WorkerHandle::new(Arc::clone(&metrics.workers[0]));
        let dispatcher = Dispatcher::new(
            broker,
            Arc::clone(&config),
            Arc::clone(&metrics),
            Arc::clone(&interest),
            vec![handle],
            Arc::default(),
        );
        spawn_local(dispatcher.of_apps(apps).run(feed));
        let bound = Bound {
            messages_max: config.session.outbox_messages_max,
            bytes_max: config.session.outbox_bytes_max,
        };
        let recent_bytes_max = usize::try_from(config.cache.memory_bytes).expect("64 bits");
        let counters = Arc::clone(&metrics.workers[0]);
        let worker = Worker::new(0, bound, recent_bytes_max, interest, counters);
        let lifecycle = watch::Sender::new(Lifecycle::Ready);
        spawn_local(Rc::clone(&worker).run(inbound, lifecycle.subscribe()));
        Self {
            reads: SharedReads::new(Arc::clone(&services.broker)),
            services,
            worker,
            scratch: Rc::new(RefCell::new(vec![0; SCRATCH_BYTES])),
            metrics,
            lifecycle,
            _view: view_sender,
        }
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.worker
    }

    pub(crate) fn control(&self) -> &ControlCounters {
        &self.metrics.control
    }

    pub(crate) fn counters(&self) -> &WorkerCounters {
        &self.metrics.workers[0].counters
    }

    /// Commands read so far.
    pub(crate) fn commands(&self) -> u64 {
        let commands = &self.metrics.workers[0].commands;
        let counts = CommandType::ALL.iter().map(|kind| commands.of(*kind).get());
        counts.sum()
    }

    /// Commands of this kind that have their answer.
    pub(crate) fn answered(&self, kind: CommandType) -> u64 {
        let seconds = &self.metrics.workers[0].command_seconds;
        seconds.of(kind).total().0
    }

    /// Until so many sessions have ended for this reason.
    pub(crate) async fn until_ended(&self, reason: CloseReason, count: u64) {
        let label = reason.label();
        let ends = self.metrics.workers[0].ends.of(reason);
        let what = format!("{count} ends: {label}");
        self.until(&what, |_| ends.get() == count).await;
    }

    pub(crate) fn leave(&self, now: Lifecycle) {
        self.services.departure.get_or_init(|| {
            let drain = &self.services.config.drain;
            DrainSchedule::new(drain, self.metrics.sessions(), Instant::now())
        });
        self.lifecycle.send_replace(now);
    }

    /// A client whose session runs here.
    pub(crate) async fn connect(&self, entrance: Entrance) -> Talk {
        self.connect_task(entrance).await.0
    }

    /// The same, with the session's task.
    pub(crate) async fn connect_task(&self, entrance: Entrance) -> (Talk, JoinHandle<()>) {
        let (client, stream) = pair(entrance.narrow).await;
        let accepted = Accepted {
            accepted_at: Instant::now(),
            stream: stream.into(),
            early: Bytes::new(),
            form: WireForm::websocket(entrance.encoding),
            app: entrance.app.map(|name| App::new(name).expect("a name")),
            identity: Identity {
                user: entrance.user.map(|u| User::new(u).expect("a name")),
                claims: None,
            },
            refused: None,
            waits: entrance.waits,
            app_pings: entrance.app_pings,
            disconnects: entrance
                .disconnects
                .unwrap_or_else(|| self.worker.disconnects()),
        };
        let task = spawn_local(session::run(
            Arc::clone(&self.services),
            Rc::clone(&self.worker),
            Rc::clone(&self.reads),
            Rc::clone(&self.scratch),
            accepted,
        ));
        (Talk::over(client, entrance.encoding).await, task)
    }

    /// A client that has its `welcome`.
    pub(crate) async fn welcomed(&self, entrance: Entrance) -> Talk {
        let mut client = self.connect(entrance).await;
        client.event_of("welcome").await;
        client
    }

    /// Publishes as a backend does, and returns the position.
    pub(crate) async fn publish(&self, topic: &str, json: &str) -> Position {
        self.publish_as(topic, json, |_| {}).await
    }

    pub(crate) async fn publish_as(
        &self,
        topic: &str,
        json: &str,
        change: impl FnOnce(&mut Publication),
    ) -> Position {
        let topic = Topic::new(&App::default_app(), topic).expect("a topic");
        let mut publication = Publication::new(Data::from_json(json.as_bytes()).expect("JSON"), 0);
        change(&mut publication);
        let settings = self.services.apps.of_topic(&topic);
        let retention = settings.namespace(&topic).retention();
        let request = PublishRequest::new(topic, publication, retention);
        let published = self.services.broker.publish(request).await;
        published.expect("the broker is here").position
    }

    /// Until something that the node counts is so.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&WorkerCounters) -> bool) {
        wait::until(what, async || is_so(self.counters())).await;
    }
}

/// Two ends of a connection: the client's and the server's.
async fn pair(narrow: bool) -> (TcpStream, TcpStream) {
    const NARROW_BYTES: u32 = 4_096;
    let socket = || TcpSocket::new_v4().expect("a socket");
    let (server, client) = (socket(), socket());
    if narrow {
        // Accepted sockets have the sizes of the one that listens.
        server.set_send_buffer_size(NARROW_BYTES).expect("a size");
        server.set_recv_buffer_size(NARROW_BYTES).expect("a size");
        client.set_send_buffer_size(NARROW_BYTES).expect("a size");
        client.set_recv_buffer_size(NARROW_BYTES).expect("a size");
    }
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    server.bind(any).expect("a port");
    let listener: TcpListener = server.listen(1).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let (client, accepted) = tokio::join!(client.connect(address), listener.accept());
    let (client, server) = (client.expect("connected"), accepted.expect("accepted").0);
    for end in [&client, &server] {
        end.set_nodelay(true).expect("an option");
    }
    (client, server)
}
