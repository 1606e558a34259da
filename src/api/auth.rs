//! Who calls the API: the client whose key came, for which app, and whether it may ask for this at all.
//!
//! In: the headers of a request and where the node stands in its life. Out: what handlers read
//! ([`Admitted`]), or 400, 401, 403, 404, 503. A handler says by a type ([`asks`]) what it is for, so
//! that none is without a question to the judge, and gets topics only by [`Admitted::topic`], which
//! asks of each. Health, metrics and the OpenAPI document ask for no admission.

use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::state::ApiState;
use crate::broker::idempotency::Publisher;
use crate::config::api_clients::{ApiClient, KeyHash};
use crate::http;
use crate::http::error::HttpError;
use crate::lifecycle::Lifecycle;
use crate::policy::calls::{self, Refused};
use crate::policy::{self, Denied, OnTopic, Overall, Subject};
use crate::telemetry::labels::ApiRefusal;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::ids::{App, Topic, User};

/// The header by which a client of all apps says of which one it speaks.
pub const APP_HEADER: &str = "fanfare-app";

/// What a handler is for, as the judge knows it.
pub(super) trait Asks: Send + Sync {
    /// Whether this client may ask for it at all.
    fn begin(subject: Subject<'_>) -> Result<(), Denied>;
}

/// What is asked for with a topic.
pub(super) trait AsksOfTopic: Asks {
    /// With each of them.
    const OPERATION: OnTopic;
}

/// One type for each thing that is asked for.
pub(super) mod asks {
    use super::{Asks, AsksOfTopic, Denied, OnTopic, Overall, Subject, policy};

    macro_rules! asks {
        (of a topic: $($of_topic:ident)+; of all: $($overall:ident)+) => {
            $(pub(in crate::api) struct $of_topic;
            impl Asks for $of_topic {
                fn begin(subject: Subject<'_>) -> Result<(), Denied> {
                    policy::may_begin(subject, Self::OPERATION)
                }
            }
            impl AsksOfTopic for $of_topic {
                const OPERATION: OnTopic = OnTopic::$of_topic;
            })+
            $(pub(in crate::api) struct $overall;
            impl Asks for $overall {
                fn begin(subject: Subject<'_>) -> Result<(), Denied> {
                    policy::may_overall(subject, Overall::$overall)
                }
            })+
        };
    }

    asks! {
        of a topic: Publish Presence History Home Inspect Enqueue SeeUser Disconnect RevokeUser;
        of all: ListTopics SeeQueue SeeDead RedriveDead DropDead RevokeTokens SeeNodes SeePerformance Drain SeeAudit SeeApps SetApps
    }
}

/// A client with its key, and the app that it speaks of.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) client: Arc<ApiClient>,
    pub(super) app: App,
    /// There is no other app.
    is_only_app: bool,
    /// By which its client is found again.
    key: KeyHash,
    /// From where it calls, where that is known.
    pub(super) peer: Option<IpAddr>,
}

