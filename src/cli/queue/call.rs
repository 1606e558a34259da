//! What every command of `fanfare queue` but `add` takes: which node, and how to print.
//!
//! In: flags. Out: a connection to be made. Pure.

use clap::Args;
use fanfare_client::http::Api;

use crate::cli::access::{ApiArgs, TlsArgs};
use crate::cli::exit::Failure;
use crate::cli::output::Format;

/// Why an entry is dead, as answers have it.
pub(super) const WHY: [&str; 6] = [
    "bad_entry",
    "wrong_partition",
    "too_large",
    "expired",
    "failed",
    "crashed",
];

/// See the module.
#[derive(Debug, Args)]
pub(super) struct CallArgs {
    /// How to print
    #[arg(long, value_enum, default_value = "auto")]
    pub(super) format: Format,
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
        Ok(Api::new(&self.api.options(), &tls)?)
    }
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
