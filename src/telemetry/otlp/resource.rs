//! Who sends: the attributes of all that goes to a collector, and by what it was made.
//!
//! In: the configuration and the node's name. Out: the resource, once. Pure.

use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;

use crate::config::otlp_forms::pair;
use crate::config::telemetry::Telemetry;

/// What the items were made by.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("fanfare")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build()
}

/// The resource of a node: what is set stands above what is known, and `service_name` above the same
/// among the attributes.
pub(super) fn resource(config: &Telemetry, node: &str) -> Resource {
    let kubernetes = &config.kubernetes;
    let known = [
        ("service.name", "fanfare"),
        ("service.instance.id", node),
        ("service.version", env!("CARGO_PKG_VERSION")),
    ];
    let pod = [
        ("k8s.pod.name", &kubernetes.pod_name),
        ("k8s.pod.uid", &kubernetes.pod_uid),
        ("k8s.namespace.name", &kubernetes.namespace_name),
        ("k8s.node.name", &kubernetes.node_name),
    ];
    let set = |(name, value): (&'static str, &Option<String>)| {
        let value = value.clone()?;
        Some(KeyValue::new(name, value))
    };
    let items = config.resource_attributes.iter();
    let items = items.filter_map(|item| pair(item).ok());
    // Of two with one name the later one stands. Nothing is read of the environment: our settings did.
    Resource::builder_empty()
        .with_attributes(known.map(|(name, value)| KeyValue::new(name, value.to_owned())))
        .with_attributes(pod.into_iter().filter_map(set))
        .with_attributes(items.map(|(name, value)| KeyValue::new(name, value)))
        .with_attributes(set(("service.name", &config.service_name)))
        .build()
}
