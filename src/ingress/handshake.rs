//! One HTTP request at the public door: is it a WebSocket, whose, and may it come in?
//!
//! In: a request head. Out: `101` with what the socket is for in [`Opened`], or an answer that says
//! why not. Order: form, Origin, whether the node can, room, rate, subprotocol, token; the echo endpoint
//! asks for neither of the last two. A token that a browser sent (query, cookie) is refused on the open socket, because
//! a browser cannot read a status.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::Either;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpStream;
use tower::{Service, ServiceBuilder};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;

use crate::protocol::close::CloseReason;
use crate::protocol::codec::Wire;
use crate::protocol::error::{ErrorCode, WireError};
use crate::protocol::ids::{NameError, Topic, User};
use crate::session::state::{Identity, Refusal, refused_token};
use crate::session::{self, Accepted, echo};

use super::admission::NotNow;
use super::answer::{Body, Refused, SOON, busy, json, refuse};
use super::door::{Door, Place};
use super::upgrade;

/// What a request that may come in leaves for the connection's task.
#[derive(Clone, Default)]
pub struct Opened(Rc<RefCell<Option<Open>>>);

impl Opened {
    /// Takes it, if there is something.
    #[must_use]
    pub fn take(&self) -> Option<Open> {
        self.0.borrow_mut().take()
    }
}

/// What waits for its socket.
pub struct Open {
    purpose: Purpose,
    place: Place,
}

enum Purpose {
    Session(Box<Entrance>),
    Echo,
}

/// What a request says of its session.
struct Entrance {
    wire: Wire,
    identity: Identity,
    refused: Option<Refusal>,
    waits: bool,
    app_pings: bool,
}

impl Open {
    /// The session, or the echo, on its socket and to its end. `early` is what came behind the
    /// request.
    pub fn run(
        self,
        stream: TcpStream,
        early: Bytes,
        door: &Door,
    ) -> impl Future<Output = ()> + use<> {
        let (services, scratch) = (door.services.clone(), door.scratch.clone());
        let run = match self.purpose {
            Purpose::Session(entrance) => {
                let accepted = Accepted {
                    stream,
                    early,
                    wire: entrance.wire,
                    identity: entrance.identity,
                    refused: entrance.refused,
                    waits: entrance.waits,
                    app_pings: entrance.app_pings,
                };
                let (worker, reads) = (door.worker.clone(), door.reads.clone());
                Either::Left(session::run(services, worker, reads, scratch, accepted))
            }
            // Boxed, so that it takes no room in the task of a session.
            Purpose::Echo => {
                let echo = echo::run(services.config.clone(), scratch, stream, early);
                Either::Right(Box::pin(echo))
            }
        };
        let place = self.place;
        run.map(move |()| drop(place))
    }
}

/// The stack of one connection.
pub fn service(
    door: Rc<Door>,
    opened: Opened,
) -> impl Service<
    Request<hyper::body::Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Body>, Infallible>>,
> + Clone {
    let timeout = door.handshake_timeout();
    ServiceBuilder::new()
        // Outermost, so that every answer has it: nothing here may be kept by a cache.
        .layer(SetResponseHeaderLayer::overriding(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        ))
        // A request may not hold its connection's place for longer than its head may take.
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            timeout,
        ))
        .service_fn(move |request: Request<hyper::body::Incoming>| {
            let response = answer(&door, &opened, &request);
            async move { Ok(response) }
        })
}

fn answer<B>(door: &Door, opened: &Opened, request: &Request<B>) -> Response<Body> {
    let has_body = request.headers().contains_key(header::TRANSFER_ENCODING)
        || request
            .headers()
            .get(header::CONTENT_LENGTH)
            .is_some_and(|l| l != "0");
    if has_body || request.headers().get_all(header::HOST).iter().count() != 1 {
        door.counters().refused_request.add_owned(1);
        let mut response = refuse(
            400,
            ErrorCode::BadRequest,
            "one Host and no body are expected",
        );
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    let path = request.uri().path();
    let known = ["/v1/connect", "/v1/route", "/health/live", "/health/ready"];
    let server = &door.services.config.server;
    let is_page = path == "/" && server.dev;
    let is_echo = path == "/echo" && server.echo;
    if !known.contains(&path) && !is_page && !is_echo {
        return refuse(
            404,
            ErrorCode::NotFound,
            "no such path on the public listener",
        );
    }
    if request.method() != Method::GET {
        let mut response = refuse(405, ErrorCode::BadRequest, "only GET is answered here");
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    match path {
        "/v1/connect" => upgraded(opened, connect(door, request)),
        "/echo" => upgraded(opened, echo(door, request)),
        "/v1/route" => route(door, request),
        "/health/live" => json(200, &serde_json::json!({ "status": "live" })),
        "/health/ready" => ready(door),
        _ => page(),
    }
}

/// The development page.
fn page() -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from_static(include_bytes!("page.html"))));
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, html);
    response
}

