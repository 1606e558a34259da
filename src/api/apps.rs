//! `GET /v1/apps`, `GET`, `PUT` and `DELETE /v1/apps/{app}`: apps that are set without a file.
//!
//! In: an app's name, and its settings as JSON. Out: what [`Keeper`] keeps and knows. Secrets are never
//! shown. Bounds: those of `config::app_reader` and `apps::store`; an error tells [`FAULTS_MAX`] faults.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::about::About;
use super::auth::{Admitted, asks};
use super::body::{Sent, Wanted};
use super::error::ApiError;
use super::names;
use super::query::{Fields, NoFields, Pairs, QueryFields};
use super::schema::{BadRequest, BodyRefused, Refused};
use super::state::ApiState;
use crate::apps::keeper::{Removed, Set, Shown, Source};
use crate::apps::store::{BYTES_MAX, StoreError};
use crate::apps::stored::{Judged, NAMESPACES_ALL_MAX, StoredApp};
use crate::broker::BrokerError;
use crate::config::app_reader::{APPS_MAX, JSON_BYTES_MAX};
use crate::config::faults::{Fault, Faults};
use crate::http::error::ErrorAnswer;
use crate::tasks;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::form::Encoding;
use fanfare_protocol::ids::App;

/// Most faults that an error tells, and the longest text of one.
const FAULTS_MAX: usize = 20;
const FAULT_CHARS_MAX: usize = 300;
/// What stands in place of a secret.
const HIDDEN: &str = "***";
/// Why nothing is said of an app that is not known.
const UNREAD: &str = "which apps are stored was not read yet: try again";
/// About what an app takes in a list.
const ROW_BYTES: usize = 128;

/// The app that the path names.
#[derive(Debug)]
pub(super) struct AppName(App);

impl FromRequestParts<Arc<ApiState>> for AppName {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &Arc<ApiState>,
    ) -> Result<Self, ApiError> {
        let name = Path::<String>::from_request_parts(parts, &()).await;
        let app = name.ok().and_then(|Path(name)| App::new(&name).ok());
        app.map(Self).ok_or_else(|| {
            let text = "the name of an app is 1 to 32 of a-z 0-9 _ -";
            WireError::bad_request(text).into()
        })
    }
}

/// Which page.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AppsParams {
    /// `next` of the page before.
    #[param(nullable = false)]
    after: Option<String>,
    /// Apps in the page; 100 by default, at most 1,000 by default.
    #[param(nullable = false, minimum = 1)]
    limit: Option<u32>,
}

impl QueryFields for AppsParams {
    const NAMES: &'static [&'static str] = &["after", "limit"];

    fn read(pairs: &Pairs) -> Result<Self, WireError> {
        let name = |text: &str| App::new(text).ok().map(|app| app.to_string());
        Ok(Self {
            after: pairs.get("after", "the name of an app", name)?,
            limit: names::page_limit(pairs)?,
        })
    }
}

/// A page of apps.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppsPage {
    /// By name.
    pub apps: Vec<AppRow>,
    /// Continues the pages as `after`; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next: Option<String>,
}

/// An app in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppRow {
    /// Its name.
    pub app: String,
    /// From where its settings come: `node` (it is `default`), `file` or `api`.
    pub source: &'static str,
    /// Whether something is stored under its name. With `file` that is not in force.
    pub stored: bool,
    /// Whether what is stored has faults, so that what was before is in force, or nothing.
    pub faulty: bool,
}

/// An app.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppAnswer {
    /// The app.
    #[serde(flatten)]
    pub row: AppRow,
    /// What is stored, with `***` in place of secrets; absent where nothing is. What the file says is
    /// shown by `fanfare config show`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Object>)]
    pub settings: Option<serde_json::Value>,
    /// What is wrong with what is stored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub faults: Vec<String>,
}

/// An app that is set.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppSet {
    /// Its name.
    pub app: String,
    /// Whether what was stored differed.
    pub changed: bool,
}

