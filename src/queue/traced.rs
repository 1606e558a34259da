//! The spans of entries that are traced: how long each waited, and its move.
//!
//! In: a batch before it is moved, and what became of it. Out: the context by which each publication goes
//! on, and for one that was published `wait NAMESPACE` and `move NAMESPACE`, both under the context that
//! the entry has kept. Owns nothing. Bounds: those of a batch and of the tracer.

use std::time::Duration;

use crate::broker::queue::{End, MoveBatch, Verdict};
use crate::config::Config;
use crate::telemetry::trace::context::TraceContext;
use crate::telemetry::trace::sampler::Caller;
use crate::telemetry::trace::tracer::{Cause, Destination, Traced, Tracer};
use fanfare_protocol::ids::Topic;

/// An entry that is traced while it is moved.
struct Moving {
    /// Its place in the batch.
    at: usize,
    parent: TraceContext,
    waited: Duration,
    topic: Topic,
    traced: Traced,
}

/// Those of a batch.
pub(super) struct MovingTraces<'a> {
    tracer: &'a Tracer,
    config: &'a Config,
    all: Vec<Moving>,
}

impl<'a> MovingTraces<'a> {
    /// Begins them, at this time of the clock that gave the entries their ids.
    pub(super) fn begin(
        tracer: &'a Tracer,
        config: &'a Config,
        batch: &mut MoveBatch,
        now_ms: u64,
    ) -> Self {
        let mut all = Vec::new();
        for (at, judged) in batch.entries.iter_mut().enumerate() {
            let Verdict::Publish { message, trace, .. } = &mut judged.verdict else {
                continue;
            };
            let text = message.traceparent.as_deref();
            let Some(parent) = text.and_then(|text| tracer.read(text)) else {
                continue;
            };
            let cause = Cause::Own(Some(parent), Caller::Backend);
            let traced = tracer.publication("move", cause, to(config, &message.topic));
            *trace = traced.context();
            if trace.is_some() {
                all.push(Moving {
                    at,
                    parent,
                    waited: Duration::from_millis(now_ms.saturating_sub(judged.id.ms)),
                    topic: message.topic.clone(),
                    traced,
                });
            }
        }
        Self {
            tracer,
            config,
            all,
        }
    }

    /// What became of each entry; of none where nothing is known.
    pub(super) fn end(self, ends: Option<&[End]>) {
        for moving in self.all {
            let end = ends.and_then(|ends| ends.get(moving.at));
            let outcome = match end {
                Some(End::Published(position)) => Ok(position),
                Some(End::Buried | End::Failed) => Err("failed"),
                Some(End::Gone) => Err("gone"),
                Some(End::Refused) => Err("refused"),
                None => Err("unavailable"),
            };
            if outcome.is_ok() {
                let to = to(self.config, &moving.topic);
                self.tracer.waited(moving.parent, moving.waited, to);
            }
            moving.traced.published(outcome);
        }
    }
}

fn to<'a>(config: &'a Config, topic: &'a Topic) -> Destination<'a> {
    Destination {
        topic,
        namespace: config.namespace_name(topic),
    }
}
