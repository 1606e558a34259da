//! Inboxes: how much waits, and how far it is read.
//!
//! In: the inbox of a user, acknowledgements. Out: answers of the scripts `inbox.lua` and `ack.lua`.
//! Owns nothing: the cursor lives in Redis beside the last id. Bound: [`PENDING_MAX`].

use super::{RedisBroker, reply};
use crate::broker::{Acked, BrokerError, InboxSummary};
use crate::config::Retention;
use crate::redis::script::text;
use fanfare_protocol::ids::{Position, SessionId, Topic};

/// Most pending messages that `welcome` tells.
const PENDING_MAX: u32 = 1_000;

impl RedisBroker {
    /// As [`crate::broker::Broker::inbox`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn inbox(
        &self,
        inbox: &Topic,
        retention: Retention,
    ) -> Result<InboxSummary, BrokerError> {
        let keys = [
            self.keys().stream(inbox),
            self.keys().last(inbox),
            self.keys().cursor(inbox),
        ];
        let args = [text(retention.age_ms), text(PENDING_MAX)];
        let answer = self
            .ask(inbox, |scripts| &scripts.inbox, &keys, &args)
            .await?;
        let [cursor, last, pending] = reply::parts(answer)?;
        Ok(InboxSummary {
            cursor: reply::optional_position(&cursor)?,
            last: reply::position(&last)?,
            pending: reply::number(&pending)?,
        })
    }

    /// As [`crate::broker::Broker::ack`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn ack(
        &self,
        inbox: &Topic,
        position: Position,
        session: SessionId,
        retention: Retention,
    ) -> Result<Acked, BrokerError> {
        let keys = [
            self.masters.channel(inbox),
            self.keys().stream(inbox),
            self.keys().last(inbox),
            self.keys().cursor(inbox),
        ];
        let args = [text(position), text(session), text(retention.renewal_ms())];
        let master = self.masters.find_topic(inbox)?.master;
        let (link, script) = (&master.shared.urgent.link, &master.shared.scripts.ack);
        let answer = link.eval(script, &keys, &args).await;
        let answer = master.heeding(answer.map_err(BrokerError::from))?;
        let [outcome, cursor] = reply::parts(answer)?;
        match outcome.as_bytes() {
            Some(b"above") => Ok(Acked::AboveNewest),
            Some(b"cursor") => Ok(Acked::Cursor(reply::position(&cursor)?)),
            _ => Err(reply::unexpected("outcome", &outcome)),
        }
    }
}