/// An app that is gone.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppRemoved {
    /// Its name.
    pub app: String,
}

/// The settings of an app. Each section as `[apps.NAME]` of the file has it; what is left out is as in
/// the sections of the node.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"auth": {"anonymous": true}, "namespaces": {"chat": {"presence": true}}}))]
pub struct AppBody {
    /// `keys`, `issuers`, `issuer`, `audience`, `anonymous`, `authorize_connect`, `token_life_max_s`.
    #[schema(nullable = false, value_type = Option<Object>)]
    pub auth: Option<()>,
    /// Options by namespace.
    #[schema(nullable = false, value_type = Option<Object>)]
    pub namespaces: Option<()>,
    /// Options of its inboxes.
    #[schema(nullable = false, value_type = Option<Object>)]
    pub inbox: Option<()>,
    /// Options of its topic `@`.
    #[schema(nullable = false, value_type = Option<Object>)]
    pub everyone: Option<()>,
}

impl From<&Shown> for AppRow {
    fn from(shown: &Shown) -> Self {
        Self {
            app: shown.app.to_string(),
            source: match shown.source {
                Source::Node => "node",
                Source::File => "file",
                Source::Api => "api",
            },
            stored: shown.stored.is_some(),
            faulty: shown
                .stored
                .as_ref()
                .is_some_and(|one| !one.faults.is_empty()),
        }
    }
}

/// The apps that this node knows, those of its file and those that were stored.
#[utoipa::path(
    get, path = "/v1/apps", tag = "apps", operation_id = "list_apps",
    params(AppsParams),
    responses((status = 200, description = "A page of apps.", body = AppsPage), BadRequest, Refused)
)]
pub(super) async fn list_apps(
    Admitted { state, .. }: Admitted<asks::SeeApps>,
    wanted: Wanted,
    Fields(params): Fields<AppsParams>,
) -> Result<Response, ApiError> {
    let limit = names::within(params.limit, &state)? as usize;
    let all = state.keeper.list();
    let is_after = |shown: &&Shown| {
        let after = params.after.as_deref();
        after.is_none_or(|after| shown.app.as_str() > after)
    };
    let mut left = all.iter().filter(is_after);
    let apps: Vec<_> = left.by_ref().take(limit).map(AppRow::from).collect();
    let last = apps.last().map(|row| row.app.clone());
    let page = AppsPage {
        next: last.filter(|_| left.next().is_some()),
        apps,
    };
    let bytes = page.apps.len() * ROW_BYTES;
    Ok(tasks::heavy(bytes, || wanted.ok(&page)).await)
}

/// One app: from where it has its settings, and what is stored of it, without secrets.
#[utoipa::path(
    get, path = "/v1/apps/{app}", tag = "apps", operation_id = "get_app",
    params(("app" = String, Path, description = "The app.")),
    responses((status = 200, description = "The app.", body = AppAnswer), BadRequest, Refused)
)]
pub(super) async fn get_app(
    Admitted { state, .. }: Admitted<asks::SeeApps>,
    wanted: Wanted,
    AppName(app): AppName,
    Fields(NoFields): Fields<NoFields>,
) -> Result<Response, ApiError> {
    let shown = state.keeper.show(&app);
    let shown = shown.ok_or_else(|| match state.apps.are_read() {
        true => not_there(&app),
        false => WireError::new(ErrorCode::Unavailable, UNREAD),
    })?;
    let stored = shown.stored.as_ref();
    let bytes = stored.map_or(0, |stored| stored.json.len());
    let answered = tasks::heavy(bytes, || {
        wanted.ok(&AppAnswer {
            row: AppRow::from(&shown),
            settings: stored.and_then(without_secrets),
            faults: stored.map_or_else(Vec::new, |stored| stored.faults.clone()),
        })
    });
    Ok(answered.await)
}

