//! The HTTP API, on its own listener: publish, see what is live, health and metrics.
//!
//! In: requests of backends and probes. Out: publications to the broker, questions to the broker
//! and to the node ([`state::Directory`]). Owns no state but the budget of request bodies.
//! Bounds: connections ([`serve`]), a body's length and all bodies together ([`body`]), targets
//! and items ([`publish`], [`queue`]). Every route is registered together with its documentation, so the
//! router and the OpenAPI document cannot differ ([`openapi`]).
//!
//! A request passes, from the outside in: [`Api::answer`] (checks it, counts it, catches a panic, and
//! writes an error in the caller's form), the router, and for `/v1/` the key and the lifecycle
//! ([`auth::Admitted`]).

use std::any::Any;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::handler::Handler as _;
use axum::http::{HeaderValue, Method, Request, Uri, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http;
use crate::http::error::HttpError;
use crate::http::media::Form;
use crate::telemetry::labels::{ApiRefusal, Route};
use fanfare_protocol::error::{ErrorCode, WireError};

mod about;
pub mod apps;
mod at_most;
pub mod audit;
pub mod auth;
pub mod body;
pub mod body_budget;
mod body_fields;
mod counting;
pub mod error;
mod guesses;
pub mod health;
pub mod history;
pub mod keys;
mod names;
pub mod nodes;
pub mod openapi;
pub mod performance;
pub mod publication;
pub mod publish;
mod query;
pub mod queue;
pub mod revoke;
mod schema;
pub mod serve;
pub mod state;
pub mod topics;
mod trace;
pub mod users;

use auth::{Peer, WrongKey};
use error::ApiError;
use guesses::Guesses;
use state::ApiState;

/// Every call with its documentation.
fn documented_routes() -> OpenApiRouter<Arc<ApiState>> {
    OpenApiRouter::with_openapi(openapi::Frame::openapi())
        // These need a key: their handlers begin with `Admitted`.
        .routes(routes!(publish::publish))
        .routes(routes!(publish::batch))
        .routes(routes!(queue::add::enqueue, queue::depth::get_queue))
        .routes(routes!(queue::dead::list_dead, queue::redrive::drop_dead))
        .routes(routes!(queue::redrive::redrive_dead))
        .routes(routes!(topics::list_topics))
        .routes(routes!(topics::get_topic))
        .routes(routes!(topics::get_history))
        .routes(routes!(topics::get_presence))
        .routes(routes!(users::get_user))
        .routes(routes!(users::get_inbox))
        .routes(routes!(users::disconnect))
        .routes(routes!(revoke::revoke_user))
        .routes(routes!(revoke::revoke_tokens))
        .routes(routes!(nodes::list_nodes))
        .routes(routes!(performance::get_performance))
        .routes(routes!(nodes::get_route))
        .routes(routes!(nodes::drain_node))
        .routes(routes!(audit::get_audit))
        .routes(routes!(apps::list_apps))
        .routes(routes!(apps::get_app, apps::put_app, apps::delete_app))
        // These need none.
        .merge(probe_routes())
        .routes(routes!(openapi::openapi))
}

/// The calls by their paths.
pub fn router(state: Arc<ApiState>) -> Router {
    routed(documented_routes(), state)
}

fn routed(routes: OpenApiRouter<Arc<ApiState>>, state: Arc<ApiState>) -> Router {
    let (routes, _document) = routes.split_for_parts();
    routes
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state)
}

/// The calls that tell how the node does, and change nothing.
fn probe_routes() -> OpenApiRouter<Arc<ApiState>> {
    OpenApiRouter::new()
        .routes(routes!(health::health))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::detailed))
        .routes(routes!(health::metrics))
}

/// The API as a service: all of it, or its probes alone.
#[derive(Clone)]
pub struct Api {
    state: Arc<ApiState>,
    router: TowerToHyperService<Router>,
    has_calls: bool,
    guesses: Arc<Guesses>,
    peer: Peer,
}

impl Api {
    /// Over what a node hands to it.
    #[must_use]
    pub fn new(state: ApiState) -> Self {
        Self::over(Arc::new(state), documented_routes(), true)
    }

    /// Metrics and health alone, over the same.
    #[must_use]
    pub fn probes(&self) -> Self {
        Self::over(Arc::clone(&self.state), probe_routes(), false)
    }

    fn over(state: Arc<ApiState>, routes: OpenApiRouter<Arc<ApiState>>, has_calls: bool) -> Self {
        Self {
            router: TowerToHyperService::new(routed(routes, Arc::clone(&state))),
            state,
            has_calls,
            guesses: Arc::default(),
            peer: Peer(None),
        }
    }

    /// The same for the connection of this peer.
    #[must_use]
    pub fn to_peer(&self, peer: IpAddr) -> Self {
        Self {
            peer: Peer(Some(peer)),
            ..self.clone()
        }
    }

