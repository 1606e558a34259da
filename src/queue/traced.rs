//! The spans of entries that are traced: how long each waited, and its move.
//!
//! In: a batch before it is moved, and what became of it. Out: the context by which each publication goes
//! on, and for one that was published `wait NAMESPACE` and `move NAMESPACE`, both under the context that
//! the entry has kept; where it has none and nobody decided before, the sampler may let the move begin a
//! trace. Owns nothing. Bounds: those of a batch and of the tracer.

use std::time::Duration;

use crate::apps::Apps;
use crate::broker::queue::{End, MoveBatch, Verdict};
use crate::config::app::AppSettings;
use crate::telemetry::trace::context::TraceContext;
use crate::telemetry::trace::sampler::Caller;
use crate::telemetry::trace::traced::Traced;
use crate::telemetry::trace::tracer::{Cause, Destination, Tracer};
use fanfare_protocol::ids::Topic;

/// An entry that is traced while it is moved.
struct Moving {
    /// Its place in the batch.
    at: usize,
    /// Of `wait`: what the entry has kept, which is of another process, or else the move.
    parent: (TraceContext, bool),
    waited: Duration,
    topic: Topic,
    traced: Traced,
}

/// Those of a batch.
pub(super) struct MovingTraces<'a> {
    tracer: &'a Tracer,
    apps: &'a Apps,
    all: Vec<Moving>,
}

impl<'a> MovingTraces<'a> {
    /// Begins them, at this time of the clock that gave the entries their ids.
    pub(super) fn begin(
        tracer: &'a Tracer,
        apps: &'a Apps,
        batch: &mut MoveBatch,
        now_ms: u64,
    ) -> Self {
        let mut all = Vec::new();
        for (at, judged) in batch.entries.iter_mut().enumerate() {
            let Verdict::Publish {
                message,
                trace,
                came_as_fields,
                ..
            } = &mut judged.verdict
            else {
                continue;
            };
            let text = message.traceparent.as_deref();
            let kept = text.and_then(|text| tracer.read(text));
            if kept.is_none() && !*came_as_fields {
                continue;
            }
            let cause = Cause::Own(kept, Caller::Backend);
            let settings = apps.of_topic(&message.topic);
            let traced = tracer.publication("move", cause, to(&settings, &message.topic));
            *trace = traced.context();
            if let Some(of_move) = *trace {
                all.push(Moving {
                    at,
                    parent: kept.map_or((of_move, false), |kept| (kept, true)),
                    waited: Duration::from_millis(now_ms.saturating_sub(judged.id.ms)),
                    topic: message.topic.clone(),
                    traced,
                });
            }
        }
        Self { tracer, apps, all }
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
                let settings = self.apps.of_topic(&moving.topic);
                let to = to(&settings, &moving.topic);
                self.tracer.waited(moving.parent, moving.waited, to);
            }
            moving.traced.published(outcome);
        }
    }
}

fn to<'a>(settings: &'a AppSettings, topic: &'a Topic) -> Destination<'a> {
    Destination {
        topic,
        namespace: settings.namespace_name(topic),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::Place;
    use crate::broker::publication::Publication;
    use crate::broker::queue::Judged;
    use crate::broker::queue::entry::{self, QueuedMessage};
    use crate::config::{self, Retention};
    use crate::telemetry::gate::Gate;
    use crate::telemetry::trace::sampler::{Sampler, Share};
    use crate::telemetry::trace::tracer::TraceSettings;
    use fanfare_protocol::data::Data;
    use fanfare_protocol::ids::{App, Position, Priority};

    fn entry_of(came_as_fields: bool, traceparent: Option<&str>) -> Judged {
        let topic = Topic::new(&App::default_app(), "t").unwrap();
        let message = QueuedMessage {
            topic,
            publication: Publication::new(Data::Json("1".into()), 1),
            expires_ms: None,
            traceparent: traceparent.map(str::to_owned),
        };
        Judged {
            partition: 0,
            priority: Priority::Normal,
            id: Position { ms: 1, seq: 0 },
            verdict: Verdict::Publish {
                parts: entry::encode_parts(&message),
                message: Box::new(message),
                retention: Retention {
                    entries_max: 0,
                    age_ms: 0,
                },
                trace: None,
                came_as_fields,
            },
        }
    }

    #[test]
    fn the_sampler_decides_about_an_entry_of_xadd_without_a_context_and_of_no_other() {
        const KEPT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let (gate, mut spans) = Gate::new(Arc::default());
        let settings = TraceSettings {
            sampler: Sampler {
                share: Share::All,
                is_parent_based: true,
            },
            shows_topics: false,
        };
        let tracer = Tracer::new(Some(gate), settings, Arc::default());
        let apps = Apps::of(&config::load::defaults());
        for (entry, is_root) in [
            (entry_of(true, None), Some(true)),
            (entry_of(false, None), None),
            (entry_of(true, Some(KEPT)), Some(false)),
            (entry_of(false, Some(KEPT)), Some(false)),
        ] {
            let mut batch = MoveBatch {
                place: Place::default(),
                held: Vec::new(),
                entries: vec![entry],
            };
            let moving = MovingTraces::begin(&tracer, &apps, &mut batch, 9);
            let Verdict::Publish { trace, .. } = &batch.entries[0].verdict else {
                unreachable!("it is published");
            };
            assert_eq!(trace.is_some(), is_root.is_some());
            moving.end(Some(&[End::Published(Position { ms: 2, seq: 0 })]));
            let Some(is_root) = is_root else {
                assert!(spans.try_recv().is_err());
                continue;
            };
            let (wait, moved) = (spans.try_recv().unwrap(), spans.try_recv().unwrap());
            assert_eq!(Some(moved.context), *trace);
            assert_eq!(moved.parent.is_none(), is_root);
            let expected = moved.parent.unwrap_or(moved.context.span);
            assert_eq!(wait.parent, Some(expected));
            assert_eq!(wait.is_parent_remote, !is_root);
        }
    }
}
