//! Pages of what a topic retains, as callers see them.
//!
//! In: the page that was asked for. Out: messages, without those past their `ttl_ms`. Bounds: at
//! most `session.page_max` messages and `session.page_bytes_max` bytes a page.

use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::names;
use super::query::{Pairs, QueryFields};
use super::state::ApiState;
use crate::broker::{BrokerError, HistoryQuery, visible};
use fanfare_protocol::error::WireError;
use fanfare_protocol::event::Message;
use fanfare_protocol::ids::{Position, Topic};

/// About what a message takes in an answer beside its data.
const MESSAGE_BYTES: usize = 128;

/// Which page.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HistoryParams {
    /// Only what stands after this position.
    #[param(nullable = false)]
    since: Option<Position>,
    /// Only what stands before this position.
    #[param(nullable = false)]
    until: Option<Position>,
    /// Messages in the page; 100 by default, at most 1,000 by default.
    #[param(nullable = false, minimum = 1)]
    limit: Option<u32>,
    /// Newest first.
    #[param(nullable = false)]
    reverse: Option<bool>,
}

impl QueryFields for HistoryParams {
    const NAMES: &'static [&'static str] = &["since", "until", "limit", "reverse"];

    fn read(pairs: &Pairs) -> Result<Self, WireError> {
        let flag = |text: &str| match text {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        };
        Ok(Self {
            since: names::position(pairs, "since")?,
            until: names::position(pairs, "until")?,
            limit: names::page_limit(pairs)?,
            reverse: pairs.get("reverse", "true or false", flag)?,
        })
    }
}

/// A page of history.
#[derive(Debug, Serialize, ToSchema)]
pub struct HistoryAnswer {
    /// In the order asked for; the last one's `position` continues them as `since` (with
    /// `reverse` as `until`).
    pub publications: Vec<Message>,
    /// There is another page.
    pub more: bool,
}

impl HistoryAnswer {
    /// About how long it is as a body.
    pub(super) fn bytes(&self) -> usize {
        let bytes = |message: &Message| message.data.bytes().len() + MESSAGE_BYTES;
        self.publications.iter().map(bytes).sum()
    }
}

impl HistoryParams {
    /// The query that these fields ask.
    ///
    /// # Errors
    /// A limit out of range.
    pub(super) fn query(&self, state: &ApiState, topic: Topic) -> Result<HistoryQuery, WireError> {
        let settings = state.apps.of_topic(&topic);
        Ok(HistoryQuery {
            retention: settings.namespace(&topic).retention(),
            topic,
            since: self.since,
            until: self.until,
            limit: names::within(self.limit, state)?,
            bytes_max: state.config.session.page_bytes_max,
            reverse: self.reverse.unwrap_or(false),
        })
    }
}

/// Reads one page.
///
/// # Errors
/// [`BrokerError`].
pub(super) async fn read(
    state: &ApiState,
    query: HistoryQuery,
) -> Result<HistoryAnswer, BrokerError> {
    let page = visible::history(&state.broker, query, super::unix_ms()).await?;
    Ok(HistoryAnswer {
        publications: page.messages,
        more: page.more,
    })
}