/// Store the settings of an app, in place of those that were stored.
///
/// They are in force on the node that is asked when it answers, and soon on all others: within 5 seconds.
/// Sessions of the app are judged again. Safe to repeat. The body is JSON of at most 65,536 bytes; with
/// any fault in it nothing changes.
#[utoipa::path(
    put, path = "/v1/apps/{app}", tag = "apps", operation_id = "put_app",
    params(("app" = String, Path, description = "The app; not `default`.")),
    request_body = AppBody,
    responses(
        (status = 200, description = "It is stored.", body = AppSet),
        (status = 409, description = "It is `default`, or in the file.", body = ErrorAnswer),
        BodyRefused, Refused
    )
)]
pub(super) async fn put_app(
    admitted: Admitted<asks::SetApps>,
    wanted: Wanted,
    AppName(app): AppName,
    Fields(NoFields): Fields<NoFields>,
    sent: Sent,
) -> Result<Response, ApiError> {
    let admitted = admitted.again()?;
    let keeper = &admitted.state.keeper;
    refuse_default(&app)?;
    if keeper
        .show(&app)
        .is_some_and(|shown| shown.source == Source::File)
    {
        return Err(in_file(&app).into());
    }
    let read = tasks::heavy(sent.bytes.len(), || json_of(&admitted.state, &app, &sent));
    let (json, judged) = read.await?;
    let about = About::default().with("app", app.as_str());
    admitted.audit("put_app", about).await?;
    let set = keeper.set(&app, &json, judged).await;
    match set.map_err(broker_error)? {
        Set::Done(changed) => {
            if changed {
                ring(&admitted.state).await;
            }
            Ok(wanted.ok(&AppSet {
                app: app.to_string(),
                changed,
            }))
        }
        Set::InFile => Err(in_file(&app).into()),
        Set::TooMany(count) => {
            let text = format!(
                "{count} apps are stored, and at most {APPS_MAX} can be: remove one that is not used"
            );
            Err(WireError::new(ErrorCode::LimitExceeded, text).into())
        }
        Set::TooManyNamespaces(count) => {
            let text = format!(
                "all stored apps together would have {count} namespaces, and may have \
                 {NAMESPACES_ALL_MAX}: remove some that are not used, or an app"
            );
            Err(WireError::new(ErrorCode::LimitExceeded, text).into())
        }
        Set::TooLarge(bytes) => {
            let text = format!(
                "all stored apps together would have {bytes} bytes, and may have {BYTES_MAX}: write \
                 shorter settings, or remove an app that is not used"
            );
            Err(WireError::new(ErrorCode::LimitExceeded, text).into())
        }
    }
}

/// Remove an app that is stored. Its sessions are closed with 4002; what its topics retain stays until
/// its time is over.
#[utoipa::path(
    delete, path = "/v1/apps/{app}", tag = "apps", operation_id = "delete_app",
    params(("app" = String, Path, description = "The app; not `default`.")),
    responses(
        (status = 200, description = "It is gone.", body = AppRemoved),
        (status = 409, description = "It is `default`, or in the file.", body = ErrorAnswer),
        BadRequest, Refused
    )
)]
pub(super) async fn delete_app(
    admitted: Admitted<asks::SetApps>,
    wanted: Wanted,
    AppName(app): AppName,
    Fields(NoFields): Fields<NoFields>,
) -> Result<Response, ApiError> {
    let keeper = &admitted.state.keeper;
    refuse_default(&app)?;
    let about = About::default().with("app", app.as_str());
    admitted.audit("delete_app", about).await?;
    match keeper.remove(&app).await.map_err(broker_error)? {
        Removed::Done => {
            ring(&admitted.state).await;
            Ok(wanted.ok(&AppRemoved {
                app: app.to_string(),
            }))
        }
        Removed::InFile => Err(in_file(&app).into()),
        Removed::NotThere => Err(not_there(&app).into()),
    }
}

/// A bell that is lost costs some seconds: nodes look by themselves.
async fn ring(state: &ApiState) {
    let _ = state.directory.apps_set().await;
}

