//! `fanfare queue redrive` and `fanfare queue drop`: dead letters of any number.
//!
//! In: which letters. Out: how many were done with, and what failed, each by its id. Bounds: a thousand
//! a call, of ids in a query fewer; each call tells how far it is, and the next one goes on from there.

use std::io::IsTerminal as _;

use clap::Args;
use fanfare_client::http::{Api, percent_encode};
use serde_json::{Value, json};

use super::call::{CallArgs, WHY, told_fault};
use crate::cli::exit::{Exit, Failure};
use crate::cli::messages::FLEETING;
use crate::cli::output;

/// Most letters of one call that redrives: what the contract allows.
const LETTERS_MAX: usize = 1_000;
/// Most ids in one query, so that its head stays short.
const IDS_IN_QUERY_MAX: usize = 100;

/// Arguments of both.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct LettersArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    call: CallArgs,
}

/// Exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// This letter; may be repeated
    #[arg(long, value_name = "ID")]
    id: Vec<String>,
    /// All that died of this
    #[arg(long, value_parser = WHY)]
    why: Option<String>,
    /// All
    #[arg(long)]
    all: bool,
}

/// What is done with letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Redrive,
    Drop,
}

impl Act {
    /// What the answer calls those with which it was done.
    fn count(self) -> &'static str {
        match self {
            Self::Redrive => "redriven",
            Self::Drop => "dropped",
        }
    }
}

/// One run over letters.
pub(super) struct Letters<'a> {
    args: &'a LettersArgs,
    act: Act,
    api: Api,
    done: u64,
    failed: u64,
    /// Whether it was told that what the node has ends with it.
    is_fleeting: bool,
    /// The code of the first letter that failed.
    exit: Exit,
}

impl<'a> Letters<'a> {
    /// Over these; nothing is connected yet.
    ///
    /// # Errors
    /// The address or the key is none.
    pub(super) fn new(args: &'a LettersArgs, act: Act) -> Result<Self, Failure> {
        Ok(Self {
            args,
            act,
            api: args.call.api()?,
            done: 0,
            failed: 0,
            is_fleeting: false,
            exit: Exit::Done,
        })
    }

    /// Does it, and tells what became of it.
    ///
    /// # Errors
    /// The node cannot be reached, or refuses the call as a whole.
    pub(super) async fn run(mut self) -> Result<Exit, Failure> {
        let which = &self.args.which;
        if which.id.is_empty() {
            self.all().await?;
        } else {
            let ids_max = match self.act {
                Act::Redrive => LETTERS_MAX,
                Act::Drop => IDS_IN_QUERY_MAX,
            };
            for ids in which.id.chunks(ids_max) {
                let answer = self.call(json!({ "ids": ids })).await?;
                self.told(&answer);
            }
        }
        if !self.args.call.format.is_json() {
            output::line(&format!("{}: {}", self.act.count(), self.done));
        }
        if self.failed > 0 {
            output::note(&format!("fanfare: {} failed", self.failed));
        }
        Ok(self.exit)
    }

    /// Goes on until there are no more, or nothing can be done at present.
    async fn all(&mut self) -> Result<(), Failure> {
        let mut after = Value::Null;
        loop {
            let mut which = match &self.args.which.why {
                Some(why) => json!({ "why": why }),
                None => json!({"all": true}),
            };
            if !after.is_null() {
                which["after"] = after;
            }
            let answer = self.call(which).await?;
            let is_possible = self.told(&answer);
            after = answer["next"].clone();
            if answer["more"] != true || after.is_null() {
                return Ok(());
            }
            if !is_possible {
                output::note("fanfare: the others were left: try again soon");
                return Ok(());
            }
            if std::io::stderr().is_terminal() {
                output::note(&format!("{}: {}, going on", self.act.count(), self.done));
            }
        }
    }

    async fn call(&mut self, which: Value) -> Result<Value, Failure> {
        let answer = match self.act {
            Act::Redrive => {
                let path = "/v1/queue/dead/redrive";
                self.api.post(path, which.to_string()).await
            }
            Act::Drop => {
                let path = format!("/v1/queue/dead?{}", query(&which));
                self.api.delete(&path).await
            }
        };
        Ok(answer?)
    }

    /// Tells what became of one call's letters. Returns whether more of them can be tried now.
    fn told(&mut self, answer: &Value) -> bool {
        self.done += answer[self.act.count()].as_u64().unwrap_or(0);
        if self.args.call.format.is_json() {
            output::line(&answer.to_string());
        }
        if answer["durable"] == false && !self.is_fleeting {
            self.is_fleeting = true;
            output::note(FLEETING);
        }
        let mut is_possible = true;
        let failed = answer["failed"].as_array().map_or(&[][..], Vec::as_slice);
        for undone in failed {
            let of = match undone["id"].as_str() {
                Some(id) => output::printable(id).into_owned(),
                None => format!("partition {}", undone["partition"]),
            };
            let exit = told_fault(&of, &undone["error"]);
            self.failed += 1;
            // Where the queue is full the others would be refused too.
            is_possible &= undone["error"]["code"] != "rate_limited";
            if self.exit == Exit::Done {
                self.exit = exit;
            }
        }
        is_possible
    }
}

/// The same as the parameters of a query.
fn query(which: &Value) -> String {
    let pairs = which.as_object().into_iter().flatten();
    let pairs = pairs.map(|(name, value)| {
        let text = match value {
            Value::Array(ids) => {
                let ids: Vec<_> = ids.iter().filter_map(Value::as_str).collect();
                ids.join(",")
            }
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        format!("{name}={}", percent_encode(&text))
    });
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_letters_are_the_same_in_a_body_and_in_a_query() {
        assert_eq!(
            query(&json!({"ids": ["1:2-3", "4:5-6"]})),
            "ids=1%3A2-3%2C4%3A5-6"
        );
        assert_eq!(query(&json!({"all": true})), "all=true");
        let which = json!({"why": "failed", "after": "1:2-3"});
        assert_eq!(query(&which), "after=1%3A2-3&why=failed");
    }
}
