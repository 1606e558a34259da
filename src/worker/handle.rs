//! The way into a worker from the control side: one bounded queue, tried, never waited for.
//!
//! In: the dispatcher's deliveries and answers, and the node's orders. Out: the worker's turn.
//! Bound: [`INBOUND_MAX`]. At the bound [`WorkerHandle::send`] gives the message back; the
//! dispatcher then owes the topic's newest position instead of the message itself.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::broker::interest::WishNumber;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::{Position, Priority, SessionId, Topic};

use super::batch_told::BatchTold;
use super::outgoing::Outgoing;
use crate::revocation::news::News;
use crate::telemetry::metrics::WorkerMetrics;
use crate::telemetry::trace::delivery::Delivery;

/// Messages waiting for one worker. 4,096 deliveries are a tenth of a second of a worker's work
/// at the rates of `docs/performance.md`; more would only hide that it cannot follow.
pub const INBOUND_MAX: usize = 4_096;

/// What a worker is told.
#[derive(Debug)]
pub enum Inbound {
    /// A publication or a change of members.
    Deliver(Arc<Outgoing>),
    /// The same, of which it is told what becomes of it here.
    Traced(Arc<Outgoing>, Arc<Delivery>),
    /// The topic is live on this node; the deliveries that follow begin above this position.
    Joined {
        /// Which topic.
        topic: Topic,
        /// Where it stands.
        position: Position,
        /// Which of the worker's wishes this fulfils.
        wish: WishNumber,
    },
    /// Deliveries up to `newest` were not queued because the queue was full.
    Behind {
        /// Which topic.
        topic: Topic,
        /// Where it stands by now.
        newest: Position,
        /// How many were left out.
        dropped: u64,
        /// How urgent the most urgent of them is.
        urgency: Priority,
        /// A failover is among what was left out: everything above this is void, as in
        /// [`Inbound::Gap`]. Of several the lowest.
        void_above: Option<Position>,
    },
    /// Something is gone and no repair can bring it.
    Gap {
        /// Which topic.
        topic: Topic,
        /// The last position before it. After a failover everything above it is void, and ids
        /// may start anew below what was delivered.
        from: Position,
        /// The last position in it; the next delivery follows it.
        to: Position,
        /// Why.
        reason: GapReason,
    },
    /// A session of the user moved the cursor.
    Acked {
        /// The inbox.
        topic: Topic,
        /// The cursor.
        position: Position,
        /// The session that did it and knows already.
        session: SessionId,
    },
    /// End sessions of the user whose inbox this is.
    Disconnect {
        /// The inbox.
        inbox: Topic,
        /// Only this one; `None`: all of them.
        session: Option<SessionId>,
        /// With which reason.
        reason: CloseReason,
    },
    /// Tokens were revoked: sessions that may be concerned look at theirs.
    Revoked(Arc<News>),
    /// Apps have changed or are gone: their sessions look at what that means for them.
    AppsChanged(Arc<News>),
    /// Send sessions away, because the node has more than its share.
    Shed(ShedOrder),
}

/// Which sessions to send away.
#[derive(Debug)]
pub struct ShedOrder {
    /// How many.
    pub count: usize,
    /// Of each partition, whether its home is this node.
    pub at_home: Arc<[bool]>,
    /// Where to write down who was told, and who of them came back.
    pub batch: Arc<BatchTold>,
}

impl Inbound {
    /// The length of the frame that sessions are sent, where this is a message to them.
    #[must_use]
    pub fn bytes_count(&self) -> u64 {
        match self {
            Self::Deliver(outgoing) | Self::Traced(outgoing, _) => outgoing.longest() as u64,
            _ => 0,
        }
    }
}

/// The sending end, one per worker.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    queue: mpsc::Sender<Inbound>,
    metrics: Arc<WorkerMetrics>,
}

impl WorkerHandle {
    /// A handle and the queue that the worker reads.
    #[must_use]
    pub fn new(metrics: Arc<WorkerMetrics>) -> (Self, mpsc::Receiver<Inbound>) {
        Self::bounded(metrics, INBOUND_MAX)
    }

    /// The same with another bound.
    pub(crate) fn bounded(
        metrics: Arc<WorkerMetrics>,
        queue_max: usize,
    ) -> (Self, mpsc::Receiver<Inbound>) {
        let (queue, receiver) = mpsc::channel(queue_max);
        (Self { queue, metrics }, receiver)
    }

    /// Whether a message would be taken now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.queue.capacity() > 0 || self.queue.is_closed()
    }

    /// Queues a message, or gives it back when the queue is full. A worker that has ended takes
    /// everything and does nothing.
    ///
    /// # Errors
    /// The message itself.
    pub fn send(&self, message: Inbound) -> Result<(), Inbound> {
        // The worker takes it off when it is written, which may be before this call returns.
        let bytes = message.bytes_count();
        self.metrics.counters.queued.add(1);
        self.metrics.counters.queued_bytes.add(bytes);
        let result = self.queue.try_send(message);
        if result.is_err() {
            self.metrics.done(1, bytes);
        }
        match result {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(message)) => Err(message),
        }
    }
}
