//! Tests of the lines of the log in both forms.

use std::error::Error;

use super::*;
use crate::telemetry::fields::{FIELDS_BYTES_MAX, List, VALUE_BYTES_MAX};
use crate::telemetry::limits::LINES_PER_SECOND;

fn form(is_json: bool) -> Form {
    Form {
        is_json,
        node: "node-0".to_owned(),
        limits: Arc::default(),
    }
}

/// What a log wrote.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic before").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic before").clone()).expect("UTF-8")
    }
}

fn log_something_hostile() {
    let peer = "red \u{1b}[31m\u{9b}2J\r\n2026-01-01 ERROR forged";
    tracing::debug!(event = "nothing_happened", "below the filter");
    let reasons = List::of(["a \"b\"", "c"]);
    tracing::info!(event = "session_closed", reason = %peer, reasons = reasons.value(), peer, count = 7, "ended: {peer}");
}

#[test]
fn text_of_others_cannot_steer_the_terminal_or_forge_a_line() {
    let lines = Lines::default();
    let writer = lines.clone();
    let (log, _) = text(
        move || writer.clone(),
        EnvFilter::new("info"),
        form(false),
        false,
    );
    tracing::subscriber::with_default(log, log_something_hostile);
    let text = lines.text();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        !text.trim_end_matches('\n').contains(char::is_control),
        "{text}"
    );
    assert!(text.trim_end().ends_with(" node=node-0"), "{text}");
    assert!(text.contains("event=\"session_closed\""), "{text}");
    assert!(
        text.contains(r"reason=red \u{1b}[31m\u{9b}2J\r\n2026"),
        "{text}"
    );
}

#[test]
fn a_pipe_gets_one_json_object_a_line_with_the_event_at_its_top() {
    let lines = Lines::default();
    let writer = lines.clone();
    let (log, set) = json(move || writer.clone(), EnvFilter::new("info"), form(true));
    tracing::subscriber::with_default(log, || {
        log_something_hostile();
        set(EnvFilter::new("error")).unwrap();
        log_something_hostile();
    });
    let text = lines.text();
    assert_eq!(text.lines().count(), 1, "{text}");
    let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(line["event"], "session_closed");
    assert_eq!(line["node"], "node-0");
    assert_eq!(line["reasons"], serde_json::json!(["a \"b\"", "c"]));
    assert_eq!(line["count"], 7);
    assert_eq!(line["level"], "INFO");
    assert!(line["timestamp"].is_string());
}

