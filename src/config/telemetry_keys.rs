//! The rows of `[telemetry]`, and which variable of OpenTelemetry stands for which.
//!
//! In: nothing. Out: rows for the table of keys, with the sections that they make; and [`OTEL_NAMES`],
//! for `otel`, which reads those variables. Pure.

use crate::config::forms;
use crate::config::key::{Initial, Key, section};
use crate::config::otlp_forms::{ATTRIBUTE, EMF_NAMESPACE, ENDPOINT, HEADER};
use crate::config::telemetry::{
    Batches, General, Kubernetes, Logs, MetricsExport, Own, Telemetry, Traces,
};
use crate::config::value::{
    COMPRESSION, EXPORTER, Kind, PROTOCOL, SAMPLER, TEMPORALITY, count, ms,
};
use crate::config::values::Values;

use Initial::{Is, Unset};
use Kind::{Flag, List, Ratio, Text};

/// Most items that wait for an exporter.
const QUEUE: Kind = count(1, 2_048);
const TIME: Kind = ms(1, 600_000);

section!(SHARED, "telemetry" => Telemetry {
    disabled: "disabled", Flag, Is("false"),
        "Whether nothing is sent, whatever else is set here.";
    service_name: "service_name", Text(forms::ANY), Unset("fanfare"),
        "The attribute service.name. Where it is not set, it is what telemetry.resource_attributes say, or fanfare.";
    resource_attributes: "resource_attributes", List(ATTRIBUTE), Is(""),
        "Attributes of all that is sent, beside service.name, service.instance.id (the node) and service.version.";
    emf_namespace: "emf_namespace", Text(EMF_NAMESPACE), Unset("Fanfare"),
        "Writes one line a minute on standard output in the embedded metric format, from which CloudWatch Logs makes metrics of this namespace: sessions, depth and pressure of the queue, and a few more, by the dimension service (telemetry.service_name, or fanfare). Without it there is no line.";
} and {
    kubernetes: Kubernetes::from_telemetry,
    general: General::from_telemetry,
    traces: Traces::from_telemetry,
    logs: Logs::from_telemetry,
    metrics: MetricsExport::from_telemetry
});

section!(KUBERNETES, "telemetry" => Kubernetes {
    pod_name: "k8s_pod_name", Text(forms::ANY), Unset("fanfare-0"),
        "The attribute k8s.pod.name, from the downward API.";
    pod_uid: "k8s_pod_uid", Text(forms::ANY), Unset("275ecb36-5aa8-4c2a-9c47-d8bb681b9aff"),
        "The attribute k8s.pod.uid, from the downward API.";
    namespace_name: "k8s_namespace_name", Text(forms::ANY), Unset("default"),
        "The attribute k8s.namespace.name, from the downward API.";
    node_name: "k8s_node_name", Text(forms::ANY), Unset("machine-1"),
        "The attribute k8s.node.name, from the downward API.";
});

section!(GENERAL, "telemetry" => General {
    endpoint: "endpoint", Text(ENDPOINT), Unset("http://127.0.0.1:4318"),
        "The collector to which traces, logs and metrics are sent by OTLP. By HTTP v1/traces, v1/logs and v1/metrics are appended. Without it, and without an endpoint for one signal alone, nothing is sent and nothing for it runs.";
    protocol: "protocol", PROTOCOL, Is("http/protobuf"),
        "How the collector is spoken to; mostly http/protobuf on port 4318 and grpc on 4317.";
    headers: "headers", List(HEADER), Is(""),
        "Headers of every request, for example an API key. Values are never shown.";
    timeout: "timeout_ms", TIME, Is("10000"),
        "Longest wait for the answer to one request.";
    compression: "compression", COMPRESSION, Is("none"),
        "How bodies are packed.";
    tls_ca_file: "tls_ca_file", Text(forms::ANY), Unset("/etc/fanfare/otlp-ca.pem"),
        "Certificates (PEM) that are trusted instead of the system's, where the endpoint begins with https://.";
});

section!(TRACES, "telemetry" => Traces {
    exporter: "traces_exporter", EXPORTER, Is("otlp"),
        "Whether traces are sent.";
    sampler: "traces_sampler", SAMPLER, Is("parentbased_traceidratio"),
        "Which traces are recorded: those whose caller records them (parentbased), all (always_on), none (always_off), or a part of them (traceidratio).";
    ratio: "traces_ratio", Ratio, Is("0.01"),
        "The part of traces that is recorded, where telemetry.traces_sampler ends in traceidratio.";
    topics: "traces_topics", Flag, Is("false"),
        "Whether spans name topics, which are often names of people. Users are never named.";
} and { own: own_of_traces, batches: batches_of_traces });

