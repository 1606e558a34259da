//! Tests of the lines of the log in both forms.

use super::*;
use std::sync::{Arc, Mutex};

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
    let reasons = list(&["a \"b\"", "c"]);
    tracing::info!(event = "session_closed", reason = %peer, %reasons, peer, count = 7, "ended: {peer}");
}

#[test]
fn text_of_others_cannot_steer_the_terminal_or_forge_a_line() {
    let lines = Lines::default();
    let writer = lines.clone();
    let (log, _) = text(
        move || writer.clone(),
        EnvFilter::new("info"),
        "node-0",
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
    let (log, set) = json(move || writer.clone(), EnvFilter::new("info"), "node-0");
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
    let (log, _) = json(move || one.clone(), EnvFilter::new("info"), "node-0");
    tracing::subscriber::with_default(log, log_an_error);
    let (log, _) = text(
        move || other.clone(),
        EnvFilter::new("info"),
        "node-0",
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
        let (log, _) = json(move || one.clone(), EnvFilter::new(filter), "node-0");
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
            "node-0",
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