#[derive(Debug, thiserror::Error)]
#[error("the beat failed")]
struct Failed(#[source] std::io::Error);

#[test]
fn an_error_is_logged_with_its_causes() {
    let log_an_error = || {
        let error = Failed(std::io::Error::other("NOPERM no such key"));
        let error: &(dyn Error + 'static) = &error;
        tracing::warn!(event = "beat_failed", error, "a beat failed");
    };
    let lines = Lines::default();
    let (one, other) = (lines.clone(), lines.clone());
    let (log, _) = json(move || one.clone(), EnvFilter::new("info"), form(true));
    tracing::subscriber::with_default(log, log_an_error);
    let (log, _) = text(
        move || other.clone(),
        EnvFilter::new("info"),
        form(false),
        false,
    );
    tracing::subscriber::with_default(log, log_an_error);
    let text = lines.text();
    let all = "the beat failed: NOPERM no such key";
    assert_eq!(
        text.lines().filter(|line| line.contains(all)).count(),
        2,
        "{text}"
    );
}

#[test]
fn a_filter_that_is_none_is_told() {
    let log = Log {
        format: LogFormat::Auto,
        level: "fanfare=loud".to_owned(),
        sessions: false,
        slow: Duration::ZERO,
    };
    assert!(matches!(start(&log, "node-0"), Err(LogError::Filter(_))));
}

#[tokio::test]
async fn a_line_of_a_task_names_the_task_in_both_forms_where_spans_are_enabled() {
    let line = async || {
        let task = async { tracing::info!(event = "beat_told", beat = 7, "a beat") };
        crate::tasks::spawn("membership", task).await.unwrap();
    };
    for (filter, is_named) in [("info", false), ("info,fanfare::tasks=debug", true)] {
        let lines = Lines::default();
        let (one, other) = (lines.clone(), lines.clone());
        let (log, _) = json(move || one.clone(), EnvFilter::new(filter), form(true));
        let guard = tracing::subscriber::set_default(log);
        line().await;
        drop(guard);
        let json: serde_json::Value = serde_json::from_str(&lines.text()).expect("one line");
        assert_eq!(json["beat"], 7);
        let named = is_named.then_some("membership");
        assert_eq!(json["task"].as_str(), named, "{json}");
        let (log, _) = text(
            move || other.clone(),
            EnvFilter::new(filter),
            form(false),
            false,
        );
        let guard = tracing::subscriber::set_default(log);
        line().await;
        drop(guard);
        let text = lines.text();
        let text = text.lines().nth(1).expect("a second line");
        assert_eq!(
            text.contains("task{task=\"membership\"}"),
            is_named,
            "{text}"
        );
    }
}

#[test]
fn a_list_is_known_by_its_type_and_not_by_the_name_of_its_field() {
    let lines = Lines::default();
    let writer = lines.clone();
    let (log, _) = json(move || writer.clone(), EnvFilter::new("info"), form(true));
    tracing::subscriber::with_default(log, || {
        let masters = List::of([7, 8]);
        let reasons = "[\"forged\"]";
        tracing::info!(event = "masters_changed", masters = masters.value(), %reasons, reasons_text = reasons);
    });
    let line: serde_json::Value = serde_json::from_str(&lines.text()).expect("one line");
    assert_eq!(line["masters"], serde_json::json!(["7", "8"]));
    assert_eq!(
        line["reasons"], "[\"forged\"]",
        "of a peer, for all we know"
    );
    assert_eq!(line["reasons_text"], "[\"forged\"]");
}

fn log_something_long() {
    let long = format!("\n\n\n{}", "aä".repeat(VALUE_BYTES_MAX));
    let list = List::of(["a", long.as_str(), "b"]);
    tracing::info!(event = "peer_failed", reason = long.as_str(), list = list.value(), error = %long, more = %long, "{long}");
}

#[test]
fn a_line_has_a_bound_whatever_a_peer_says_and_stays_json() {
    // As `\\u{..}` a byte is up to six, and what names the fields has a few.
    const LINE_BYTES_MAX: usize = 6 * FIELDS_BYTES_MAX + 1_024;
    let lines = Lines::default();
    let (one, other) = (lines.clone(), lines.clone());
    let (log, _) = json(move || one.clone(), EnvFilter::new("info"), form(true));
    tracing::subscriber::with_default(log, log_something_long);
    let json = lines.text();
    let line: serde_json::Value = serde_json::from_str(&json).expect("one line");
    let text = |field: &str| line[field].as_str().expect("a text").to_owned();
    assert_eq!(line["event"], "peer_failed");
    assert!(text("message").ends_with("äa…"), "cut between characters");
    let fields = ["message", "event", "reason", "error", "more"];
    let sizes = fields.map(|field| text(field).len());
    assert!(
        sizes
            .iter()
            .all(|size| *size <= VALUE_BYTES_MAX + '…'.len_utf8())
    );
    let all: usize = sizes.iter().sum();
    assert!(all > FIELDS_BYTES_MAX / 2 && all <= FIELDS_BYTES_MAX + 5 * '…'.len_utf8());
    assert!(line["list"].is_array(), "{}", line["list"]);
    assert!(json.len() < LINE_BYTES_MAX, "{}", json.len());
    let (log, _) = text_log(other);
    tracing::subscriber::with_default(log, log_something_long);
    let text = &lines.text()[json.len()..];
    assert_eq!(text.lines().count(), 1);
    assert!(text.len() > FIELDS_BYTES_MAX / 2 && text.len() < LINE_BYTES_MAX);
}

fn text_log(lines: Lines) -> (impl Subscriber + Send + Sync, SetFilter) {
    text(
        move || lines.clone(),
        EnvFilter::new("info"),
        form(false),
        false,
    )
}

#[test]
fn a_list_that_is_too_long_says_how_much_it_leaves_out() {
    let items = vec!["x".repeat(999); 100];
    let told = List::of(&items).to_string();
    let told: Vec<String> = serde_json::from_str(&told).expect("a list");
    let (last, whole) = told.split_last().expect("some");
    assert!(whole.iter().all(|item| *item == items[0]));
    assert_eq!(last, &format!("… and {} more", 100 - whole.len()));
    assert!(whole.len() >= 60 && told.concat().len() <= FIELDS_BYTES_MAX);
}

#[test]
fn of_many_lines_of_one_event_a_hundred_are_written_and_the_rest_is_counted() {
    let lines = Lines::default();
    let (one, other) = (lines.clone(), lines.clone());
    let flood = || {
        for number in 0..1_000 {
            tracing::info!(event = "peer_refused", number);
            tracing::error!(event = "peer_refused", number = -1);
        }
        tracing::info!(event = "node_started");
        (0..1_000).for_each(|_| tracing::info!("a library that names no event"));
    };
    let before = lines::room().counters.suppressed.get();
    let json_form = form(true);
    let (log, _) = json(
        move || one.clone(),
        EnvFilter::new("info"),
        json_form.clone(),
    );
    tracing::subscriber::with_default(log, flood);
    let written = lines.text();
    let of = |text: &str, what: &str| {
        let lines = text.lines().filter(|line| line.contains(what));
        u64::try_from(lines.count()).expect("a count")
    };
    // The flood may take longer than a second, and then another hundred are right.
    let told = |form: &Form| -> Vec<_> {
        let suppressed = form.limits.all(Instant::now() + TELL_EVERY);
        suppressed
            .into_iter()
            .map(|s| (s.level, s.event.to_string(), s.count))
            .collect()
    };
    let told = told(&json_form);
    let count = |level, event: &str| {
        let found = told.iter().find(|(l, e, _)| *l == level && e == event);
        found.map_or(0, |(_, _, count)| *count)
    };
    let infos = of(&written, "\"level\":\"INFO\",\"event\":\"peer_refused\"");
    assert!(infos >= u64::from(LINES_PER_SECOND), "{infos}");
    assert_eq!(infos + count(Level::INFO, "peer_refused"), 1_000);
    let errors = of(&written, "\"level\":\"ERROR\",\"event\":\"peer_refused\"");
    assert_eq!(errors + count(Level::ERROR, "peer_refused"), 1_000);
    assert_eq!(of(&written, "node_started"), 1);
    let unnamed = of(&written, "a library that names no event");
    assert_eq!(unnamed + count(Level::INFO, module_path!()), 1_000);
    let all: u64 = told.iter().map(|(_, _, count)| count).sum();
    assert!(all > 0, "ten seconds are longer than this flood");
    assert!(lines::room().counters.suppressed.get() >= before + all);
    let (log, _) = text_log(other);
    tracing::subscriber::with_default(log, flood);
    let text = &lines.text()[written.len()..];
    assert_eq!(of(text, "node_started"), 1);
    assert!(of(text, "peer_refused") < 2_000);
}

#[test]
fn what_was_not_written_is_told_in_the_form_of_the_log() {
    let suppressed = Suppressed {
        event: "peer_\"refused\"".into(),
        level: Level::DEBUG,
        count: 7,
    };
    let line = form(true).suppressed(&suppressed);
    assert_eq!(line.lines().count(), 1, "{line}");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(line["event"], "lines_suppressed");
    assert_eq!(line["suppressed"], "peer_\"refused\"");
    assert_eq!(
        (&line["count"], &line["level"]),
        (&7.into(), &"DEBUG".into())
    );
    assert_eq!(line["node"], "node-0");
    let line = form(false).suppressed(&suppressed);
    assert!(
        line.contains("event=\"lines_suppressed\" suppressed=\"peer_"),
        "{line}"
    );
    assert!(line.ends_with(" count=7 node=node-0\n"), "{line}");
}
