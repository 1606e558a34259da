//! Which writes a traced publication is told to have had.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::rig::{Rig, Source};
use crate::lifecycle::Lifecycle;
use crate::telemetry::gate::Gate;
use crate::telemetry::trace::context::TraceContext;
use crate::telemetry::trace::delivery::{Delivery, Reach};
use crate::telemetry::trace::tracer::{Destination, TraceSettings, Tracer};
use crate::worker::handle::Inbound;

/// Handles these as the worker does, and nothing after them.
async fn run(rig: &Rig, all: Vec<Inbound>) {
    let (sender, inbound) = mpsc::channel(all.len());
    for one in all {
        sender.send(one).await.expect("there is room");
    }
    drop(sender);
    let (_lifecycle, receiver) = watch::channel(Lifecycle::Ready);
    Rc::clone(&rig.worker).run(inbound, receiver).await;
}

/// What was seen: a worker without a session in the topic told an empty write, which often came first or
/// last of all.
#[tokio::test]
async fn a_worker_that_delivered_a_publication_to_nobody_tells_no_write_of_it() {
    let (gate, mut spans) = Gate::new(Arc::default());
    let tracer = Tracer::new(Some(gate), TraceSettings::default(), Arc::default());
    let tracer = Arc::new(tracer);
    let context = TraceContext {
        trace: [1; 16],
        span: [2; 8],
        flags: 1,
    };
    let mut rig = Rig::new().await;
    let mut sources = ["here", "elsewhere"].map(|name| Source::named(name, 0));
    let _client = rig.live(&sources[0]).await;
    let [here, elsewhere] = &mut sources;
    for (is_here, names) in [
        (false, &["process t"][..]),
        (true, &["process t", "write first", "write last"]),
    ] {
        let source = if is_here { &mut *here } else { &mut *elsewhere };
        let to = Destination {
            topic: &source.topic,
            namespace: "t",
        };
        let begun = Delivery::begin(&tracer, context, to, (String::new(), false));
        let delivery = begun.expect("it is traced");
        let entry = source.publish();
        let Inbound::Deliver(outgoing) = source.deliver(&entry) else {
            unreachable!("a delivery");
        };
        let traced = Inbound::Traced(outgoing, Arc::clone(&delivery));
        // In the same turn something else is written.
        let other = here.publish();
        run(&rig, vec![traced, here.deliver(&other)]).await;
        // Another worker has sessions there.
        delivery.reached(Reach {
            reached: 1,
            ..Reach::default()
        });
        drop(delivery);
        let told: Vec<_> = std::iter::from_fn(|| spans.try_recv().ok())
            .map(|span| span.name.into_owned())
            .collect();
        assert_eq!(told, names);
    }
}