fn ready(door: &Door) -> Response<Body> {
    let reasons = door.readiness.borrow().clone();
    let (status, text) = if reasons.is_empty() {
        (200, "ready")
    } else {
        (503, "not ready")
    };
    json(
        status,
        &serde_json::json!({ "status": text, "reasons": reasons }),
    )
}

/// Where the caller's own user has its home.
fn route<B>(door: &Door, request: &Request<B>) -> Response<Body> {
    let query = Query::of(request);
    match identify(door, request, &query) {
        Ok((
            Identity {
                user: Some(user), ..
            },
            None,
        )) => {
            let topic = Topic::inbox(&door.services.app, &user);
            let view = door.services.view.borrow().clone();
            let home = view.home(&topic);
            let partition = topic.partition(door.services.config.redis.partitions);
            json(
                200,
                &serde_json::json!({
                    "node": home.node, "url": home.url, "partition": partition,
                }),
            )
        }
        _ => refuse(401, ErrorCode::Unauthorized, "a valid token is needed"),
    }
}

type Upgraded = Result<(Open, Response<Body>), Refused>;

fn upgraded(opened: &Opened, result: Upgraded) -> Response<Body> {
    match result {
        Ok((open, response)) => {
            *opened.0.borrow_mut() = Some(open);
            response
        }
        Err(response) => {
            let status = response.status().as_u16();
            tracing::debug!(event = "handshake_refused", status, "handshake refused");
            *response
        }
    }
}

/// A session.
fn connect<B>(door: &Door, request: &Request<B>) -> Upgraded {
    let counters = door.counters();
    let (place, mut response) = admit(door, request)?;
    let (wire, protocol) =
        subprotocol(request.headers()).inspect_err(|_| counters.refused_request.add_owned(1))?;
    let query = Query::of(request);
    let (identity, refused) = identify(door, request, &query)
        .inspect_err(|_| counters.refused_unauthorized.add_owned(1))?;
    if let Some(protocol) = protocol {
        let protocol = HeaderValue::from_static(protocol);
        let headers = response.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let purpose = Purpose::Session(Box::new(Entrance {
        wire,
        identity,
        refused,
        waits: query.waits,
        app_pings: query.app_pings,
    }));
    Ok((Open { purpose, place }, response))
}

/// The echo endpoint, for whoever asks.
fn echo<B>(door: &Door, request: &Request<B>) -> Upgraded {
    let (place, response) = admit(door, request)?;
    let purpose = Purpose::Echo;
    Ok((Open { purpose, place }, response))
}

/// What every WebSocket has to pass: its form, its Origin, and whether there is room.
fn admit<B>(door: &Door, request: &Request<B>) -> Result<(Place, Response<Body>), Refused> {
    let counters = door.counters();
    let accept =
        upgrade::accept_key(request).inspect_err(|_| counters.refused_request.add_owned(1))?;
    if !origin_allowed(door, request.headers()) {
        counters.refused_origin.add_owned(1);
        return Err(refuse(
            403,
            ErrorCode::Forbidden,
            "this Origin is not on the allow-list",
        )
        .into());
    }
    if door.is_leaving() {
        counters.refused_draining.add_owned(1);
        return Err(busy("this node is leaving; connect again", SOON).into());
    }
    if !door.broker_is_up() {
        counters.refused_unavailable.add_owned(1);
        return Err(busy("the broker is not available; connect again", SOON).into());
    }
    let Some(place) = door.room.take() else {
        counters.refused_capacity.add_owned(1);
        return Err(busy("this node is full; connect again", SOON).into());
    };
    // Behind the place, so that a node that is full keeps its tokens.
    door.admission.take(Instant::now()).map_err(|not_now| {
        let (counter, text, wait) = match not_now {
            NotNow::Rate(wait) => (&counters.refused_rate, "too many connect at once", wait),
            NotNow::Memory(wait) => (&counters.refused_memory, "memory is short", wait),
        };
        counter.add_owned(1);
        busy(&format!("{text}; connect again"), wait)
    })?;
    Ok((place, upgrade::switching(accept)))
}

/// Browsers always send an Origin; a cookie is only believed together with one of the list.
fn origin_allowed(door: &Door, headers: &HeaderMap) -> bool {
    let auth = &door.services.config.auth;
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => auth
            .cookie
            .as_ref()
            .is_none_or(|name| cookie(headers, name).is_none()),
        (Some(_), Some(_)) => false,
        (Some(origin), None) => {
            auth.origins.is_empty()
                || origin
                    .to_str()
                    .is_ok_and(|o| auth.origins.iter().any(|a| a == o))
        }
    }
}

