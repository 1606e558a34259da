//! What was typed, as a demand and machines, and what is wrong with it.
//!
//! In: [`PlanArgs`], and the text of each flag. Out: an [`Input`], or words that say what to change.

use thiserror::Error;

use super::PlanArgs;
use super::model::{Demand, Machines};
use crate::cli::token::parse_ttl;
use crate::config::presets;

/// Bytes of a MiB.
const MIB: u64 = 1_048_576;

/// A size of the chart (`helm/fanfare/templates/_facts.tpl`): what a pod asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct PodSize {
    /// As `--size` names it.
    pub(super) name: &'static str,
    /// Cores.
    pub(super) cores: f64,
    /// Memory in MiB.
    pub(super) memory_mib: u64,
}

/// All of them; how many sessions and what cache they have is said by [`presets::SIZES`].
pub(super) const SIZES: [PodSize; 4] = [
    pod("small", 0.25, 512),
    pod("medium", 0.5, 1_024),
    pod("large", 1.0, 2_048),
    pod("enterprise", 2.0, 4_096),
];

const fn pod(name: &'static str, cores: f64, memory_mib: u64) -> PodSize {
    PodSize {
        name,
        cores,
        memory_mib,
    }
}

/// What [`super::model`] is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input {
    /// What is to be served.
    pub(super) demand: Demand,
    /// With what.
    pub(super) machines: Machines,
}

/// Flags that cannot be true together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Contradiction {
    /// See the text.
    #[error(
        "--fanout {fanout} is more than --users {users}: a publication goes to each session once"
    )]
    FanoutAboveUsers {
        /// Given.
        fanout: u64,
        /// Given.
        users: u64,
    },
    /// See the text.
    #[error(
        "--topics {topics} with {fanout} sessions each would be {each} topics for each of {users} users, and a session joins at most {TOPICS_MAX}"
    )]
    TooManyTopics {
        /// Given.
        topics: u64,
        /// Given, or followed.
        fanout: u64,
        /// Given.
        users: u64,
        /// What follows.
        each: u64,
    },
}

impl Contradiction {
    /// What to do.
    #[must_use]
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::FanoutAboveUsers { .. } => "give a smaller --fanout or more --users",
            Self::TooManyTopics { .. } => {
                "count only topics in which somebody is: give fewer --topics, a smaller --fanout or more --users"
            }
        }
    }
}

/// The most that `session.topics_max` may be.
const TOPICS_MAX: u64 = 100_000;

impl Input {
    /// Puts it together.
    pub(super) fn of(args: &PlanArgs) -> Result<Self, Contradiction> {
        let (users, topics) = (args.users, args.topics);
        let fanout = args.fanout.unwrap_or_else(|| users.div_ceil(topics));
        if fanout > users {
            return Err(Contradiction::FanoutAboveUsers { fanout, users });
        }
        // Neither number is above ten billion, so that their product has room.
        let each = u128::from(topics) * u128::from(fanout) / u128::from(users);
        let each = u64::try_from(each).unwrap_or(u64::MAX);
        if each > TOPICS_MAX {
            return Err(Contradiction::TooManyTopics {
                topics,
                fanout,
                users,
                each,
            });
        }
        Ok(Self {
            demand: Demand {
                users,
                topics,
                publications_per_s: args.rate,
                fanout,
                body_bytes: args.bytes,
                history_entries: args.history,
                history_age_s: args.history_age,
                inbox_entries: args.inbox,
                session_s: args.session,
                queued_percent: u64::from(args.queued),
            },
            machines: machines(args),
        })
    }
}