section!(LOGS, "telemetry" => Logs {
    exporter: "logs_exporter", EXPORTER, Is("otlp"),
        "Whether lines of the log are sent; those that log.level shows.";
} and { own: own_of_logs, batches: batches_of_logs });

section!(METRICS, "telemetry" => MetricsExport {
    exporter: "metrics_exporter", EXPORTER, Is("otlp"),
        "Whether metrics are sent, beside GET /metrics.";
    interval: "metrics_interval_ms", ms(1_000, 3_600_000), Is("60000"),
        "How often metrics are sent.";
    deadline: "metrics_deadline_ms", TIME, Is("30000"),
        "How long one reading is tried, at most until the next one.";
    temporality: "metrics_temporality", TEMPORALITY, Is("cumulative"),
        "Whether counters and histograms are told since the start of the node (cumulative), since they were told before (delta), or only histograms so (lowmemory).";
} and { own: own_of_metrics });

/// Makes the rows in which one signal differs from what is set for all.
macro_rules! own {
    ($rows:ident, $from:ident, $signal:literal, $url:literal) => {
        const $rows: &[Key] = &[
            own!(
                $signal,
                "endpoint",
                Text(ENDPOINT),
                $url,
                " The whole address: nothing is appended."
            ),
            own!($signal, "protocol", PROTOCOL, "grpc", ""),
            Key {
                default: Is(""),
                ..own!(
                    $signal,
                    "headers",
                    List(HEADER),
                    "",
                    " They stand in place of the others."
                )
            },
            own!($signal, "timeout_ms", TIME, "10000", ""),
            own!($signal, "compression", COMPRESSION, "gzip", ""),
            own!(
                $signal,
                "tls_ca_file",
                Text(forms::ANY),
                "/etc/fanfare/otlp-ca.pem",
                ""
            ),
        ];

        fn $from(values: &Values) -> Own {
            let [
                endpoint,
                protocol,
                headers,
                timeout,
                compression,
                tls_ca_file,
            ] = $rows
            else {
                unreachable!("the rows stand above");
            };
            Own {
                endpoint: values.field("telemetry", endpoint.name, &endpoint.kind),
                protocol: values.field("telemetry", protocol.name, &protocol.kind),
                headers: values.field("telemetry", headers.name, &headers.kind),
                timeout: values.field("telemetry", timeout.name, &timeout.kind),
                compression: values.field("telemetry", compression.name, &compression.kind),
                tls_ca_file: values.field("telemetry", tls_ca_file.name, &tls_ca_file.kind),
            }
        }
    };
    ($signal:literal, $name:literal, $kind:expr, $example:literal, $more:literal) => {
        Key {
            section: "telemetry",
            name: concat!($signal, "_", $name),
            kind: $kind,
            default: Unset($example),
            doc: concat!("As telemetry.", $name, ", for ", $signal, " alone.", $more),
        }
    };
}

own!(
    OWN_TRACES,
    own_of_traces,
    "traces",
    "http://127.0.0.1:4318/v1/traces"
);
own!(
    OWN_LOGS,
    own_of_logs,
    "logs",
    "http://127.0.0.1:4318/v1/logs"
);
own!(
    OWN_METRICS,
    own_of_metrics,
    "metrics",
    "http://127.0.0.1:4318/v1/metrics"
);

/// Makes the rows of a signal's pace.
macro_rules! batches {
    ($rows:ident, $from:ident, $signal:literal, $delay:literal) => {
        const $rows: &[Key] = &[
            batches!(
                $signal,
                "delay_ms",
                TIME,
                $delay,
                "Longest time for which items wait for more before they are sent."
            ),
            batches!(
                $signal,
                "queue_max",
                QUEUE,
                "2048",
                "Most items that wait; what comes then is dropped and counted."
            ),
            batches!(
                $signal,
                "batch_max",
                QUEUE,
                "512",
                "Most items of one request."
            ),
            batches!(
                $signal,
                "deadline_ms",
                TIME,
                "30000",
                "How long one request is tried again before its items are given up and counted."
            ),
        ];

        fn $from(values: &Values) -> Batches {
            let [delay, queue_max, batch_max, deadline] = $rows else {
                unreachable!("the rows stand above");
            };
            Batches {
                delay: values.field("telemetry", delay.name, &delay.kind),
                queue_max: values.field("telemetry", queue_max.name, &queue_max.kind),
                batch_max: values.field("telemetry", batch_max.name, &batch_max.kind),
                deadline: values.field("telemetry", deadline.name, &deadline.kind),
            }
        }
    };
    ($signal:literal, $name:literal, $kind:expr, $default:literal, $doc:literal) => {
        Key {
            section: "telemetry",
            name: concat!($signal, "_", $name),
            kind: $kind,
            default: Is($default),
            doc: concat!("Of ", $signal, ": ", $doc),
        }
    };
}

