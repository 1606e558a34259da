//! `log.level`: what the subscriber would take for something else, or for nothing, is refused.
//!
//! In: directives `LEVEL`, `TARGET=LEVEL` or `TARGET`, separated by commas. Out: the same with
//! small letters and without spaces, or what is wrong with one. The subscriber itself takes every
//! word that is no level for a target, and then logs nothing at all.

use tracing_subscriber::filter::LevelFilter;

use crate::config::faults::{Wrong, did_you_mean};

/// The modules of this crate that log; a target is one of them, or something below.
const MODULES: [&str; 24] = [
    "api",
    "apps",
    "auth",
    "authorizer",
    "broker",
    "cli",
    "cluster",
    "config",
    "dispatcher",
    "fixed_hash",
    "http",
    "ingress",
    "lifecycle",
    "node",
    "policy",
    "presence",
    "queue",
    "redis",
    "revocation",
    "session",
    "tasks",
    "telemetry",
    "verification",
    "worker",
];

/// Libraries that log.
const LIBRARIES: [&str; 8] = [
    "axum",
    "fred",
    "hyper",
    "hyper_util",
    "mio",
    "rustls",
    "tokio",
    "tower",
];

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Words of other programs, and which level is meant.
const OTHER_WORDS: [(&str, &str); 12] = [
    ("warning", "warn"),
    ("warnings", "warn"),
    ("err", "error"),
    ("fatal", "error"),
    ("critical", "error"),
    ("crit", "error"),
    ("information", "info"),
    ("notice", "info"),
    ("verbose", "debug"),
    ("all", "trace"),
    ("none", "off"),
    ("quiet", "off"),
];

/// Reads a filter.
///
/// # Errors
/// What is wrong with the first directive that would do something else than it says.
pub fn read(text: &str) -> Result<String, Wrong> {
    let directives = text.split(',').map(str::trim);
    let read: Vec<_> = directives
        .filter(|directive| !directive.is_empty())
        .map(directive)
        .collect::<Result<_, _>>()?;
    if read.is_empty() {
        return Err(Wrong::new("it is empty", "give a level, for example info"));
    }
    Ok(read.join(","))
}

fn directive(text: &str) -> Result<String, Wrong> {
    if text.contains(['[', ']', '{', '}', '"']) {
        return Err(Wrong::new(
            format!("{text} filters by span or field, which nothing here can match"),
            "write TARGET=LEVEL",
        ));
    }
    match text.split_once('=') {
        Some((target, level_text)) => {
            let target = known_target(target.trim())?;
            Ok(format!("{target}={}", level(level_text.trim())?))
        }
        None => match level(text) {
            Ok(level) => Ok(level),
            Err(_) if known_target(text).is_ok() => Ok(format!("{text}=trace")),
            Err(wrong) => Err(wrong),
        },
    }
}

fn level(text: &str) -> Result<String, Wrong> {
    let small = text.to_ascii_lowercase();
    if !text.is_empty()
        && let Ok(level) = small.parse::<LevelFilter>()
    {
        return Ok(level.to_string());
    }
    let other = OTHER_WORDS.iter().find(|(word, _)| *word == small);
    let remedy = match other {
        Some((_, level)) => format!("did you mean {level}?"),
        None => did_you_mean(&small, LEVELS.map(str::to_owned)),
    };
    Err(Wrong::new(format!("{text:?} is no level"), remedy))
}

fn known_target(text: &str) -> Result<&str, Wrong> {
    let modules = MODULES.map(|module| format!("fanfare::{module}"));
    let all = || {
        let libraries = LIBRARIES.map(str::to_owned);
        modules.iter().cloned().chain(libraries)
    };
    // The subscriber takes a target for the beginning of those that it stands for.
    let is_known = |known: &String| {
        known.starts_with(text)
            || text
                .strip_prefix(known.as_str())
                .is_some_and(|rest| rest.starts_with("::"))
    };
    if !text.is_empty() && all().any(|known| is_known(&known)) {
        return Ok(text);
    }
    let names = all().chain(["fanfare".to_owned()]);
    Err(Wrong::new(
        format!("{text:?} is no target that anything logs to"),
        did_you_mean(text, names),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_subscriber_understands_is_kept_in_one_form() {
        for (text, kept) in [
            ("info", "info"),
            ("INFO", "info"),
            ("info, fanfare=Debug", "info,fanfare=debug"),
            (
                "warn,fanfare::session=trace,",
                "warn,fanfare::session=trace",
            ),
            ("fanfare", "fanfare=trace"),
            (
                "fanfare::redis::circuit=debug",
                "fanfare::redis::circuit=debug",
            ),
            ("off,fred=error", "off,fred=error"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(kept), "{text}");
            assert!(tracing_subscriber::EnvFilter::try_new(kept).is_ok());
        }
    }

    #[test]
    fn a_word_that_would_log_nothing_is_refused_with_the_right_one() {
        for (text, what, remedy) in [
            ("warning", "\"warning\" is no level", "did you mean warn?"),
            ("WARNING", "is no level", "did you mean warn?"),
            ("inf", "is no level", "did you mean info?"),
            ("none", "is no level", "did you mean off?"),
            ("info,fanfare=warning", "is no level", "did you mean warn?"),
            ("fanfare=", "\"\" is no level", ""),
            ("=debug", "is no target", ""),
            ("fanfar_=debug", "is no target", "did you mean fanfare?"),
            (
                "fanfare::sesion=debug",
                "is no target",
                "did you mean fanfare::session?",
            ),
            ("fanfare=debug=info", "is no level", ""),
            ("fanfare[x]=debug", "span or field", "TARGET=LEVEL"),
            ("[{event=gap}]=debug", "span or field", "TARGET=LEVEL"),
            (",", "it is empty", "info"),
        ] {
            let wrong = read(text).expect_err(text);
            assert!(wrong.what.contains(what), "{text}: {}", wrong.what);
            assert!(wrong.remedy.contains(remedy), "{text}: {}", wrong.remedy);
        }
    }

    #[test]
    fn every_module_of_the_crate_is_a_target() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs");
        let text = std::fs::read_to_string(root).expect("the crate's root");
        let modules = text.lines().filter_map(|line| {
            let name = line.trim().strip_prefix("pub mod ")?;
            Some(name.trim_end_matches([';', '{', ' ']))
        });
        assert_eq!(modules.collect::<Vec<_>>(), MODULES);
    }
}
