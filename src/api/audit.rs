//! The audit: who asked for what, told before it is done, and `GET /v1/audit`.
//!
//! In: from handlers that do anything but read and publish, what they are about to do. Out: an entry of
//! the broker's and a line of the log, or the refusal to go on. Owns nothing. Bounds: those of
//! `broker::audit`. What a node is asked to do with itself alone goes on without an entry where the broker is
//! away ([`Admitted::audit_if_possible`]): a node must be able to leave.

use std::net::IpAddr;
use std::time::Instant;

use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::about::About;
use super::auth::{Admitted, asks};
use super::body::Wanted;
use super::error::ApiError;
use super::names;
use super::query::{Fields, Pairs, QueryFields};
use super::schema::{BadRequest, Refused};
use super::unix_ms;
use crate::broker::BrokerError;
use crate::broker::audit::{AuditEntry, Audited, PAGE_MAX, TARGET_BYTES_MAX, cut};
use crate::config::api_clients::ClientApp;
use crate::tasks;
use crate::telemetry::labels::ApiRefusal;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::ids::Position;

/// About what an entry takes in an answer beside its target.
const ENTRY_BYTES: usize = 256;

impl<A> Admitted<A> {
    /// Writes down what is about to be done: the name of the call in the document, and with what.
    ///
    /// # Errors
    /// `unavailable` where it could not be written, and `rate_limited` where the client asks for too
    /// much: nothing may be done then.
    pub(super) async fn audit(
        &self,
        operation: &'static str,
        about: About,
    ) -> Result<(), ApiError> {
        self.pay()?;
        self.write(operation, &about.text()).await.map_err(|error| {
            let refused = &self.state.metrics.api.refused;
            refused.of(ApiRefusal::Audit).add(1);
            unwritten(&error).into()
        })
    }

    /// The same for what must be possible without the broker too: then the log alone has it.
    pub(super) async fn audit_if_possible(&self, operation: &'static str, about: About) {
        // The line of the log says that it is the only one.
        let _ = self.write(operation, &about.text()).await;
    }

    /// Each act costs a line of the log that is never left out, so a client has a rate of them.
    fn pay(&self) -> Result<(), ApiError> {
        let name = &self.caller.client.name;
        self.state.keys.act(name, Instant::now()).map_err(|wait| {
            let refused = &self.state.metrics.api.refused;
            refused.of(ApiRefusal::Acts).add(1);
            let text = format!("the API client `{name}` changes too much at once; wait and repeat");
            let mut told = WireError::new(ErrorCode::RateLimited, text);
            told.retry_after_ms = u64::try_from(wait.as_millis()).ok();
            told.into()
        })
    }

    async fn write(&self, operation: &'static str, target: &str) -> Result<(), BrokerError> {
        let caller = &self.caller;
        let entry = AuditEntry {
            time_ms: unix_ms(),
            client: caller.client.name.clone(),
            app: caller.app.as_str().to_owned(),
            operation: operation.to_owned(),
            target: target.to_owned(),
            address: caller
                .peer
                .as_ref()
                .map_or_else(String::new, IpAddr::to_string),
        };
        let (client, app, address) = (
            entry.client.clone(),
            entry.app.clone(),
            entry.address.clone(),
        );
        let written = self.state.broker.audit(entry).await;
        // A line of the log has a field `target` already: the module that writes it.
        let target = cut(target, TARGET_BYTES_MAX);
        match &written {
            Ok(()) => tracing::info!(
                event = "call_audited",
                client,
                app,
                operation,
                about = target,
                address,
                "a client of the API asked for this"
            ),
            Err(error) => tracing::warn!(
                event = "audit_refused",
                client,
                app,
                operation,
                about = target,
                address,
                error = error as &(dyn std::error::Error + 'static),
                "a client of the API asked for this, and it could not be written into the audit"
            ),
        }
        written
    }
}

/// What a client is told whose act could not be written down. The act itself was not begun, whatever became of
/// the entry.
fn unwritten(error: &BrokerError) -> WireError {
    let why = error.told();
    let text = match error {
        BrokerError::Unavailable(_) | BrokerError::Refused(_) => {
            let why = why.message.trim_end_matches("; nothing was done");
            format!("the audit could not be written, so nothing was done: {why}")
        }
        BrokerError::Unconfirmed(_)
        | BrokerError::Unknown(_)
        | BrokerError::Broken(_)
        | BrokerError::Unexpected(_) => {
            "it is not known whether the audit was written, so what was asked for was not done; \
             repeat it"
                .to_owned()
        }
    };
    WireError {
        retry_after_ms: why.retry_after_ms,
        ..WireError::unavailable(text)
    }
}

/// Which page.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditParams {
    /// `next` of the page before.
    #[param(nullable = false)]
    before: Option<Position>,
    /// Entries in the page; 100 by default, at most 1,000.
    #[param(nullable = false, minimum = 1)]
    limit: Option<u32>,
}

