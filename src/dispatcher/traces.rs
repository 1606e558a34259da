//! The contexts of publications that arrived and were not delivered yet.
//!
//! In: contexts that the feed brings, by the place of their publication. Out: with the delivery, also
//! where a repair brought the publication from the stream, which has no contexts: what clients are told,
//! and the node's own span. Owner: the dispatcher. Bounds: [`ARRIVED_MAX`] contexts, each at most
//! [`AGE_MAX`]; one more is dropped and counted. Of what is not traced there is nothing here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::apps::Apps;
use crate::telemetry::trace::context::TraceContext;
use crate::telemetry::trace::delivery::Delivery;
use crate::telemetry::trace::metrics::Untraced;
use crate::telemetry::trace::tracer::{Destination, Tracer};
use fanfare_protocol::ids::{Position, Topic};

/// Most contexts that wait for their publications to be delivered.
const ARRIVED_MAX: usize = 1_024;
/// What was not delivered by then came with what is lost, or twice.
const AGE_MAX: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(super) struct Traces {
    tracer: Arc<Tracer>,
    arrived: FxHashMap<(Topic, Position), (TraceContext, Instant)>,
}

/// A publication that is traced, when it is delivered.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What clients are told, if anything.
    pub(super) told: Option<TraceContext>,
    /// What becomes of it here, where that is traced.
    pub(super) delivery: Option<Arc<Delivery>>,
}

impl Traces {
    pub(super) fn new(tracer: Arc<Tracer>) -> Self {
        Self {
            tracer,
            arrived: FxHashMap::default(),
        }
    }

    /// A publication came with this context.
    pub(super) fn arrived(
        &mut self,
        place: (Topic, Position),
        context: TraceContext,
        now: Instant,
    ) {
        if self.arrived.len() < ARRIVED_MAX {
            self.arrived.insert(place, (context, now));
        } else {
            self.tracer.count(Untraced::InFlight);
        }
    }

    /// It is delivered now: nothing, where it is not traced.
    pub(super) fn deliver(
        &mut self,
        topic: &Topic,
        position: Position,
        is_repaired: bool,
        apps: &Apps,
    ) -> Found {
        if self.arrived.is_empty() {
            return Found::default();
        }
        let Some((context, _)) = self.arrived.remove(&(topic.clone(), position)) else {
            return Found::default();
        };
        let settings = apps.of_topic(topic);
        let to = Destination {
            topic,
            namespace: settings.namespace_name(topic),
        };
        let place = (position.to_string(), is_repaired);
        let delivery = Delivery::begin(&self.tracer, context, to, place);
        // Where the node's own span is not told to anybody, clients go on from the publication.
        let told = delivery.as_ref().map_or(context, |one| one.context());
        Found {
            told: settings.namespace(topic).trace.then_some(told),
            delivery,
        }
    }

    /// It is not to be delivered, or was before.
    pub(super) fn forget(&mut self, place: &(Topic, Position)) {
        self.arrived.remove(place);
    }

    /// Forgets what is too old.
    pub(super) fn age(&mut self, now: Instant) {
        let is_young = |at: Instant| now.saturating_duration_since(at) < AGE_MAX;
        self.arrived.retain(|_, (_, at)| is_young(*at));
    }
}
