//! Spans in the form of OTLP.
//!
//! In: finished spans. Out: one encoded request. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as form;
use prost::Message as _;

use super::resource::{attribute, scope};
use crate::telemetry::trace::context::TraceContext;
use crate::telemetry::trace::span::{Attribute, Span, SpanKind};

/// A request with these spans.
pub(super) fn request(resource: &Resource, spans: Vec<Span>) -> Vec<u8> {
    let spans = form::ScopeSpans {
        scope: scope(),
        spans: spans.into_iter().map(span).collect(),
        ..form::ScopeSpans::default()
    };
    let spans = form::ResourceSpans {
        resource: Some(resource.clone()),
        scope_spans: vec![spans],
        ..form::ResourceSpans::default()
    };
    let resource_spans = vec![spans];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn span(span: Span) -> form::Span {
    let mut flags = u32::from(span.context.flags);
    if span.parent.is_some() {
        flags |= form::SpanFlags::ContextHasIsRemoteMask as u32;
    }
    if span.parent.is_some() && span.is_parent_remote {
        flags |= form::SpanFlags::ContextIsRemoteMask as u32;
    }
    let kind = match span.kind {
        SpanKind::Server => form::span::SpanKind::Server,
        SpanKind::Producer => form::span::SpanKind::Producer,
        SpanKind::Consumer => form::span::SpanKind::Consumer,
        SpanKind::Internal => form::span::SpanKind::Internal,
    };
    form::Span {
        trace_id: span.context.trace.to_vec(),
        span_id: span.context.span.to_vec(),
        parent_span_id: span.parent.map(|id| id.to_vec()).unwrap_or_default(),
        flags,
        name: span.name.into_owned(),
        kind: kind.into(),
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end),
        attributes: span.attributes.into_iter().map(pair).collect(),
        links: span.links.iter().map(link).collect(),
        status: span.error.map(|why| form::Status {
            message: why.into_owned(),
            code: form::status::StatusCode::Error.into(),
        }),
        ..form::Span::default()
    }
}

fn link(context: &TraceContext) -> form::span::Link {
    form::span::Link {
        trace_id: context.trace.to_vec(),
        span_id: context.span.to_vec(),
        flags: u32::from(context.flags),
        ..form::span::Link::default()
    }
}

fn pair((name, value): (&'static str, Attribute)) -> KeyValue {
    let value = match value {
        Attribute::Text(text) => Value::StringValue(text.into_owned()),
        Attribute::Whole(number) => Value::IntValue(number),
        Attribute::Real(number) => Value::DoubleValue(number),
        Attribute::Flag(flag) => Value::BoolValue(flag),
    };
    attribute(name, value)
}

/// Nanoseconds since 1970.
pub(super) fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
