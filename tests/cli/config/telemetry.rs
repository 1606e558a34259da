//! `[telemetry]` and the variables of OpenTelemetry: which wins, what is told of the others, where each
//! signal goes.

use std::time::Duration;

use fanfare::config::inputs::Inputs;
use fanfare::config::load::Loaded;
use fanfare::config::otlp_forms;
use fanfare::config::show;
use fanfare::config::telemetry::{Compression, Exporter, Protocol, Sampler, Temporality};
use fanfare::config::telemetry_keys::OTEL_NAMES;
use fanfare::config::value::Kind;
use fanfare::config::{Secret, keys};

use super::{fault_lines, faults_of_file, file, inputs, loaded, variables};

fn with(pairs: &[(&str, &str)]) -> Loaded {
    let mut inputs = inputs();
    inputs.environment.extend(variables(pairs));
    loaded(&inputs)
}

/// The warnings that a telemetry variable began.
fn warnings(loaded: &Loaded) -> Vec<&str> {
    let all = loaded.warnings.iter().map(String::as_str);
    all.filter(|warning| warning.starts_with("OTEL_")).collect()
}

#[test]
fn a_variable_of_opentelemetry_stands_above_the_file_and_below_one_of_ours() {
    let (_directory, path) = file("[telemetry]\ntimeout_ms = 1\n");
    let mut inputs = Inputs {
        file: Some(path.clone()),
        ..inputs()
    };
    let told = |inputs: &Inputs| {
        let loaded = loaded(inputs);
        let rows = show::rows(&loaded.values);
        let mut rows = rows.into_iter();
        let row = rows.find(|row| row.key == "telemetry.timeout_ms").unwrap();
        (row.value.to_string(), row.origin)
    };
    let is = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
    assert_eq!(told(&inputs), is("1", &format!("{}:2:14", path.display())));
    let otel = variables(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "2")]);
    inputs.environment.extend(otel);
    assert_eq!(told(&inputs), is("2", "OTEL_EXPORTER_OTLP_TIMEOUT"));
    let ours = variables(&[("FANFARE_TELEMETRY__TIMEOUT_MS", "3")]);
    inputs.environment.extend(ours);
    assert_eq!(told(&inputs), is("3", "FANFARE_TELEMETRY__TIMEOUT_MS"));
}

#[test]
fn every_variable_sets_its_key_and_what_it_says_is_shown_with_its_name() {
    for (variable, name) in OTEL_NAMES {
        let path = format!("telemetry.{name}");
        let key = keys::find(&path).unwrap_or_else(|| panic!("{path} is no key"));
        let (_directory, pem) = file("");
        let ca = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(&pem, ca).unwrap();
        let text = match key.kind {
            Kind::Flag => "true".to_owned(),
            Kind::Number { .. } => "1234".to_owned(),
            Kind::Ratio => "0.25".to_owned(),
            // Capitals mean the same.
            Kind::Choice(words) => words.last().unwrap().to_uppercase(),
            Kind::List(_) => "a=b,c=http://d".to_owned(),
            Kind::Text(_) if name.ends_with("file") => pem.display().to_string(),
            Kind::Text(form) if form.wanted == otlp_forms::ENDPOINT.wanted => {
                "http://collector:4318".to_owned()
            }
            Kind::Text(_) => "text".to_owned(),
        };
        let set = with(&[(variable, &text)]);
        let origin = set.values.origin(&path).to_string();
        assert_eq!(&origin, variable, "{variable}={text}: {:?}", set.warnings);
        let unset = with(&[(variable, "")]);
        assert_eq!(
            unset.values.origin(&path).to_string(),
            "default",
            "{variable}"
        );
    }
}

