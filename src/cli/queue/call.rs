//! What every command of `fanfare queue` but `add` takes: which node, and how to print; and how faults
//! are told.
//!
//! In: flags and answers. Out: a connection to be made, lines on stderr.

use clap::Args;
use fanfare_client::http::Api;
use serde_json::Value;

use crate::cli::access::{ApiArgs, AppArgs, TlsArgs};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{self, Format};

/// Why an entry is dead, as answers have it.
pub(super) const WHY: [&str; 7] = [
    "bad_entry",
    "wrong_partition",
    "too_large",
    "expired",
    "failed",
    "crashed",
    "unknown_app",
];

/// See the module.
#[derive(Debug, Args)]
pub(super) struct CallArgs {
    /// How to print
    #[arg(long, value_enum, default_value = "auto")]
    pub(super) format: Format,
    #[command(flatten)]
    app: AppArgs,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    tls: TlsArgs,
}

impl CallArgs {
    /// The node's API; nothing is connected yet.
    ///
    /// # Errors
    /// The address or the key is none.
    pub(super) fn api(&self) -> Result<Api, Failure> {
        let tls = self.tls.of(&self.api.api_url);
        Ok(self.app.of(Api::new(&self.api.options(), &tls)?)?)
    }
}

/// Tells which partitions an answer says nothing of. Returns the code of the first.
pub(super) fn told_partitions(answer: &Value) -> Exit {
    let failed = answer["failed"].as_array().map_or(&[][..], Vec::as_slice);
    let mut exit = Exit::Done;
    for fault in failed {
        let code = told_fault(
            &format!("partition {}", fault["partition"]),
            &fault["error"],
        );
        if exit == Exit::Done {
            exit = code;
        }
    }
    exit
}

/// Tells what is wrong with one thing. Returns the code that goes with it.
pub(super) fn told_fault(of: &str, error: &Value) -> Exit {
    let text = |key: &str| output::printable(error[key].as_str().unwrap_or("?")).into_owned();
    let (code, message) = (text("code"), text("message"));
    output::note(&format!("fanfare: {of}: {code}: {message}"));
    Exit::by_error_code(&code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::queue::Why;

    #[test]
    fn the_causes_are_those_of_the_queue() {
        assert_eq!(WHY, Why::ALL.map(Why::as_str));
    }
}
