//! What answers a command: one answer, or what is pushed of its channels.
//!
//! In: pushes, errors. Out: whether they are the answer to the oldest command, a part of it, or none of
//! its matter. Owner: the command's place in the queue. Bound: its channels.

use std::collections::VecDeque;

use fred::error::Error;
use fred::types::Value;

/// What answers a command.
#[derive(Debug)]
pub(super) enum Awaits {
    Answer,
    /// A push that begins with this word for each of these channels.
    Pushes(&'static [u8], VecDeque<String>),
    /// Commands that leave a sharded channel each, and one behind them.
    Leaving(Leaving),
}

/// What is yet to be said of sharded channels that are left: of each a push, or an error where its
/// slot has gone, before or behind a push that told so unasked; then of the last of them, as of a
/// classic channel, that nobody hears it.
#[derive(Debug)]
pub(super) struct Leaving {
    channels: VecDeque<String>,
    last: String,
    /// How many errors there may be: one for each of them, and one for the command behind.
    errors_left: usize,
    error: Option<Error>,
}

/// What a push is to the oldest command.
pub(super) enum Told {
    /// Its answer, or the last part of it.
    All(Result<Value, Error>),
    Part,
    Other,
}

impl Awaits {
    // HOT: one comparison for a message.
    pub(super) fn told(&mut self, push: &[Value]) -> Told {
        let word = push.first().and_then(Value::as_bytes);
        let channel = push.get(1).and_then(Value::as_bytes);
        let is_of = |channels: &mut VecDeque<String>| {
            let is_it = |waiting: &String| Some(waiting.as_bytes()) == channel;
            // They are told in their order, so it is the first.
            let at = channels.iter().position(is_it);
            at.and_then(|at| channels.remove(at)).is_some()
        };
        match self {
            Self::Pushes(awaited, channels) if word == Some(*awaited) => match is_of(channels) {
                true if channels.is_empty() => Told::All(Ok(Value::Null)),
                true => Told::Part,
                false => Told::Other,
            },
            Self::Leaving(leaving) => match word {
                Some(b"sunsubscribe") if is_of(&mut leaving.channels) => Told::Part,
                Some(b"unsubscribe") if channel == Some(leaving.last.as_bytes()) => {
                    Told::All(leaving.error.take().map_or(Ok(Value::Null), Err))
                }
                _ => Told::Other,
            },
            Self::Answer | Self::Pushes(..) => Told::Other,
        }
    }
}

impl Leaving {
    pub(super) fn new(channels: &[String], last: &str) -> Self {
        Self {
            channels: channels.iter().cloned().collect(),
            last: last.to_owned(),
            errors_left: channels.len() + 1,
            error: None,
        }
    }

    /// One of the commands was. Returns why, when it was the last one that can be.
    pub(super) fn refused(&mut self, error: Error) -> Option<Error> {
        // Of the one behind it says so, and that is the last whatever came before.
        let is_last = self.errors_left == 1 || error.details().contains("'unsubscribe'");
        self.errors_left -= 1;
        let first = self.error.get_or_insert(error).clone();
        is_last.then_some(first)
    }
}