impl Caller {
    fn subject(&self) -> Subject<'_> {
        Subject::Client {
            app: &self.app,
            client: &self.client,
            is_only_app: self.is_only_app,
        }
    }

    /// Whose its idempotency keys are.
    pub(super) fn publisher(&self) -> Publisher<'_> {
        Publisher::Api {
            app: &self.app,
            client: &self.client.name,
        }
    }

    /// Whether it may do this with a topic.
    ///
    /// # Errors
    /// What it is told.
    pub(super) fn may(
        &self,
        state: &ApiState,
        operation: OnTopic,
        topic: &Topic,
    ) -> Result<(), WireError> {
        let settings = state.apps.of_topic(topic);
        let namespace = settings.namespace(topic);
        let judged = policy::may(self.subject(), operation, topic, namespace);
        judged.map_err(|denied| self.told(state, denied, topic.namespace()))
    }

    /// Whether it may do this, which is about no topic or about all.
    ///
    /// # Errors
    /// What it is told.
    pub(super) fn may_overall(
        &self,
        state: &ApiState,
        operation: Overall,
    ) -> Result<(), WireError> {
        let judged = policy::may_overall(self.subject(), operation);
        judged.map_err(|denied| self.told(state, denied, ""))
    }

    /// What it is told that may not do something, which is counted.
    fn told(&self, state: &ApiState, denied: Denied, namespace: &str) -> WireError {
        let name = &self.client.name;
        let (reason, text) = match denied {
            Denied::NoPresence => {
                let text = format!("namespace `{namespace}` keeps no presence");
                return WireError::bad_request(text);
            }
            Denied::NoScope(scope) => {
                let scope = scope.word();
                let text = format!(
                    "the API client `{name}` has not the scope `{scope}`, which this call needs"
                );
                (ApiRefusal::Scope, text)
            }
            Denied::OfAllTopics => {
                let text = format!(
                    "the API client `{name}` is bound to its `topics`, and this call is about all of them"
                );
                (ApiRefusal::Topic, text)
            }
            Denied::OfAllApps => {
                let text = format!(
                    "the API client `{name}` is of one app, and this call is about all apps: it needs \
                     a client with app = \"*\""
                );
                (ApiRefusal::App, text)
            }
            // What only sessions are told stands here for the day that a client is.
            Denied::NotOfClient
            | Denied::OfAnotherApp
            | Denied::NoMembers
            | Denied::ApiOnly
            | Denied::OfAnother
            | Denied::NotPermitted => {
                let text = format!("the `topics` of the API client `{name}` do not allow this one");
                (ApiRefusal::Topic, text)
            }
        };
        state.metrics.api.refused.of(reason).add(1);
        tell_refused(state, name, self.peer, &text);
        WireError::forbidden(text)
    }
}

/// What handlers read, for a call with the right key while the node runs. Every call below `/v1/`
/// takes this first: a caller without a key learns nothing of what else is wrong.
pub(super) struct Admitted<A> {
    pub(super) state: Arc<ApiState>,
    pub(super) caller: Caller,
    pub(super) asks: PhantomData<A>,
}

impl<A: AsksOfTopic> Admitted<A> {
    /// The topic of this name in the caller's app, if it may do with it what it asks.
    ///
    /// # Errors
    /// No name of a topic, or one that it may not.
    pub(super) fn topic(&self, name: &str) -> Result<Topic, WireError> {
        let topic = Topic::new(&self.caller.app, name)?;
        self.caller.may(&self.state, A::OPERATION, &topic)?;
        Ok(topic)
    }

    /// The inbox of this user, if the caller may do with the user what it asks.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn inbox(&self, user: &User) -> Result<Topic, WireError> {
        let topic = Topic::inbox(&self.caller.app, user);
        self.caller.may(&self.state, A::OPERATION, &topic)?;
        Ok(topic)
    }
}

impl<A: Asks> Admitted<A> {
    /// The same, as its client is now: every handler with a body asks this when the body has come,
    /// because a key may have been taken out, or have ended, while it was on its way.
    ///
    /// # Errors
    /// The key is no longer valid, or its client may not ask for this any more.
    pub(super) fn again(mut self) -> Result<Self, ApiError> {
        let state = &self.state;
        let refused = |error: HttpError, reason: ApiRefusal| {
            state.metrics.api.refused.of(reason).add(1);
            ApiError(error)
        };
        let Some(client) = state.keys.of_hash(&self.caller.key) else {
            let text = "this API key was valid when the request began, and is not any more";
            let error = HttpError::new(ErrorCode::Unauthorized, text).presented();
            return Err(refused(error, ApiRefusal::WrongKey));
        };
        let (apps, default) = (state.apps.all(), App::default_app());
        let is_known = |app: &App| apps.contains_key(app);
        let app = Some(self.caller.app.clone());
        let judged = calls::app_of(&client, app, (&default, is_known), SystemTime::now());
        if let Err(why) = judged {
            let (error, reason) = not_in_app(state, &client, why);
            return Err(refused(error, reason));
        }
        self.caller.client = client;
        self.caller.is_only_app = is_only_app(state);
        let begun = A::begin(self.caller.subject());
        begun.map_err(|denied| self.caller.told(&self.state, denied, ""))?;
        Ok(self)
    }
}

