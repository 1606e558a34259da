//! Pages of what a topic retains, as callers see them.
//!
//! In: the page that was asked for. Out: messages, without those past their `ttl_ms`. Bounds: at
//! most `session.page_max` messages and about `session.page_bytes_max` bytes of bodies a page; a
//! page is filled from further reads only while everything read so far had ended.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::names;
use super::state::ApiState;
use crate::broker::{Body, BrokerError, Entry, HistoryPage, HistoryQuery};
use crate::protocol::error::WireError;
use crate::protocol::event::Message;
use crate::protocol::ids::{Position, Topic};

/// Which page.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct HistoryParams {
    /// Only what stands after this position.
    since: Option<Position>,
    /// Only what stands before this position.
    until: Option<Position>,
    /// Messages in the page; 100 by default, at most 1,000 by default.
    limit: Option<u32>,
    /// Newest first.
    reverse: bool,
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

impl HistoryParams {
    /// The query that these fields ask.
    ///
    /// # Errors
    /// A limit out of range.
    pub(super) fn query(&self, state: &ApiState, topic: Topic) -> Result<HistoryQuery, WireError> {
        Ok(HistoryQuery {
            retention: state.config.namespace(&topic).retention(),
            topic,
            since: self.since,
            until: self.until,
            limit: names::page_limit(self.limit, state)?,
            bytes_max: state.config.session.page_bytes_max,
            reverse: self.reverse,
        })
    }
}

/// Reads one page.
///
/// # Errors
/// [`BrokerError`].
pub(super) async fn read(
    state: &ApiState,
    mut query: HistoryQuery,
) -> Result<HistoryAnswer, BrokerError> {
    let wanted = query.limit as usize;
    loop {
        let HistoryPage { entries, mut more } = state.broker.history(query.clone()).await?;
        let last = entries.last().map(|entry| entry.position);
        let mut publications = messages(&query.topic, entries, super::unix_ms());
        if publications.len() > wanted {
            publications.truncate(wanted);
            more = true;
        }
        match last {
            // Without a message the caller would not know where the next page begins.
            Some(last) if publications.is_empty() && more => {
                let bound = match query.reverse {
                    true => &mut query.until,
                    false => &mut query.since,
                };
                *bound = Some(last);
                query.limit = state.config.session.page_max;
            }
            _ => return Ok(HistoryAnswer { publications, more }),
        }
    }
}

/// The messages among the entries that have not ended at `now_ms`.
fn messages(topic: &Topic, entries: Vec<Entry>, now_ms: u64) -> Vec<Message> {
    let message = |entry: Entry| {
        let Body::Publication(publication) = entry.body else {
            // A presence topic has no name here, so its entries are never asked for.
            return None;
        };
        let ends_ms = publication
            .ttl_ms
            .map(|ttl_ms| publication.time_ms.saturating_add(ttl_ms));
        if ends_ms.is_some_and(|ends_ms| ends_ms < now_ms) {
            return None;
        }
        Some(Message {
            topic: topic.clone(),
            data: publication.data.clone(),
            position: Some(entry.position),
            user: publication.user.clone(),
            priority: publication.priority,
            key: publication.key.clone(),
            removed: publication.removed,
            time: publication.time_ms,
        })
    };
    entries.into_iter().filter_map(message).collect()
}
