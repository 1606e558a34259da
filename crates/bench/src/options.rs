//! The flags that scenarios share, and how their values are read.
//!
//! A scenario has one of three sets: [`AnyServerArgs`] where every protocol has what it needs,
//! [`FanfareArgs`] where only Fanfare has it, [`CommonArgs`] alone where each session must be a user
//! of its own. What a scenario would refuse it does not offer.

use std::path::PathBuf;
use std::time::Duration;

use super::target::{ProtocolArgs, TargetArgs, UserArgs};

/// Flags of every scenario.
#[derive(Debug, Clone, clap::Args)]
pub struct CommonArgs {
    /// How many sessions connect at the same time
    #[arg(long, default_value = "100", value_name = "N", value_parser = parse_count)]
    pub at_once: usize,
    /// How long nothing may come before what is still to come counts as missing
    #[arg(long, default_value = "5", value_name = "SECONDS", value_parser = parse_seconds)]
    pub patience: Duration,
    /// Process of the server, whose CPU and memory are reported; may be repeated
    #[arg(long = "pid", value_name = "PID")]
    pub pids: Vec<u32>,
    /// Write latency and throughput curves to this file
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

/// Flags of a scenario that needs what only Fanfare has.
#[derive(Debug, Clone, clap::Args)]
pub struct FanfareArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    users: UserArgs,
}

/// Flags of a scenario for every protocol.
#[derive(Debug, Clone, clap::Args)]
pub struct AnyServerArgs {
    #[command(flatten)]
    fanfare: FanfareArgs,
    #[command(flatten)]
    protocol: ProtocolArgs,
}

/// The shared flags of one scenario, whichever set it has.
#[derive(Debug, Clone, Copy)]
pub struct Flags<'a> {
    /// What all have.
    pub common: &'a CommonArgs,
    /// Who the sessions are; `None`: each is a user of its own.
    pub users: Option<&'a UserArgs>,
    /// What the server speaks; `None`: `fanfare.v1`.
    pub protocol: Option<&'a ProtocolArgs>,
}

impl CommonArgs {
    /// With a user for each session.
    #[must_use]
    pub fn flags(&self) -> Flags<'_> {
        Flags {
            common: self,
            users: None,
            protocol: None,
        }
    }
}

impl FanfareArgs {
    /// With sessions of any kind.
    #[must_use]
    pub fn flags(&self) -> Flags<'_> {
        Flags {
            users: Some(&self.users),
            ..self.common.flags()
        }
    }
}

impl AnyServerArgs {
    /// With any protocol.
    #[must_use]
    pub fn flags(&self) -> Flags<'_> {
        Flags {
            protocol: Some(&self.protocol),
            ..self.fanfare.flags()
        }
    }
}

/// A whole number from 1 on.
///
/// # Errors
/// A sentence.
pub fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("a count is a whole number from 1 on".to_owned()),
    }
}

/// A number above 0.
///
/// # Errors
/// A sentence.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 1e6 => Ok(rate),
        _ => Err("a rate is a number above 0 and at most 1,000,000, a second".to_owned()),
    }
}

/// Seconds, with places where wanted.
///
/// # Errors
/// A sentence.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0.0 && seconds <= 1e6 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("seconds are a number above 0 and at most 1,000,000".to_owned()),
    }
}
