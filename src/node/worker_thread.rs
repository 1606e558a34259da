//! One worker's thread: its runtime, its state, its turn.

use std::cell::RefCell;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::ingress::admission::Admission;
use crate::ingress::listener;
use crate::ingress::listener_state::{ConnectionLimit, Gate, PublicState};
use crate::lifecycle::LifecycleReceiver;
use crate::session::shared_reads::SharedReads;
use crate::session::{SCRATCH_BYTES, Services};
use crate::tasks;
use crate::telemetry::metrics::WorkerMetrics;
use crate::worker::handle::Inbound;
use crate::worker::outbox::Bound;
use crate::worker::{Worker, WorkerInterest};

/// What a worker's thread is given.
pub struct WorkerSetup {
    /// Which worker.
    pub index: usize,
    /// Its own socket on the public port.
    pub listener: StdListener,
    /// Most that its window of recent publications holds.
    pub recent_bytes_max: usize,
    /// What the dispatcher sends it.
    pub inbound: mpsc::Receiver<Inbound>,
    /// The node's parts.
    pub services: Arc<Services>,
    /// Where it says which topics it needs.
    pub interest: Arc<WorkerInterest>,
    /// What it counts.
    pub metrics: Arc<WorkerMetrics>,
    /// ConnectionLimit for connections.
    pub gate: Arc<Gate>,
    /// ConnectionLimit for sessions.
    pub room: Arc<ConnectionLimit>,
    /// Whom the node lets in.
    pub admission: Arc<Admission>,
    /// Why the node is not ready.
    pub readiness: watch::Receiver<Vec<String>>,
    /// When to leave.
    pub lifecycle: LifecycleReceiver,
}

impl WorkerSetup {
    /// Runs the worker to its end. Called on its own thread.
    pub fn run(self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => {
                let name = format!("worker-{}", self.index);
                self.metrics.runs_on(runtime.metrics());
                let serve = tasks::planted(&name, self.serve());
                LocalSet::new().block_on(&runtime, serve);
            }
            Err(error) => tracing::error!(
                event = "worker_failed",
                error = &error as &(dyn std::error::Error + 'static),
                "a worker cannot start"
            ),
        }
    }

    async fn serve(self) {
        let listener = match TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(
                    event = "worker_failed",
                    error = &error as &(dyn std::error::Error + 'static),
                    "a worker cannot listen"
                );
                return;
            }
        };
        let session = &self.services.config.session;
        let bound = Bound {
            messages_max: session.outbox_messages_max,
            bytes_max: session.outbox_bytes_max,
        };
        let worker = Worker::new(
            self.index,
            bound,
            self.recent_bytes_max,
            self.interest,
            self.metrics,
        );
        let state = Rc::new(PublicState {
            reads: SharedReads::new(Arc::clone(&self.services.broker)),
            services: self.services,
            worker: Rc::clone(&worker),
            scratch: Rc::new(RefCell::new(vec![0; SCRATCH_BYTES])),
            gate: self.gate,
            sessions_limit: self.room,
            admission: self.admission,
            lifecycle: self.lifecycle.clone(),
            readiness: self.readiness,
        });
        let accept = listener::accept(listener, state, self.lifecycle.clone());
        tasks::vital_local("accept", accept);
        worker.run(self.inbound, self.lifecycle).await;
    }
}
