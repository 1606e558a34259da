//! What a node is, as its metrics tell it beside what it does.
//!
//! In: the release and the limits, once, when the node starts. Out: families. Pure.

use super::family::{Family, Kind, Sample, Value};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Facts {
    /// The release.
    pub version: &'static str,
    /// The commit that the binary was built from.
    pub commit: &'static str,
    /// Most sessions.
    pub connections_max: u64,
    /// Bytes of memory that the process can have; 0 where the system does not say.
    pub memory_bytes_max: u64,
    /// Cores that the process can use; 0 where the system does not say.
    pub cores_max: f64,
}

impl Facts {
    /// All of them; what is not known is not told.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let gauge = |name, help, value| Family {
            name,
            help,
            kind: Kind::Gauge,
            samples: vec![Sample {
                labels: Vec::new(),
                value,
            }],
            is_sparse: true,
        };
        let labels = [("version", self.version), ("commit", self.commit)];
        let labels = labels.map(|(name, value)| (name, value.to_owned().into()));
        let mut build = gauge(
            "fanfare_build_info",
            "1, with the release and the commit of the node.",
            Value::Whole(1),
        );
        build.samples[0].labels = labels.into();
        vec![
            build,
            gauge(
                "fanfare_connections_limit",
                "Most sessions of the node: server.connections_max.",
                Value::Whole(self.connections_max),
            ),
            gauge(
                "fanfare_memory_limit_bytes",
                "Memory that the process can have: what its control group allows, or what the machine has.",
                Value::Whole(self.memory_bytes_max),
            ),
            gauge(
                "fanfare_cpu_limit_cores",
                "Cores that the process can use: what its control group allows, or what the machine has.",
                Value::Real(self.cores_max),
            ),
        ]
    }
}