/// The first offered form that is spoken. None offered: JSON, and none is echoed.
fn subprotocol(headers: &HeaderMap) -> Result<(Wire, Option<&'static str>), Refused> {
    let mut offered = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .peekable();
    if offered.peek().is_none() {
        return Ok((Wire::Json, None));
    }
    offered
        .find_map(|name| match name {
            "fanfare.v1.json" => Some((Wire::Json, Some("fanfare.v1.json"))),
            "fanfare.v1.msgpack" => Some((Wire::MsgPack, Some("fanfare.v1.msgpack"))),
            _ => None,
        })
        .ok_or_else(|| {
            let text = "the subprotocols are fanfare.v1.json and fanfare.v1.msgpack";
            refuse(400, ErrorCode::BadRequest, text).into()
        })
}

/// Who the request says it is. A token in the header that is no good is refused here; one in
/// the query or the cookie is returned, to be refused on the open socket.
fn identify<B>(
    door: &Door,
    request: &Request<B>,
    query: &Query,
) -> Result<(Identity, Option<Refusal>), Refused> {
    let services = &door.services;
    let verify = |token: &str| services.verifier.session(token, SystemTime::now());
    if let Some(value) = request.headers().get(header::AUTHORIZATION) {
        let refused = |text: &str| Refused::from(refuse(401, ErrorCode::Unauthorized, text));
        let token = value.to_str().ok().and_then(bearer);
        let token = token.ok_or_else(|| refused("Authorization must be `Bearer TOKEN`"))?;
        let claims = verify(token).map_err(|error| refused(&error.to_string()))?;
        return Ok((identity(claims), None));
    }
    let from_cookie = || {
        let name = services.config.auth.cookie.as_ref()?;
        cookie(request.headers(), name)
    };
    if let Some(token) = query.token.clone().or_else(from_cookie) {
        return Ok(match verify(&token) {
            Ok(claims) => (identity(claims), None),
            Err(error) => (Identity::default(), Some(refused_token(error))),
        });
    }
    if let Some(name) = query.user.as_ref().filter(|_| services.config.server.dev) {
        return Ok(match User::new(name) {
            Ok(user) => (
                Identity {
                    user: Some(user),
                    claims: None,
                },
                None,
            ),
            Err(error) => (Identity::default(), Some(refused_user(error))),
        });
    }
    Ok((Identity::default(), None))
}

/// `?user=` that is no user name: a browser cannot read a status, so it is told inside.
fn refused_user(error: NameError) -> Refusal {
    Refusal {
        error: WireError::new(ErrorCode::Unauthorized, format!("`user`: {error}")),
        end: Some(CloseReason::Unauthorized),
    }
}

fn identity(claims: crate::auth::Claims) -> Identity {
    Identity {
        user: Some(claims.user.clone()),
        claims: Some(claims),
    }
}

/// The token of `Bearer TOKEN`. The scheme's case is free (RFC 9110, section 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("Bearer")
        .then_some(token.trim())
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then(|| value.to_owned())
        })
}

/// The parameters that the public door knows.
#[derive(Default)]
struct Query {
    token: Option<String>,
    user: Option<String>,
    waits: bool,
    app_pings: bool,
}

impl Query {
    fn of<B>(request: &Request<B>) -> Self {
        let mut query = Self::default();
        let text = request.uri().query().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "token" => query.token = Some(value.into_owned()),
                "user" => query.user = Some(value.into_owned()),
                "wait" => query.waits = value == "1",
                "heartbeat" => query.app_pings = value == "app",
                _ => {}
            }
        }
        query
    }
}
