//! The handshake of one WebSocket: is it one, from where, and may it come in?
//!
//! In: a request head for a path that opens one. Out: `101` with what the socket is for in
//! [`Opened`], or why not. Order: form, Origin, whether the node can, room, rate, subprotocol, token;
//! the echo endpoint asks for neither of the last two. A token that a browser sent (query, cookie) is
//! refused on the open socket, because a browser cannot read a status.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::Either;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response};

use crate::http::error::{HttpError, SOON};
use crate::session::{self as sessions, Accepted, echo as echoes};
use crate::worker::stream::Stream;
use fanfare_protocol::error::ErrorCode;
use fanfare_protocol::form::{Encoding, WireForm};

use super::admission::NotNow;
use super::credentials::{Caller, Credential, Query, Source, identify};
use super::listener_state::{ConnectionPermit, PublicState};
use super::upgrade;

/// What a request that may come in leaves for the connection's task.
#[derive(Clone)]
pub struct Opened {
    open: Rc<RefCell<Option<Open>>>,
    /// When the connection was accepted, for its first request; for a later one, when its head came,
    /// however long the connection, a balancer's perhaps, has been there.
    begun_at: Rc<Cell<Instant>>,
    is_used: Rc<Cell<bool>>,
}

impl Opened {
    /// Nothing yet, of a connection that was accepted then.
    #[must_use]
    pub fn new(accepted_at: Instant) -> Self {
        Self {
            open: Rc::default(),
            begun_at: Rc::new(Cell::new(accepted_at)),
            is_used: Rc::default(),
        }
    }

    /// The head of a request is there.
    pub fn asked(&self) {
        if self.is_used.replace(true) {
            self.begun_at.set(Instant::now());
        }
    }

    /// Takes it, if there is something.
    #[must_use]
    pub fn take(&self) -> Option<Open> {
        self.open.borrow_mut().take()
    }
}

/// What waits for its socket.
pub struct Open {
    purpose: Purpose,
    place: ConnectionPermit,
}

enum Purpose {
    Session(Box<Entrance>),
    Echo,
}

/// What a request says of its session.
struct Entrance {
    form: WireForm,
    caller: Caller,
    waits: bool,
    app_pings: bool,
    disconnects: u64,
    accepted_at: Instant,
}

impl Open {
    /// The session, or the echo, on its socket and to its end. `connection` is the place that the
    /// socket has, `early` what came behind the request.
    pub fn run(
        self,
        stream: Stream,
        early: Bytes,
        connection: ConnectionPermit,
        state: &PublicState,
    ) -> impl Future<Output = ()> + use<> {
        let (services, scratch) = (state.services.clone(), state.scratch.clone());
        let run = match self.purpose {
            Purpose::Session(entrance) => {
                let accepted = Accepted {
                    stream,
                    early,
                    form: entrance.form,
                    app: entrance.caller.app,
                    identity: entrance.caller.identity,
                    refused: entrance.caller.refused,
                    waits: entrance.waits,
                    app_pings: entrance.app_pings,
                    disconnects: entrance.disconnects,
                    accepted_at: entrance.accepted_at,
                };
                let (worker, reads) = (state.worker.clone(), state.reads.clone());
                Either::Left(sessions::run(services, worker, reads, scratch, accepted))
            }
            // Boxed, so that it takes no room in the task of a session.
            Purpose::Echo => {
                let echo = echoes::run(services.config.clone(), scratch, stream, early);
                Either::Right(Box::pin(echo))
            }
        };
        let places = (self.place, connection);
        run.map(move |()| drop(places))
    }
}

type Upgraded = Result<(Open, Response<Bytes>), HttpError>;

