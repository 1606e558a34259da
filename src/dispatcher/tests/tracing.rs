//! Publications that are traced, also where a repair brings them.

use std::sync::Arc;

use tokio::sync::mpsc::Receiver;

use super::{ROOM, Rig, publication, topic};
use crate::apps::Apps;
use crate::broker::PublishRequest;
use crate::dispatcher::asks::retention;
use crate::telemetry::gate::Gate;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::context::TraceContext;
use crate::telemetry::trace::span::{Attribute, Span};
use crate::telemetry::trace::tracer::{TraceSettings, Tracer};
use crate::worker::handle::Inbound;
use crate::worker::outgoing::Outgoing;
use fanfare_protocol::ids::Topic;

const CONTEXT: TraceContext = TraceContext {
    trace: [1; 16],
    span: [2; 8],
    flags: 1,
};

fn rig() -> (Rig, Receiver<Span>) {
    let metrics = Arc::new(Metrics::new(1));
    let (gate, spans) = Gate::new(Arc::default());
    let counts = Arc::clone(&metrics.trace);
    let tracer = Tracer::new(Some(gate), TraceSettings::default(), counts);
    (Rig::traced_by(tracer, metrics), spans)
}

async fn publish_traced(rig: &Rig, topic: &Topic) {
    let retention = retention(&Apps::of(&rig.config), topic);
    let request = PublishRequest {
        trace: Some(CONTEXT),
        ..PublishRequest::new(topic.clone(), publication(), retention)
    };
    rig.broker.publish(request).await.expect("it publishes");
}

/// The next of the worker, which is traced.
async fn traced(rig: &mut Rig) -> Arc<Outgoing> {
    match rig.told(0).await {
        Inbound::Traced(outgoing, _delivery) => outgoing,
        other => panic!("expected a traced delivery, got {other:?}"),
    }
}

fn is_repaired(span: &Span) -> bool {
    let repaired = ("fanfare.repaired", Attribute::Flag(true));
    span.attributes.contains(&repaired)
}

#[tokio::test]
async fn a_context_comes_with_its_publication_also_where_a_hole_was_repaired_before_it() {
    let (mut rig, mut spans) = rig();
    let room = topic(ROOM);
    let mut stands = rig.join(0, &room).await;
    for is_after_hole in [false, true] {
        if is_after_hole {
            let lost = rig.lose(&room, 2).await;
            publish_traced(&rig, &room).await;
            stands = rig.gets_all(0, stands, &lost).await;
        } else {
            publish_traced(&rig, &room).await;
        }
        let outgoing = traced(&mut rig).await;
        assert_eq!(outgoing.prev, stands);
        stands = outgoing.position;
        let span = spans.recv().await.expect("the worker has let go of it");
        assert_eq!(span.context.trace, CONTEXT.trace);
        assert_eq!(span.parent, Some(CONTEXT.span));
        assert_eq!(is_repaired(&span), is_after_hole);
    }
    // What is not traced has none of it, though its predecessor was.
    let next = rig.publish(&room).await;
    rig.gets(0, stands, next).await;
    assert!(spans.try_recv().is_err());
}