impl<A: Asks> FromRequestParts<Arc<ApiState>> for Admitted<A> {
    type Rejection = NotAdmitted;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<ApiState>,
    ) -> Result<Self, NotAdmitted> {
        let mut caller = known_caller(state, &parts.headers)?;
        caller.peer = parts.extensions.get::<Peer>().and_then(|peer| peer.0);
        require_running(state).map_err(|error| NotAdmitted::of(error.into()))?;
        A::begin(caller.subject()).map_err(|denied| {
            let error = HttpError::from(caller.told(state, denied, ""));
            NotAdmitted::of(unread(error, &parts.headers))
        })?;
        Ok(Self {
            state: Arc::clone(state),
            caller,
            asks: PhantomData,
        })
    }
}

/// Why a call is not let in.
pub(super) struct NotAdmitted {
    error: HttpError,
    is_guess: bool,
}

/// Who has the other end of a connection, where that is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) Option<IpAddr>);

/// Says of an answer that a wrong key came; [`super::Api::answer`] knows from where.
#[derive(Debug, Clone, Copy)]
pub(super) struct WrongKey;

impl NotAdmitted {
    fn of(error: HttpError) -> Self {
        Self {
            error,
            is_guess: false,
        }
    }
}

impl IntoResponse for NotAdmitted {
    fn into_response(self) -> Response {
        let mut response = ApiError(self.error).into_response();
        if self.is_guess {
            response.extensions_mut().insert(WrongKey);
        }
        response
    }
}

/// Whose key came, and for which app.
fn known_caller(state: &ApiState, headers: &HeaderMap) -> Result<Caller, NotAdmitted> {
    let (error, reason) = match http::request::bearer(headers) {
        Ok(Some(key)) => match state.keys.find(key) {
            Some(known) => return in_app(state, known, headers),
            None => {
                let text = "this is no valid API key";
                let error = HttpError::new(ErrorCode::Unauthorized, text).presented();
                (error, ApiRefusal::WrongKey)
            }
        },
        Ok(None) => {
            let text = "a valid API key is needed: Authorization: Bearer KEY";
            (
                HttpError::new(ErrorCode::Unauthorized, text),
                ApiRefusal::NoKey,
            )
        }
        Err(several) => (several, ApiRefusal::WrongKey),
    };
    let is_guess = reason == ApiRefusal::WrongKey;
    let error = refused(state, error, reason, headers);
    Err(NotAdmitted { error, is_guess })
}

fn in_app(
    state: &ApiState,
    (key, client): (KeyHash, Arc<ApiClient>),
    headers: &HeaderMap,
) -> Result<Caller, NotAdmitted> {
    let (apps, default) = (state.apps.all(), App::default_app());
    let judged = named_app(headers).and_then(|named| {
        let is_known = |app: &App| apps.contains_key(app);
        let judged = calls::app_of(&client, named, (&default, is_known), SystemTime::now());
        judged.map_err(|why| not_in_app(state, &client, why))
    });
    match judged {
        Ok(app) => Ok(Caller {
            client,
            app,
            is_only_app: is_only_app(state),
            key,
            peer: None,
        }),
        Err((error, reason)) => {
            tell_refused(state, &client.name, None, &error.error.message);
            Err(NotAdmitted::of(refused(state, error, reason, headers)))
        }
    }
}