/// A variable, its value, and what is told of it.
const GARBAGE: &[(&str, &str, &str)] = &[
    (
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "ten",
        "\"ten\" is not a whole number from 1 to 600000 milliseconds, so it is ignored; \
             telemetry.timeout_ms is 10000 (default)",
    ),
    (
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "http/json",
        "\"http/json\" is not http/protobuf or grpc, so it is ignored; telemetry.protocol is \
             \"http/protobuf\" (default)",
    ),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "collector:4317",
        "\"collector:4317\" is not http://host[:port][/path] or https://host[:port][/path], for \
             example http://127.0.0.1:4318, so it is ignored; telemetry.endpoint is not set (default)",
    ),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "http://ada:word@collector",
        "it has a login, so it is ignored; telemetry.endpoint is not set (default)",
    ),
    (
        "OTEL_EXPORTER_OTLP_HEADERS",
        "api-key",
        "it has no =, so it is ignored; telemetry.headers is [] (default)",
    ),
    (
        "OTEL_TRACES_SAMPLER",
        "xray",
        "\"xray\" is not parentbased_traceidratio or parentbased_always_on or \
             parentbased_always_off or traceidratio or always_on or always_off, so it is ignored; \
             telemetry.traces_sampler is \"parentbased_traceidratio\" (default)",
    ),
    (
        "OTEL_TRACES_SAMPLER_ARG",
        "1.5",
        "\"1.5\" is not a number from 0 to 1, so it is ignored; telemetry.traces_ratio is 0.01 \
             (default)",
    ),
    (
        "OTEL_TRACES_SAMPLER_ARG",
        "NaN",
        "\"NaN\" is not a number from 0 to 1, so it is ignored; telemetry.traces_ratio is 0.01 \
             (default)",
    ),
    (
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "100000",
        "\"100000\" is not a whole number from 1 to 2048, so it is ignored; \
             telemetry.traces_queue_max is 2048 (default)",
    ),
    (
        "OTEL_METRICS_EXPORTER",
        "prometheus",
        "\"prometheus\" is not otlp or none, so it is ignored; telemetry.metrics_exporter is \
             \"otlp\" (default)",
    ),
    (
        "OTEL_SDK_DISABLED",
        "yes",
        "\"yes\" is not true or false, so it is ignored; telemetry.disabled is false (default)",
    ),
    (
        "OTEL_EXPORTER_OTLP_CERTIFICATE",
        "/nowhere/ca.pem",
        "\"/nowhere/ca.pem\": No such file or directory (os error 2), so it is ignored; \
             telemetry.tls_ca_file is not set (default)",
    ),
    (
        "OTEL_EXPORTER_OTLP_CLIENT_KEY",
        "/a/key.pem",
        "certificates of clients are not offered, so it is ignored",
    ),
];

#[test]
fn garbage_is_ignored_with_one_warning_that_names_the_variable_and_what_is_used() {
    for (variable, text, warning) in GARBAGE {
        let loaded = with(&[(variable, text)]);
        assert_eq!(warnings(&loaded), [format!("{variable}: {warning}")]);
    }
    // Where another source has set it, that is told.
    let loaded = with(&[
        ("OTEL_METRIC_EXPORT_INTERVAL", "-1"),
        ("FANFARE_TELEMETRY__METRICS_INTERVAL_MS", "5000"),
    ]);
    let told = warnings(&loaded)[0];
    let used = "telemetry.metrics_interval_ms is 5000 (FANFARE_TELEMETRY__METRICS_INTERVAL_MS)";
    assert!(told.ends_with(used), "{told}");
    // A long one is not repeated whole, and one with a login not at all.
    let loaded = with(&[("OTEL_TRACES_SAMPLER", &"x".repeat(10_000))]);
    assert!(warnings(&loaded)[0].len() < 500);
    let loaded = with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "ada:word@collector")]);
    assert!(!warnings(&loaded)[0].contains("word"));
}

#[test]
fn what_the_file_or_one_of_our_variables_says_wrong_is_a_fault() {
    let lines = faults_of_file("[telemetry]\nendpoint = \"collector\"\ntraces_ratio = 2.0\n");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].starts_with("fanfare.toml:2:12: telemetry.endpoint cannot be"),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("fanfare.toml:3:16: telemetry.traces_ratio cannot be"),
        "{lines:?}"
    );
    let mut inputs = inputs();
    let ours = [("FANFARE_TELEMETRY__PROTOCOL", "http/json")];
    inputs.environment.extend(variables(&ours));
    assert_eq!(fault_lines(&inputs).len(), 1);
}