/// Leaves what the socket is for in its place; a refusal has its line in the log.
fn upgraded(opened: &Opened, result: Upgraded) -> Result<Response<Bytes>, HttpError> {
    let (open, response) = result.inspect_err(|refused| {
        tracing::debug!(
            event = "handshake_refused",
            status = refused.status().as_u16(),
            code = refused.error.code.name(),
            reason = %refused.error.message,
            "handshake refused"
        );
    })?;
    *opened.open.borrow_mut() = Some(open);
    Ok(response)
}

/// A session.
///
/// # Errors
/// Why it may not come in.
pub async fn connect<B>(
    state: &PublicState,
    opened: &Opened,
    request: &Request<B>,
) -> Result<Response<Bytes>, HttpError> {
    upgraded(opened, session(state, request, opened.begun_at.get()).await)
}

/// The echo endpoint, for whoever asks.
///
/// # Errors
/// Why it may not come in.
pub fn echo<B>(
    state: &PublicState,
    opened: &Opened,
    request: &Request<B>,
) -> Result<Response<Bytes>, HttpError> {
    let admitted = admit(state, request, false).map(|(place, response)| {
        let purpose = Purpose::Echo;
        (Open { purpose, place }, response)
    });
    upgraded(opened, admitted)
}

async fn session<B>(state: &PublicState, request: &Request<B>, accepted_at: Instant) -> Upgraded {
    let counters = state.counters();
    let query = Query::of(request);
    let cookie_name = state.services.config.auth.cookie.as_deref();
    let credential = Credential::find(request.headers(), &query, cookie_name);
    let by_cookie = matches!(&credential, Ok(Some(found)) if found.source == Source::Cookie);
    let (place, mut response) = admit(state, request, by_cookie)?;
    let (encoding, protocol) =
        subprotocol(request.headers()).inspect_err(|_| counters.refused_request.add_owned(1))?;
    let identified = match credential {
        Ok(credential) => identify(state, credential, &query).await,
        Err(error) => Err(error),
    };
    let caller = identified.inspect_err(|refused| {
        let counter = match refused.error.code {
            ErrorCode::Unavailable => &counters.refused_unavailable,
            _ => &counters.refused_unauthorized,
        };
        counter.add_owned(1);
    })?;
    if let Some(protocol) = protocol {
        let protocol = HeaderValue::from_static(protocol);
        let headers = response.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let purpose = Purpose::Session(Box::new(Entrance {
        form: WireForm::websocket(encoding),
        caller,
        waits: query.waits,
        app_pings: query.app_pings,
        disconnects: state.worker.disconnects(),
        accepted_at,
    }));
    Ok((Open { purpose, place }, response))
}

/// What every WebSocket has to pass: its form, its Origin, and whether there is room.
fn admit<B>(
    state: &PublicState,
    request: &Request<B>,
    by_cookie: bool,
) -> Result<(ConnectionPermit, Response<Bytes>), HttpError> {
    let counters = state.counters();
    let accept =
        upgrade::accept_key(request).inspect_err(|_| counters.refused_request.add_owned(1))?;
    check_origin(state, request.headers(), by_cookie)?;
    let busy = |text| HttpError::busy(text, SOON);
    if state.is_leaving() {
        counters.refused_draining.add_owned(1);
        return Err(busy("this node is leaving; connect again"));
    }
    if !state.broker_is_up() {
        counters.refused_unavailable.add_owned(1);
        return Err(busy("the broker is not available; connect again"));
    }
    let Some(place) = state.sessions_limit.take() else {
        counters.refused_capacity.add_owned(1);
        return Err(busy("this node is full; connect again"));
    };
    // Behind the place, so that a node that is full keeps its tokens.
    state.admission.take(Instant::now()).map_err(|not_now| {
        let (counter, text, wait) = match not_now {
            NotNow::Rate(wait) => (&counters.refused_rate, "too many connect at once", wait),
            NotNow::Memory(wait) => (&counters.refused_memory, "memory is short", wait),
        };
        counter.add_owned(1);
        HttpError::busy(format!("{text}; connect again"), wait)
    })?;
    Ok((place, upgrade::switching(accept)))
}

/// Refuses a page that is not on the list.
///
/// # Errors
/// `forbidden`, which is counted.
pub(super) fn check_origin(
    state: &PublicState,
    headers: &HeaderMap,
    by_cookie: bool,
) -> Result<(), HttpError> {
    let listed = &state.services.config.auth.origins;
    if origin_allowed(listed, headers, by_cookie) {
        return Ok(());
    }
    state.counters().refused_origin.add_owned(1);
    let text = "this Origin is not on the allow-list";
    Err(HttpError::new(ErrorCode::Forbidden, text))
}

/// Browsers always send an Origin; a cookie, which they send unasked, is only believed together
/// with one of the list.
fn origin_allowed(allowed: &[String], headers: &HeaderMap, by_cookie: bool) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let is_listed = |origin: &HeaderValue| {
        let mut allowed = allowed.iter();
        allowed.any(|one| one.as_bytes() == origin.as_bytes())
    };
    match (origins.next(), origins.next()) {
        (None, _) => !by_cookie,
        (Some(_), Some(_)) => false,
        (Some(origin), None) => (allowed.is_empty() && !by_cookie) || is_listed(origin),
    }
}