/// The app that the header names.
fn named_app(headers: &HeaderMap) -> Result<Option<App>, (HttpError, ApiRefusal)> {
    let mut values = headers.get_all(APP_HEADER).iter();
    let (Some(value), other) = (values.next(), values.next()) else {
        return Ok(None);
    };
    let name = value.to_str().ok().filter(|_| other.is_none());
    let app = name.and_then(|name| App::new(name).ok());
    app.map(Some).ok_or_else(|| {
        let text = "`Fanfare-App` must be there once and name an app: 1 to 32 of a-z 0-9 _ -";
        let error = HttpError::new(ErrorCode::BadRequest, text);
        (error, ApiRefusal::App)
    })
}

/// Whether there is no app but `default`, as far as that can be said.
fn is_only_app(state: &ApiState) -> bool {
    state.apps.are_read() && state.apps.all().len() == 1
}

fn not_in_app(state: &ApiState, client: &ApiClient, why: Refused) -> (HttpError, ApiRefusal) {
    let name = &client.name;
    match why {
        Refused::Expired => {
            let text = format!("the keys of the API client `{name}` have expired");
            let error = HttpError::new(ErrorCode::Unauthorized, text).presented();
            (error, ApiRefusal::Expired)
        }
        Refused::OtherApp => {
            let text =
                format!("the API client `{name}` is of another app than `Fanfare-App` names");
            (HttpError::new(ErrorCode::Forbidden, text), ApiRefusal::App)
        }
        Refused::UnknownApp(app) if !state.apps.are_read() => {
            let text = format!(
                "whether there is an app `{}` is not known yet: try again",
                app.as_str()
            );
            (
                HttpError::new(ErrorCode::Unavailable, text),
                ApiRefusal::App,
            )
        }
        Refused::UnknownApp(app) => {
            let text = format!("there is no app `{}`", app.as_str());
            (HttpError::new(ErrorCode::NotFound, text), ApiRefusal::App)
        }
    }
}

/// Tells the operator that a client is refused: once a minute of each.
fn tell_refused(state: &ApiState, client: &str, peer: Option<IpAddr>, reason: &str) {
    if state.keys.tells_refusal(client, Instant::now()) {
        let address = peer.map_or_else(String::new, |peer| peer.to_string());
        tracing::warn!(
            event = "call_refused",
            client,
            address,
            reason,
            "a client of the API was refused; its other refusals of this minute are not told"
        );
    }
}

/// Counts a refusal, tells it in the log, and ends the connection behind it where that must be.
fn refused(
    state: &ApiState,
    answer: HttpError,
    reason: ApiRefusal,
    headers: &HeaderMap,
) -> HttpError {
    state.metrics.api.refused.of(reason).add(1);
    if answer.error.code == ErrorCode::Unauthorized {
        state.metrics.control.api_unauthorized.add(1);
    }
    tracing::debug!(event = "api_key_refused", reason = %answer.error.message, "a call was refused");
    unread(answer, headers)
}

/// A body that is not read would be taken for the next request.
fn unread(error: HttpError, headers: &HeaderMap) -> HttpError {
    match http::request::has_body(headers) {
        true => error.closing(),
        false => error,
    }
}

/// Whether a request has a valid key; it is refused, or not, by whoever handles it.
pub(super) fn has_key(state: &ApiState, headers: &HeaderMap) -> bool {
    let Ok(Some(key)) = http::request::bearer(headers) else {
        return false;
    };
    let found = state.keys.find(key);
    found.is_some_and(|(_, client)| !calls::is_expired(&client, SystemTime::now()))
}

/// 503 while there is no node behind the call.
fn require_running(state: &ApiState) -> Result<(), WireError> {
    match state.directory.lifecycle() {
        Lifecycle::Ready | Lifecycle::Draining => Ok(()),
        Lifecycle::Starting => Err(WireError::unavailable("this node is starting")),
        Lifecycle::Closing | Lifecycle::Stopped => {
            Err(WireError::unavailable("this node is stopping"))
        }
    }
}