#[test]
fn the_value_of_a_header_is_never_shown() {
    let set = with(&[
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hush1,other=hush2"),
        ("FANFARE_TELEMETRY__LOGS_HEADERS", "api-key=hush3"),
    ]);
    let shown = show::json_lines(&show::rows(&set.values));
    let row = shown
        .lines()
        .find(|line| line.contains("\"telemetry.headers\""));
    let row = row.unwrap();
    assert!(row.contains(r#"["api-key=***","other=***"]"#), "{row}");
    assert!(row.contains("OTEL_EXPORTER_OTLP_HEADERS"), "{row}");
    assert!(!shown.contains("hush"), "{shown}");
    assert!(!format!("{:?}", set.config).contains("hush"));
    let mut inputs = inputs();
    let bad = [("FANFARE_TELEMETRY__HEADERS", "hush")];
    inputs.environment.extend(variables(&bad));
    let lines = fault_lines(&inputs);
    assert!(lines.len() == 1 && !lines[0].contains("hush"), "{lines:?}");
}

#[test]
fn without_an_endpoint_nothing_is_sent_and_with_one_each_signal_has_its_way() {
    let none = with(&[]).config.telemetry;
    let all = |telemetry: &fanfare::config::telemetry::Telemetry| {
        let targets = [
            telemetry.traces_target(),
            telemetry.logs_target(),
            telemetry.metrics_target(),
        ];
        targets.map(|target| target.map(|target| target.url))
    };
    assert_eq!(all(&none), [None, None, None]);
    let urls = |paths: [&str; 3]| paths.map(|path| Some(format!("http://c:1{path}")));
    let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1/");
    let http = with(&[base]).config.telemetry;
    assert_eq!(all(&http), urls(["/v1/traces", "/v1/logs", "/v1/metrics"]));
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    assert_eq!(all(&with(&[base, grpc]).config.telemetry), urls(["/"; 3]));
    let disabled = ("OTEL_SDK_DISABLED", "TRUE");
    assert_eq!(
        all(&with(&[base, disabled]).config.telemetry),
        [None, None, None]
    );
    let without = ("OTEL_LOGS_EXPORTER", "none");
    let [traces, logs, metrics] = all(&with(&[base, without]).config.telemetry);
    assert!(traces.is_some() && logs.is_none() && metrics.is_some());

    let own = with(&[
        base,
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:2/here"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b=%20"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "7"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
    ]);
    let telemetry = own.config.telemetry;
    let (traces, logs) = (
        telemetry.traces_target().unwrap(),
        telemetry.logs_target().unwrap(),
    );
    assert_eq!(traces.url, "http://t:2/here");
    assert_eq!(traces.headers, [("b".to_owned(), Secret(" ".to_owned()))]);
    assert_eq!(traces.timeout, Duration::from_millis(7));
    assert_eq!(traces.compression, Compression::Gzip);
    assert_eq!(logs.headers, [("a".to_owned(), Secret("1".to_owned()))]);
    assert_eq!(
        (logs.timeout, logs.compression),
        (Duration::from_secs(10), Compression::None)
    );
}

#[test]
fn the_defaults_are_those_of_opentelemetry_but_for_the_sampler() {
    let telemetry = with(&[]).config.telemetry;
    assert!(!telemetry.disabled && !telemetry.traces.topics);
    assert_eq!(telemetry.general.protocol, Protocol::Http);
    assert_eq!(telemetry.traces.exporter, Exporter::Otlp);
    assert_eq!(telemetry.traces.sampler, Sampler::ParentOrRatio);
    assert!((telemetry.traces.ratio - 0.01).abs() < f64::EPSILON);
    let (spans, lines) = (telemetry.traces.batches, telemetry.logs.batches);
    assert_eq!(
        (spans.delay, lines.delay),
        (Duration::from_secs(5), Duration::from_secs(1))
    );
    assert_eq!((spans.queue_max, spans.batch_max), (2_048, 512));
    assert_eq!(spans.deadline, Duration::from_secs(30));
    assert_eq!(telemetry.metrics.interval, Duration::from_secs(60));
    assert_eq!(telemetry.metrics.temporality, Temporality::Cumulative);
}

#[test]
fn times_in_which_nobody_answers_and_headers_that_are_there_twice_are_questioned() {
    for (variable, value, said) in [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10", "is 10 ms"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "30", "is 30 ms"),
        ("FANFARE_TELEMETRY__METRICS_TIMEOUT_MS", "99", "is 99 ms"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "X=1,x=2", "has x twice"),
    ] {
        let loaded = with(&[(variable, value)]);
        let of = |it: &&String| it.starts_with(variable) && it.contains(said);
        let count = loaded.warnings.iter().filter(of).count();
        assert_eq!(count, 1, "{variable}: {:?}", loaded.warnings);
    }
    let well = with(&[
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "100"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x=1,y=1"),
    ]);
    assert_eq!(warnings(&well), [""; 0]);
}