/// The first offered form that is spoken. None offered: JSON, and none is echoed.
fn subprotocol(headers: &HeaderMap) -> Result<(Encoding, Option<&'static str>), HttpError> {
    let mut offered = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .peekable();
    if offered.peek().is_none() {
        return Ok((Encoding::Json, None));
    }
    offered
        .find_map(|name| match name {
            b"fanfare.v1.json" => Some((Encoding::Json, Some("fanfare.v1.json"))),
            b"fanfare.v1.msgpack" => Some((Encoding::MsgPack, Some("fanfare.v1.msgpack"))),
            _ => None,
        })
        .ok_or_else(|| {
            let text = "the subprotocols are fanfare.v1.json and fanfare.v1.msgpack";
            HttpError::new(ErrorCode::BadRequest, text)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn an_origin_must_be_listed_and_a_cookie_needs_one() {
        let listed = ["https://a.example".to_owned()];
        let rows: &[(&[&[u8]], bool, bool)] = &[
            (&[b"https://a.example"], true, true),
            (&[b"https://b.example"], false, false),
            (&[b"https://a.example", b"https://a.example"], false, false),
            (&[b"https://a.example\xff"], false, false),
            (&[b"null"], false, false),
            (&[], true, false),
        ];
        for (origins, by_token, by_cookie) in rows {
            let headers = headers(header::ORIGIN, origins);
            assert_eq!(
                origin_allowed(&listed, &headers, false),
                *by_token,
                "{origins:?}"
            );
            assert_eq!(
                origin_allowed(&listed, &headers, true),
                *by_cookie,
                "{origins:?}"
            );
        }
        let any = headers(header::ORIGIN, &[b"https://b.example"]);
        assert!(origin_allowed(&[], &any, false));
        assert!(!origin_allowed(&[], &any, true));
    }

    #[test]
    fn a_subprotocol_is_found_beside_others_of_any_kind() {
        let rows: &[(&[&[u8]], Option<Encoding>)] = &[
            (&[], Some(Encoding::Json)),
            (&[b"fanfare.v1.msgpack"], Some(Encoding::MsgPack)),
            (&[b"x\xff, fanfare.v1.json"], Some(Encoding::Json)),
            (
                &[b"other", b"fanfare.v1.msgpack , fanfare.v1.json"],
                Some(Encoding::MsgPack),
            ),
            (&[b"Fanfare.v1.json"], None),
            (&[b""], None),
        ];
        for (values, encoding) in rows {
            let chosen = subprotocol(&headers(header::SEC_WEBSOCKET_PROTOCOL, values));
            assert_eq!(
                chosen.ok().map(|(encoding, _)| encoding),
                *encoding,
                "{values:?}"
            );
        }
    }
}
