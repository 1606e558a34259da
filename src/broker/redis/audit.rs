//! The audit in Redis: one stream of the first deployment, and beside it which client has which entries.
//!
//! In and out: as [`crate::broker::audit`]. Owns nothing. Bound: that of the stream. It is written where memory is full as well: what it is written for may be what makes
//! room.

use fred::types::Value;

use super::{RedisBroker, reply};
use crate::broker::BrokerError;
use crate::broker::audit::{AuditEntry, Audited, ENTRIES_MAX};
use crate::redis::script::text;
use fanfare_protocol::ids::Position;

impl RedisBroker {
    /// As [`crate::broker::Broker::audit`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn audit(&self, entry: AuditEntry) -> Result<(), BrokerError> {
        let keys = self.keys().audits();
        let args = [
            text(ENTRIES_MAX),
            text(entry.time_ms),
            text(entry.client),
            text(entry.app),
            text(entry.operation),
            text(entry.target),
            text(entry.address),
        ];
        let master = self.masters.find(&keys[0])?.master;
        let script = &master.shared.scripts.audit;
        let answer = master.shared.bulk.link.eval(script, &keys, &args).await;
        master.heeding(answer.map_err(BrokerError::from))?;
        Ok(())
    }

    /// As [`crate::broker::Broker::audited`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn audited(
        &self,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Audited>, BrokerError> {
        if limit == 0 || before == Some(Position::ZERO) {
            // Redis refuses a bound below which no id can be.
            return Ok(Vec::new());
        }
        let key = self.keys().audit();
        let end = before.map_or_else(|| text("+"), |before| text(format_args!("({before}")));
        let args = [end, text("-"), text("COUNT"), text(limit)];
        let master = self.masters.find(&key)?.master;
        let link = &master.shared.bulk.link;
        let answer = link.command("XREVRANGE", &key, &args).await;
        let entries = reply::list(master.heeding(answer.map_err(BrokerError::from))?)?;
        entries.into_iter().map(audited).collect()
    }
}

/// An entry. What is missing, or was written otherwise by another release, is told as far as it can be
/// read.
fn audited(value: Value) -> Result<Audited, BrokerError> {
    let [id, fields] = reply::parts(value)?;
    let fields = reply::list(fields)?;
    let field = |name: &[u8]| {
        let mut pairs = fields.chunks_exact(2);
        let found = pairs.find(|pair| pair[0].as_bytes() == Some(name))?;
        Some(String::from_utf8_lossy(found[1].as_bytes()?).into_owned())
    };
    let told = |name| field(name).unwrap_or_default();
    let id = reply::position(&id)?;
    let time_ms = field(b"time").and_then(|time| time.parse().ok());
    Ok(Audited {
        id,
        entry: AuditEntry {
            time_ms: time_ms.unwrap_or(id.ms),
            client: told(b"client"),
            app: told(b"app"),
            operation: told(b"operation"),
            target: told(b"target"),
            address: told(b"address"),
        },
    })
}
