//! Who sends: the attributes of all that goes to a collector, and values in its form.
//!
//! In: the configuration and the node's name. Out: the resource, once. Pure.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::config::otlp_forms::pair;
use crate::config::telemetry::Telemetry;

/// An attribute.
pub(super) fn attribute(key: impl Into<String>, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// An attribute of text.
pub(super) fn text(key: impl Into<String>, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

/// What the items were made by.
pub(super) fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "fanfare".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    })
}

/// The resource of a node: what is set stands above what is known, and `service_name` above the same
/// among the attributes.
pub(super) fn resource(config: &Telemetry, node: &str) -> Resource {
    let kubernetes = &config.kubernetes;
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| match pairs.iter_mut().find(|(known, _)| known == name)
    {
        Some((_, known)) => value.clone_into(known),
        None => pairs.push((name.to_owned(), value.to_owned())),
    };
    set("service.name", "fanfare");
    set("service.instance.id", node);
    set("service.version", env!("CARGO_PKG_VERSION"));
    for (name, value) in [
        ("k8s.pod.name", &kubernetes.pod_name),
        ("k8s.pod.uid", &kubernetes.pod_uid),
        ("k8s.namespace.name", &kubernetes.namespace_name),
        ("k8s.node.name", &kubernetes.node_name),
    ] {
        if let Some(value) = value {
            set(name, value);
        }
    }
    for (name, value) in config
        .resource_attributes
        .iter()
        .filter_map(|item| pair(item).ok())
    {
        set(&name, &value);
    }
    if let Some(name) = &config.service_name {
        set("service.name", name);
    }
    Resource {
        attributes: pairs
            .into_iter()
            .map(|(name, value)| text(name, value))
            .collect(),
        ..Resource::default()
    }
}