fn machines(args: &PlanArgs) -> Machines {
    let pod = SIZES.iter().find(|size| size.name == args.size);
    let preset = presets::SIZES.iter().find(|size| size.name == args.size);
    let (Some(pod), Some(preset)) = (pod, preset) else {
        unreachable!("clap takes no other size, and a test holds the two tables together");
    };
    let number = |text: &str| text.parse().expect("a preset is a number");
    Machines {
        node_sessions_max: args
            .node_sessions
            .unwrap_or_else(|| number(preset.connections_max)),
        node_cores: args.node_cores.unwrap_or(pod.cores),
        node_memory_bytes: args.node_memory.unwrap_or(pod.memory_mib) * MIB,
        node_cache_bytes: number(preset.cache_memory_bytes),
        redis_memory_bytes: args.redis_memory * MIB,
        network_bits_per_s: args.network * 1_000_000,
    }
}

/// Reads `20000`, `20k`, `1M`.
fn count(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let wrong = || {
        format!(
            "must be a whole number from {least} to {most}, for example 500, 20k, 1M or 2G, up to that"
        )
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        other => {
            return Err(format!(
                "unknown unit {other:?}: use k, M or G for thousands, millions or billions"
            ));
        }
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(wrong)
}

/// People on earth, rounded up: more are not connected.
const PEOPLE: u64 = 10_000_000_000;

pub(super) fn users(text: &str) -> Result<u64, String> {
    count(text, 1, PEOPLE)
}

pub(super) fn topics(text: &str) -> Result<u64, String> {
    count(text, 1, PEOPLE)
}

pub(super) fn rate(text: &str) -> Result<u64, String> {
    count(text, 1, 1_000_000_000)
}

pub(super) fn fanout(text: &str) -> Result<u64, String> {
    count(text, 1, PEOPLE)
}

/// `session.message_bytes_max` may be so much.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    count(text, 1, 16 * MIB)
}

/// `history_entries_max` may be so much.
pub(super) fn entries(text: &str) -> Result<u64, String> {
    count(text, 0, 1_000_000)
}

/// `server.connections_max` may be so much.
pub(super) fn node_sessions(text: &str) -> Result<u64, String> {
    count(text, 1, 10_000_000)
}

pub(super) fn mebibytes(text: &str) -> Result<u64, String> {
    count(text, 64, 16 * MIB)
}

pub(super) fn megabits(text: &str) -> Result<u64, String> {
    count(text, 1, 1_000_000)
}

pub(super) fn cores(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok();
    number
        .filter(|cores| (0.1..=1024.0).contains(cores))
        .ok_or_else(|| "must be a number from 0.1 to 1024, for example 0.5 or 4".to_owned())
}

pub(super) fn time(text: &str) -> Result<u64, String> {
    match parse_ttl(text)?.as_secs() {
        seconds @ 1..=31_536_000 => Ok(seconds),
        _ => Err("must be from 1s to 365d".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_configuration() {
        let names = SIZES.map(|size| size.name);
        assert_eq!(names, presets::SIZES.map(|size| size.name));
    }

    #[test]
    fn counts_are_read_with_their_units_and_refused_beyond_their_ends() {
        assert_eq!(count("20k", 1, PEOPLE), Ok(20_000));
        assert_eq!(count("1M", 1, PEOPLE), Ok(1_000_000));
        assert_eq!(count("10G", 1, PEOPLE), Ok(PEOPLE));
        assert_eq!(count("0", 0, 5), Ok(0));
        for wrong in [
            "0",
            "",
            "k",
            "-1",
            "1.5",
            "+3",
            "11G",
            "1e9",
            "999999999999999999999",
            "99999999999G",
        ] {
            let told = count(wrong, 1, PEOPLE).expect_err(wrong);
            assert!(
                told.contains("from 1 to 10000000000") || told.contains("unknown unit"),
                "{wrong}: {told}"
            );
        }
        assert!(
            count("5m", 1, 9)
                .expect_err("a unit")
                .contains("unknown unit \"m\"")
        );
        assert!(cores("NaN").is_err() && cores("inf").is_err() && cores("0").is_err());
        assert!(time("0s").is_err() && time("366d").is_err() && time("1h") == Ok(3_600));
    }
}