impl QueryFields for AuditParams {
    const NAMES: &'static [&'static str] = &["before", "limit"];

    fn read(pairs: &Pairs) -> Result<Self, WireError> {
        Ok(Self {
            before: names::position(pairs, "before")?,
            limit: names::page_limit(pairs)?,
        })
    }
}

/// A page of the audit.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditPage {
    /// The newest first. May be fewer than asked for, and none: those of other apps are left out.
    pub entries: Vec<AuditRow>,
    /// There is another page.
    pub more: bool,
    /// Continues the pages as `before`; there with `more`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next: Option<Position>,
}

/// Something that was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditRow {
    /// Its place in the audit.
    pub id: Position,
    /// When, unix milliseconds.
    pub time: u64,
    /// The client; `api.keys` for a key of that list.
    pub client: String,
    /// The app that it spoke of.
    pub app: String,
    /// The call: its `operationId` in the OpenAPI document.
    pub operation: String,
    /// With whom or what, and by which parameters: a JSON object as text. Of a list that is too long it
    /// has the first values, how many they all are (`…_count`), and the SHA-256 of the whole list as JSON
    /// without spaces (`…_sha256`).
    pub target: String,
    /// `attempted`: it is written before the act, whose outcome is not known then.
    pub result: &'static str,
    /// From which address; absent where that is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    pub address: String,
}

impl From<Audited> for AuditRow {
    fn from(Audited { id, entry }: Audited) -> Self {
        Self {
            id,
            time: entry.time_ms,
            client: entry.client,
            app: entry.app,
            operation: entry.operation,
            target: entry.target,
            result: "attempted",
            address: entry.address,
        }
    }
}

/// What clients of the API asked for, reads and publications apart, the newest first.
///
/// 10,000 entries are kept; where there are more, the oldest of the client that has most go. An entry is written before what it tells of is done. Needs the scope
/// `admin`.
#[utoipa::path(
    get, path = "/v1/audit", tag = "cluster", operation_id = "get_audit",
    params(AuditParams),
    responses((status = 200, description = "A page of the audit.", body = AuditPage), BadRequest, Refused)
)]
pub(super) async fn get_audit(
    Admitted { state, caller, .. }: Admitted<asks::SeeAudit>,
    wanted: Wanted,
    Fields(params): Fields<AuditParams>,
) -> Result<Response, ApiError> {
    let limit = names::within(params.limit, &state)? as usize;
    // One more than is shown says whether there is another page.
    let limit = limit.min(PAGE_MAX);
    let mut found = state.broker.audited(params.before, limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().map(|last| last.id).filter(|_| more);
    let is_shown = |one: &Audited| match &caller.client.app {
        ClientApp::Any => true,
        ClientApp::One(app) => one.entry.app == app.as_str(),
    };
    let entries: Vec<AuditRow> = found
        .into_iter()
        .filter(is_shown)
        .map(AuditRow::from)
        .collect();
    let bytes = entries.iter().map(|one| one.target.len() + ENTRY_BYTES);
    let bytes = bytes.sum();
    let page = AuditPage {
        entries,
        more,
        next,
    };
    Ok(tasks::heavy(bytes, || wanted.ok(&page)).await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::unavailable;

    /// It was said that nothing was done and, in the same answer, that the outcome is unknown.
    #[test]
    fn an_act_that_was_not_done_is_told_as_not_done_and_as_nothing_else() {
        let all = unavailable::all();
        assert!(
            all.iter()
                .any(|error| matches!(error, BrokerError::Unknown(_)))
        );
        for error in all {
            let told = unwritten(&error);
            assert_eq!(told.code, ErrorCode::Unavailable);
            let text = told.message;
            assert_eq!(
                text.matches(" not done").count() + text.matches("nothing was done").count(),
                1,
                "{text}"
            );
            for contrary in ["outcome", "idempotency_key"] {
                assert!(!text.contains(contrary), "{text}");
            }
        }
    }
}