batches!(BATCHES_TRACES, batches_of_traces, "traces", "5000");
batches!(BATCHES_LOGS, batches_of_logs, "logs", "1000");

/// The files with headers, for all signals and for each. They have no field: their headers have one.
const HEADERS_FILES: &[Key] = &[
    headers_file(
        "headers_file",
        "A file with more headers as those of telemetry.headers, one a line; empty lines and those that begin with # are left out. It is read at a start.",
    ),
    headers_file(
        "traces_headers_file",
        "As telemetry.headers_file, for traces alone: more of telemetry.traces_headers.",
    ),
    headers_file(
        "logs_headers_file",
        "As telemetry.headers_file, for logs alone: more of telemetry.logs_headers.",
    ),
    headers_file(
        "metrics_headers_file",
        "As telemetry.headers_file, for metrics alone: more of telemetry.metrics_headers.",
    ),
];

const fn headers_file(name: &'static str, doc: &'static str) -> Key {
    Key {
        section: "telemetry",
        name,
        kind: Text(forms::ANY),
        default: Unset("/run/secrets/collector-headers"),
        doc,
    }
}

/// Every row of the section.
pub const TELEMETRY: &[&[Key]] = &[
    GENERAL,
    SHARED,
    KUBERNETES,
    TRACES,
    OWN_TRACES,
    BATCHES_TRACES,
    LOGS,
    OWN_LOGS,
    BATCHES_LOGS,
    METRICS,
    OWN_METRICS,
    HEADERS_FILES,
];

/// The parts of the section that are made from it.
macro_rules! from_telemetry {
    ($($type:ident),+) => {
        $(impl $type {
            fn from_telemetry(values: &Values) -> Self {
                Self::from_values(values, "telemetry")
            }
        })+
    };
}

from_telemetry!(Kubernetes, General, Traces, Logs, MetricsExport);

/// A variable of OpenTelemetry, and the name inside the section that it sets.
pub const OTEL_NAMES: &[(&str, &str)] = &[
    ("OTEL_SDK_DISABLED", "disabled"),
    ("OTEL_SERVICE_NAME", "service_name"),
    ("OTEL_RESOURCE_ATTRIBUTES", "resource_attributes"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "endpoint"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "protocol"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "headers"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "timeout_ms"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "compression"),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "tls_ca_file"),
    ("OTEL_TRACES_EXPORTER", "traces_exporter"),
    ("OTEL_TRACES_SAMPLER", "traces_sampler"),
    ("OTEL_TRACES_SAMPLER_ARG", "traces_ratio"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "traces_endpoint"),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "traces_protocol"),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "traces_headers"),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "traces_timeout_ms"),
    (
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
        "traces_compression",
    ),
    (
        "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
        "traces_tls_ca_file",
    ),
    ("OTEL_BSP_SCHEDULE_DELAY", "traces_delay_ms"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "traces_queue_max"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "traces_batch_max"),
    ("OTEL_BSP_EXPORT_TIMEOUT", "traces_deadline_ms"),
    ("OTEL_LOGS_EXPORTER", "logs_exporter"),
    ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "logs_endpoint"),
    ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "logs_protocol"),
    ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "logs_headers"),
    ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "logs_timeout_ms"),
    ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "logs_compression"),
    ("OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", "logs_tls_ca_file"),
    ("OTEL_BLRP_SCHEDULE_DELAY", "logs_delay_ms"),
    ("OTEL_BLRP_MAX_QUEUE_SIZE", "logs_queue_max"),
    ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "logs_batch_max"),
    ("OTEL_BLRP_EXPORT_TIMEOUT", "logs_deadline_ms"),
    ("OTEL_METRICS_EXPORTER", "metrics_exporter"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "metrics_interval_ms"),
    ("OTEL_METRIC_EXPORT_TIMEOUT", "metrics_deadline_ms"),
    (
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        "metrics_temporality",
    ),
    ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "metrics_endpoint"),
    ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "metrics_protocol"),
    ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "metrics_headers"),
    ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "metrics_timeout_ms"),
    (
        "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION",
        "metrics_compression",
    ),
    (
        "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE",
        "metrics_tls_ca_file",
    ),
    ("K8S_POD_NAME", "k8s_pod_name"),
    ("K8S_POD_UID", "k8s_pod_uid"),
    ("K8S_NAMESPACE_NAME", "k8s_namespace_name"),
    ("K8S_NODE_NAME", "k8s_node_name"),
];