/// The JSON of a body, judged, in the form in which it is stored: one text for equal settings.
fn json_of(state: &ApiState, app: &App, sent: &Sent) -> Result<(String, Judged), WireError> {
    if sent.encoding != Encoding::Json {
        let text = "the settings of an app are read as application/json only";
        return Err(WireError::new(ErrorCode::UnsupportedMediaType, text));
    }
    if sent.bytes.len() > JSON_BYTES_MAX {
        let text = format!("the settings of an app have at most {JSON_BYTES_MAX} bytes");
        return Err(WireError::new(ErrorCode::TooLarge, text));
    }
    let judge = state.keeper.judge();
    let settings = judge.read_new(&sent.bytes);
    let settings = settings.map_err(|faults| WireError::bad_request(told(app, &faults)))?;
    let value = serde_json::from_slice::<serde_json::Value>(&sent.bytes);
    let value = value.map_err(|error| WireError::bad_request(format!("not JSON: {error}")))?;
    Ok((value.to_string(), judge.judged(Ok(settings))))
}

/// All faults, each with the path of what is wrong.
fn told(app: &App, faults: &Faults) -> String {
    let line = |fault: &Fault| {
        let Fault {
            place,
            what,
            remedy,
        } = fault;
        let text = match what.starts_with(place.as_str()) {
            true => format!("{what}; {remedy}"),
            false => format!("{place}: {what}; {remedy}"),
        };
        text.chars().take(FAULT_CHARS_MAX).collect::<String>()
    };
    let lines: Vec<_> = faults.0.iter().take(FAULTS_MAX).map(line).collect();
    let more = match faults.0.len() - lines.len() {
        0 => String::new(),
        more => format!(" | and {more} more"),
    };
    let count = match faults.0.len() {
        1 => "a fault".to_owned(),
        count => format!("{count} faults"),
    };
    format!(
        "the settings of the app `{app}` have {count}: {}{more}",
        lines.join(" | ")
    )
}

/// What is stored, without secrets; `None` where it is no JSON. Of what has faults no text is shown but
/// that of known sections without secrets: a secret may stand under a misspelt name.
fn without_secrets(stored: &StoredApp) -> Option<serde_json::Value> {
    fn hide(value: &mut serde_json::Value, is_open: bool) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, field) in fields {
                    match name.as_str() {
                        "secret" => *field = HIDDEN.into(),
                        _ => hide(field, is_open),
                    }
                }
            }
            serde_json::Value::Array(items) => {
                items.iter_mut().for_each(|item| hide(item, is_open));
            }
            serde_json::Value::String(text) if !is_open => HIDDEN.clone_into(text),
            _ => {}
        }
    }
    let mut value: serde_json::Value = serde_json::from_slice(&stored.json).ok()?;
    let is_well = stored.faults.is_empty();
    match &mut value {
        serde_json::Value::Object(sections) => {
            for (name, section) in sections {
                let is_open = ["namespaces", "inbox", "everyone"].contains(&name.as_str());
                hide(section, is_well || is_open);
            }
        }
        other => hide(other, is_well),
    }
    Some(value)
}

fn refuse_default(app: &App) -> Result<(), WireError> {
    if *app != App::default_app() {
        return Ok(());
    }
    let text = "the app `default` has the sections of the node ([auth], [namespaces], [inbox], \
                [everyone]), and cannot be set or removed";
    Err(WireError::new(ErrorCode::Conflict, text))
}

fn in_file(app: &App) -> WireError {
    let text = format!(
        "the app `{app}` is in the file of this node as [apps.{app}], and the file wins: change it \
         there, or take it out"
    );
    WireError::new(ErrorCode::Conflict, text)
}

fn not_there(app: &App) -> WireError {
    WireError::new(ErrorCode::NotFound, format!("there is no app `{app}`"))
}

fn broker_error(error: StoreError) -> BrokerError {
    match error {
        StoreError::Redis(error) => error.into(),
        StoreError::Unexpected => BrokerError::Unexpected(error.to_string()),
    }
}
