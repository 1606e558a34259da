//! `[telemetry]`: what the node sends to a collector by OTLP, where to, and how.
//!
//! In: values of the table of keys. Out: for each signal its [`Target`], or that nothing is sent; and
//! the pace of each. Pure. What is set for one signal stands above what is set for all.

use std::time::Duration;

use crate::config::Secret;
use crate::config::otlp_forms::pair;

/// See the module.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Nothing is sent, whatever else is set.
    pub disabled: bool,
    /// `service.name`, where it is not `fanfare` and not among the attributes.
    pub service_name: Option<String>,
    /// `NAME=VALUE`, the value percent-encoded.
    pub resource_attributes: Vec<String>,
    /// The namespace of CloudWatch for lines on standard output; `None`: there are none.
    pub emf_namespace: Option<String>,
    /// Where the node runs in a cluster of Kubernetes.
    pub kubernetes: Kubernetes,
    /// For all signals.
    pub general: General,
    /// Spans.
    pub traces: Traces,
    /// Lines of the log.
    pub logs: Logs,
    /// All that is counted.
    pub metrics: MetricsExport,
}

/// What the downward API of Kubernetes tells.
#[derive(Debug, Clone)]
pub struct Kubernetes {
    /// The pod's name.
    pub pod_name: Option<String>,
    /// Its id.
    pub pod_uid: Option<String>,
    /// Its namespace.
    pub namespace_name: Option<String>,
    /// The machine that it runs on.
    pub node_name: Option<String>,
}

/// How requests are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Protobuf by HTTP/1.1.
    Http,
    /// gRPC.
    Grpc,
}

/// How bodies are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// By gzip.
    Gzip,
}

/// Whether a signal is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exporter {
    /// It is.
    Otlp,
    /// It is not.
    None,
}

/// How it is decided which traces are recorded, by the names of OpenTelemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampler {
    /// All.
    AlwaysOn,
    /// None.
    AlwaysOff,
    /// By [`Traces::ratio`].
    Ratio,
    /// As the caller says; all that begin here.
    ParentOrAll,
    /// As the caller says; none that begin here.
    ParentOrNone,
    /// As the caller says; those that begin here by [`Traces::ratio`].
    ParentOrRatio,
}

/// Against what counters and histograms are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Temporality {
    /// The start of the node.
    Cumulative,
    /// What was told before.
    Delta,
    /// Of histograms what was told before, of counters the start of the node.
    LowMemory,
}

/// The way to the collector, for all signals.
#[derive(Debug, Clone)]
pub struct General {
    /// Its base address.
    pub endpoint: Option<String>,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// `NAME=VALUE`, the value percent-encoded.
    pub headers: Vec<Secret>,
    /// Longest wait for one answer. Default 10 s.
    pub timeout: Duration,
    /// How bodies are packed.
    pub compression: Compression,
    /// Certificates that are trusted instead of the system's, as PEM.
    pub tls_ca_file: Option<String>,
}

/// What differs for one signal.
#[derive(Debug, Clone)]
pub struct Own {
    /// The whole address, with its path.
    pub endpoint: Option<String>,
    /// How it is spoken to.
    pub protocol: Option<Protocol>,
    /// Instead of those for all.
    pub headers: Vec<Secret>,
    /// Longest wait for one answer.
    pub timeout: Option<Duration>,
    /// How bodies are packed.
    pub compression: Option<Compression>,
    /// Certificates that are trusted.
    pub tls_ca_file: Option<String>,
}

/// How items are gathered before they are sent.
#[derive(Debug, Clone)]
pub struct Batches {
    /// Longest wait for more.
    pub delay: Duration,
    /// Most items that wait.
    pub queue_max: usize,
    /// Most items of one request.
    pub batch_max: usize,
    /// How long one batch is tried.
    pub deadline: Duration,
}

/// Traces.
#[derive(Debug, Clone)]
pub struct Traces {
    /// Whether they are sent.
    pub exporter: Exporter,
    /// Which.
    pub sampler: Sampler,
    /// The part of traces that is recorded, from 0 to 1.
    pub ratio: f64,
    /// Whether spans name topics.
    pub topics: bool,
    /// Where they go, where that differs.
    pub own: Own,
    /// Their pace.
    pub batches: Batches,
}

/// Lines of the log.
#[derive(Debug, Clone)]
pub struct Logs {
    /// Whether they are sent.
    pub exporter: Exporter,
    /// Where they go, where that differs.
    pub own: Own,
    /// Their pace.
    pub batches: Batches,
}

/// All that is counted.
#[derive(Debug, Clone)]
pub struct MetricsExport {
    /// Whether it is sent.
    pub exporter: Exporter,
    /// How often.
    pub interval: Duration,
    /// How long one reading is tried.
    pub deadline: Duration,
    /// Against what.
    pub temporality: Temporality,
    /// Where it goes, where that differs.
    pub own: Own,
}

/// Where a signal goes, and how.
#[derive(Debug, Clone)]
pub struct Target {
    /// By HTTP the address to which bodies are posted; by gRPC scheme, host and port.
    pub url: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// With each request.
    pub headers: Vec<(String, Secret)>,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// How bodies are packed.
    pub compression: Compression,
    /// Certificates that are trusted instead of the system's, as PEM.
    pub tls_ca_file: Option<String>,
}

impl Telemetry {
    /// Where spans go; `None` where none are sent.
    #[must_use]
    pub fn traces_target(&self) -> Option<Target> {
        self.target(self.traces.exporter, &self.traces.own, "v1/traces")
    }

    /// Where lines of the log go; `None` where none are sent.
    #[must_use]
    pub fn logs_target(&self) -> Option<Target> {
        self.target(self.logs.exporter, &self.logs.own, "v1/logs")
    }

    /// Where metrics go; `None` where none are sent.
    #[must_use]
    pub fn metrics_target(&self) -> Option<Target> {
        self.target(self.metrics.exporter, &self.metrics.own, "v1/metrics")
    }

    fn target(&self, exporter: Exporter, own: &Own, path: &str) -> Option<Target> {
        if self.disabled || exporter == Exporter::None {
            return None;
        }
        let general = &self.general;
        let protocol = own.protocol.unwrap_or(general.protocol);
        let url = match (&own.endpoint, &general.endpoint, protocol) {
            (Some(url), _, _) | (None, Some(url), Protocol::Grpc) => url.clone(),
            (None, Some(base), Protocol::Http) => {
                format!("{}/{path}", base.trim_end_matches('/'))
            }
            (None, None, _) => return None,
        };
        let headers = match own.headers.is_empty() {
            true => &general.headers,
            false => &own.headers,
        };
        let headers = headers.iter().filter_map(|header| pair(&header.0).ok());
        Some(Target {
            url,
            protocol,
            headers: headers.map(|(name, value)| (name, Secret(value))).collect(),
            timeout: own.timeout.unwrap_or(general.timeout),
            compression: own.compression.unwrap_or(general.compression),
            tls_ca_file: own.tls_ca_file.clone().or(general.tls_ca_file.clone()),
        })
    }
}
