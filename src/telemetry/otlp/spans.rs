//! Spans in the form of the exporters.
//!
//! In: finished spans. Out: the exporter that sends them. Pure but for what that does.

use std::future::Future;
use std::sync::Arc;

use opentelemetry::trace::{self as api, SpanContext, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, SpanId, TraceId, Value};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};

use super::courier::Courier;
use super::exporter::{Exporter, configured};
use super::resource::scope;
use crate::telemetry::trace::context::TraceContext;
use crate::telemetry::trace::span::{Attribute, Span, SpanKind};

/// See the module.
pub(super) struct Spans {
    exporter: SpanExporter,
    scope: InstrumentationScope,
}

impl Spans {
    /// An exporter by this courier.
    ///
    /// # Errors
    /// Where the crate does not take its address.
    pub(super) fn new(
        courier: &Arc<Courier>,
        resource: &Resource,
    ) -> Result<Self, ExporterBuildError> {
        let mut exporter = configured(SpanExporter::builder().with_http(), courier).build()?;
        exporter.set_resource(resource);
        Ok(Self {
            exporter,
            scope: scope(),
        })
    }
}

impl Exporter<Span> for Spans {
    fn export(&mut self, batch: Vec<Span>) -> impl Future<Output = OTelSdkResult> + Send {
        let spans = batch.into_iter().map(|span| data(span, &self.scope));
        self.exporter.export(spans.collect())
    }
}

fn data(span: Span, scope: &InstrumentationScope) -> SpanData {
    let mut links = SpanLinks::default();
    let linked = span.links.iter().map(context);
    links.links = linked.map(api::Link::with_context).collect();
    SpanData {
        span_context: context(&span.context),
        parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from_bytes),
        parent_span_is_remote: span.parent.is_some() && span.is_parent_remote,
        span_kind: match span.kind {
            SpanKind::Server => api::SpanKind::Server,
            SpanKind::Producer => api::SpanKind::Producer,
            SpanKind::Consumer => api::SpanKind::Consumer,
            SpanKind::Internal => api::SpanKind::Internal,
        },
        name: span.name,
        start_time: span.start,
        end_time: span.end,
        attributes: span.attributes.into_iter().map(pair).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope.clone(),
    }
}

fn context(context: &TraceContext) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(context.trace),
        SpanId::from_bytes(context.span),
        TraceFlags::new(context.flags),
        false,
        TraceState::NONE,
    )
}

fn pair((name, value): (&'static str, Attribute)) -> KeyValue {
    let value = match value {
        Attribute::Text(text) => Value::from(text),
        Attribute::Whole(number) => Value::I64(number),
        Attribute::Real(number) => Value::F64(number),
        Attribute::Flag(flag) => Value::Bool(flag),
    };
    KeyValue::new(name, value)
}