    /// Checks the request's form, counts it, and writes an error in the form that the caller reads.
    pub async fn answer<B>(&self, mut request: Request<B>) -> Response
    where
        B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send + Unpin + 'static,
    {
        let route = self.route_of(&request);
        let counting = counting::Counting::begin(&self.state, route, request.method());
        let traced = trace::begin(&self.state, route, &mut request);
        let form = Form::wanted(request.headers());
        let is_chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
        let mut response = match http::request::check(&request) {
            Ok(()) => {
                // A panic in a handler is a 500 of that request and not the end of its connection,
                // on which other requests may wait.
                let request = request.map(|body| Body::new(counting.arriving(body)));
                let routed = AssertUnwindSafe(self.route(request));
                routed.catch_unwind().await.unwrap_or_else(panicked)
            }
            Err(error) => ApiError(error).into_response(),
        };
        self.hold_guess(&mut response).await;
        let mut code = response.extensions_mut().remove::<ErrorCode>();
        if let Some(error) = response.extensions_mut().remove::<HttpError>() {
            code = Some(error.error.code);
            let rendered = error.response(form).map(Body::from);
            // The router knows which methods a path has.
            let said = std::mem::replace(&mut response, rendered);
            if let Some(methods) = said.headers().get(header::ALLOW) {
                let headers = response.headers_mut();
                headers.insert(header::ALLOW, methods.clone());
            }
        }
        if is_chunked {
            // The parser takes a length beside chunks away without a word; the connection must end
            // behind such a request (RFC 9112, section 6.1), which cannot be told from others here.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        // Nothing here may be kept by a cache.
        let no_store = HeaderValue::from_static("no-store");
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, no_store);
        trace::end(traced, response.status());
        counting.answered(response.status(), code);
        response
    }

    /// Probes alone are no calls, whatever path is asked for.
    fn route_of<B>(&self, request: &Request<B>) -> Route {
        let route = Route::at(request.uri().path());
        let is_here = self.has_calls || route.is_probe();
        if is_here { route } else { Route::Other }
    }

    /// An address that came with too many wrong keys is told so, in place of that this one is wrong, and
    /// waits for that until it has its turn.
    async fn hold_guess(&self, response: &mut Response) {
        if response.extensions_mut().remove::<WrongKey>().is_none() {
            return;
        }
        let Err(too_many) = self.guesses.wrong(self.peer.0, Instant::now()) else {
            return;
        };
        if too_many.is_first {
            let address = self.peer.0.map(|peer| peer.to_string());
            tracing::warn!(
                event = "keys_guessed",
                address,
                "too many wrong API keys came from this address; it waits for each further answer"
            );
        }
        let refused = &self.state.metrics.api.refused;
        refused.of(ApiRefusal::TooMany).add(1);
        let mut error = WireError::new(
            ErrorCode::RateLimited,
            "too many wrong API keys from this address; a right one is taken at any time",
        );
        error.retry_after_ms = u64::try_from(too_many.forgotten_in.as_millis()).ok();
        // Nothing else is to be asked on such a connection.
        let error = HttpError::from(error).closing();
        *response = ApiError(error).into_response();
        tokio::time::sleep(too_many.turn_in).await;
    }

    async fn route(&self, mut request: Request<Body>) -> Response {
        // Most calls are publications, and the way through the router costs a fifth of all else
        // that is done for one: they go straight to the handler that it would find.
        let is_publication =
            request.method() == Method::POST && request.uri().path() == publish::PATH;
        if self.has_calls && is_publication {
            let state = Arc::clone(&self.state);
            return publish::publish.call(request, state).await;
        }
        // Publications are in no audit, so nothing is allocated for it where most calls are.
        request.extensions_mut().insert(self.peer);
        let Ok(response) = self.router.call(request).await;
        response
    }
}

/// The path at which sessions connect to a public listener.
const CONNECT: &str = "/v1/connect";

async fn not_found(State(state): State<Arc<ApiState>>, uri: Uri) -> ApiError {
    let takes_sessions = state.config.server.listen.is_some();
    let text = match (uri.path() == CONNECT, takes_sessions) {
        (false, _) => "no such path; see /openapi.json",
        (true, true) => "sessions connect to the public listener (server.listen), not to the API",
        (true, false) => {
            "this node takes no sessions (server.listen is none); connect to one that does"
        }
    };
    WireError::new(ErrorCode::NotFound, text).into()
}

async fn method_not_allowed() -> ApiError {
    WireError::new(
        ErrorCode::MethodNotAllowed,
        "this path has another method; see /openapi.json",
    )
    .into()
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(
        event = "api_handler_panicked",
        panic = text,
        "a handler of the API panicked"
    );
    ApiError::from(WireError::new(ErrorCode::Internal, "internal error")).into_response()
}

/// Unix milliseconds of this node's clock. A clock before 1970 reads as 0.
fn unix_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
