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

#[cfg(test)]
mod tests {
    use opentelemetry::Key;

    use super::*;
    use crate::config::load;

    #[test]
    fn what_is_set_stands_above_what_is_known_and_the_name_of_the_service_above_both() {
        let mut config = load::defaults().telemetry;
        let of = |config: &Telemetry, name: &'static str| {
            let value = resource(config, "node-7").get(&Key::new(name));
            value.map(|value| value.to_string())
        };
        assert_eq!(of(&config, "service.name").unwrap(), "fanfare");
        assert_eq!(of(&config, "service.instance.id").unwrap(), "node-7");
        assert_eq!(of(&config, "k8s.pod.name"), None);
        config.kubernetes.pod_name = Some("pod-7".to_owned());
        config.resource_attributes = ["service.name=gateway", "region=over%20there"]
            .map(str::to_owned)
            .into();
        assert_eq!(of(&config, "service.name").unwrap(), "gateway");
        assert_eq!(of(&config, "region").unwrap(), "over there");
        assert_eq!(of(&config, "k8s.pod.name").unwrap(), "pod-7");
        config
            .resource_attributes
            .push("k8s.pod.name=mine".to_owned());
        config.service_name = Some("mine".to_owned());
        assert_eq!(of(&config, "k8s.pod.name").unwrap(), "mine");
        assert_eq!(of(&config, "service.name").unwrap(), "mine");
        // What a program is by default is not told beside it.
        assert_eq!(of(&config, "telemetry.sdk.name"), None);
    }
}
