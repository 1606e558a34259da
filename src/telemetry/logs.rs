//! Log output on stderr: text on a terminal, one JSON object a line in a pipe.
//!
//! In: `tracing` events of every module, filtered by `log.level`. Out: stderr; stdout belongs to
//! results. Owner: the process, once. Text of other people (names, reasons, errors of a peer) is
//! written with its control characters escaped, so that it can neither steer a terminal nor forge
//! a line. Writing is not buffered and blocks, which is why nothing is logged per message.
//!
//! Every line says what happened by the field `event`, a stable name of the form noun_past-verb
//! (`node_started`, `session_ended`); the message beside it is for people and may change. Levels:
//! a peer's fault is `debug`, ours is `warn`, lost data or a needed human is `error`.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{FormatFields, debug_fn};
use tracing_subscriber::fmt::{MakeWriter, SubscriberBuilder};

use crate::config::{Log, LogFormat};

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.level` is not a filter.
    #[error("log.level is no filter such as info,fanfare=debug")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// The process logs already.
    #[error("the log was started before")]
    Started(#[source] tracing::subscriber::SetGlobalDefaultError),
}

/// Starts the log of this process.
///
/// # Errors
/// [`LogError`].
pub fn start(log: &Log) -> Result<(), LogError> {
    let stderr = std::io::stderr;
    let is_terminal = stderr().is_terminal();
    let is_json = match log.format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let filter = EnvFilter::try_new(&log.level).map_err(LogError::Filter)?;
    if is_json {
        tracing::subscriber::set_global_default(json(stderr, filter))
    } else {
        tracing::subscriber::set_global_default(text(stderr, filter, is_terminal))
    }
    .map_err(LogError::Started)
}

fn json<W>(writer: W, filter: EnvFilter) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    SubscriberBuilder::default()
        .with_env_filter(filter)
        .with_writer(writer)
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .finish()
}

fn text<W>(writer: W, filter: EnvFilter, ansi: bool) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    SubscriberBuilder::default()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(ansi)
        .fmt_fields(escaped_fields())
        .finish()
}

/// Fields as `name=value`. The subscriber's own form escapes terminal sequences but leaves line
/// breaks in what is logged by `Display`, so a peer's text could begin a line of its own.
fn escaped_fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    debug_fn(|writer, field, value| {
        if field.name() != "message" {
            write!(writer, "{field}=")?;
        }
        for character in format!("{value:?}").chars() {
            if character.is_control() {
                write!(writer, "{}", character.escape_default())?;
            } else {
                writer.write_char(character)?;
            }
        }
        Ok(())
    })
    .delimited(" ")
}

#[cfg(test)]
mod tests {
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
        tracing::debug!("below the filter");
        let span = tracing::info_span!("session", user = %peer);
        span.in_scope(|| {
            tracing::info!(event = "session_ended", reason = %peer, peer, "ended: {peer}");
        });
    }

    #[test]
    fn text_of_others_cannot_steer_the_terminal_or_forge_a_line() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = text(move || writer.clone(), EnvFilter::new("info"), false);
        tracing::subscriber::with_default(log, log_something_hostile);
        let text = lines.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            !text.trim_end_matches('\n').contains(char::is_control),
            "{text}"
        );
        assert!(text.contains("event=\"session_ended\""), "{text}");
        assert!(
            text.contains(r"reason=red \u{1b}[31m\u{9b}2J\r\n2026"),
            "{text}"
        );
    }

    #[test]
    fn a_pipe_gets_one_json_object_a_line_with_the_event_at_its_top() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = json(move || writer.clone(), EnvFilter::new("info"));
        tracing::subscriber::with_default(log, log_something_hostile);
        let text = lines.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(line["event"], "session_ended");
        assert_eq!(line["level"], "INFO");
        assert!(line["timestamp"].is_string());
    }

    #[test]
    fn a_filter_that_is_none_is_told() {
        let log = Log {
            format: LogFormat::Auto,
            level: "fanfare=loud".to_owned(),
        };
        assert!(matches!(start(&log), Err(LogError::Filter(_))));
    }
}
