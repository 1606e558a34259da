//! The public listener's paths: sessions, the echo, probes, a user's home, the development page.
//!
//! In: a request head. Out: its answer, JSON but for the page; `101` leaves what the socket is for in
//! [`Opened`]. GET and HEAD are answered, nothing may be kept by a cache, and why the node is not
//! ready is told by the API's listener alone. Refusals are those of [`crate::http::error`].

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use crate::http::bodies::{LiveAnswer, ReadyAnswer, Route};
use crate::http::error::HttpError;
use crate::http::media::Form;
use crate::http::request::{check, has_body};
use crate::policy::{self, OnTopic, Subject};
use crate::session::state::Identity;
use crate::tasks::turns;
use fanfare_protocol::error::ErrorCode;
use fanfare_protocol::ids::{App, Topic};

use super::credentials::{Caller, Credential, Query, Source, identify};
use super::handshake::{self, Opened, check_origin};
use super::listener_state::PublicState;

/// The body of every answer here: small and whole.
pub type Body = Full<Bytes>;

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Connect,
    Echo,
    Route,
    Live,
    Ready,
    Page,
}

impl Target {
    fn at(path: &str, is_dev: bool, has_echo: bool) -> Option<Self> {
        match path {
            "/v1/connect" => Some(Self::Connect),
            "/v1/route" => Some(Self::Route),
            "/health/live" => Some(Self::Live),
            "/health/ready" => Some(Self::Ready),
            "/echo" if has_echo => Some(Self::Echo),
            "/" if is_dev => Some(Self::Page),
            _ => None,
        }
    }
}

/// Answers one request.
pub async fn answer<B>(
    state: &PublicState,
    opened: &Opened,
    request: &Request<B>,
) -> Response<Body> {
    opened.asked();
    let answered = match target(state, request) {
        Ok(Target::Connect) => handshake::connect(state, opened, request).await,
        Ok(Target::Echo) => handshake::echo(state, opened, request),
        Ok(Target::Route) => route(state, request).await,
        Ok(Target::Live) => Ok(live()),
        Ok(Target::Ready) => Ok(ready(state)),
        Ok(Target::Page) => Ok(page()),
        Err(error) => Err(error),
    };
    let mut response = answered.unwrap_or_else(|error| error.response(Form::JSON));
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    response.map(Full::new)
}

/// Where a well-formed request leads.
fn target<B>(state: &PublicState, request: &Request<B>) -> Result<Target, HttpError> {
    let no_body = || match has_body(request.headers()) {
        true => Err(HttpError::new(ErrorCode::BadRequest, "no body is expected here").closing()),
        false => Ok(()),
    };
    check(request)
        .and_then(|()| no_body())
        .inspect_err(|_| state.counters().refused_request.add_owned(1))?;
    let server = &state.services.config.server;
    let target = Target::at(request.uri().path(), server.dev, server.echo).ok_or_else(|| {
        HttpError::new(ErrorCode::NotFound, "no such path on the public listener")
    })?;
    match *request.method() {
        Method::GET | Method::HEAD => Ok(target),
        _ => {
            let text = "only GET and HEAD are answered here";
            Err(HttpError::new(ErrorCode::MethodNotAllowed, text).allow("GET, HEAD"))
        }
    }
}

/// The development page.
fn page() -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(include_bytes!("page.html")));
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, html);
    response
}

fn live() -> Response<Bytes> {
    let answer = LiveAnswer {
        live: turns::lost().is_empty(),
        reasons: Vec::new(),
    };
    Form::JSON.response(status(answer.live), &answer)
}

fn ready(state: &PublicState) -> Response<Bytes> {
    let answer = ReadyAnswer {
        ready: state.readiness.borrow().is_empty() && turns::missed().is_empty(),
        reasons: None,
        partial: Vec::new(),
    };
    Form::JSON.response(status(answer.ready), &answer)
}

fn status(is_well: bool) -> StatusCode {
    match is_well {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Where the caller's own user has its home.
async fn route<B>(state: &PublicState, request: &Request<B>) -> Result<Response<Bytes>, HttpError> {
    let services = &state.services;
    let query = Query::of(request);
    let cookie_name = services.config.auth.cookie.as_deref();
    let credential = Credential::find(request.headers(), &query, cookie_name)?;
    let by_cookie = credential
        .as_ref()
        .is_some_and(|one| one.source == Source::Cookie);
    // A page of the same origin sends none with a GET.
    if request.headers().contains_key(header::ORIGIN) {
        check_origin(state, request.headers(), by_cookie)?;
    }
    let Caller {
        app,
        identity: Identity { user, claims },
        refused,
    } = identify(state, credential, &query).await?;
    if let Some(refusal) = refused {
        return Err(HttpError::from(refusal.error).presented());
    }
    let user = user.ok_or_else(|| HttpError::new(ErrorCode::Unauthorized, "a token is needed"))?;
    let app = app.unwrap_or_else(App::default_app);
    let topic = Topic::inbox(&app, &user);
    let subject = Subject::Session {
        app: &app,
        user: Some(&user),
        can: claims.as_ref().and_then(|claims| claims.can.as_deref()),
        has_topic_token: false,
    };
    let settings = services.apps.of_topic(&topic);
    policy::may(subject, OnTopic::Home, &topic, settings.namespace(&topic))
        .map_err(|_| HttpError::new(ErrorCode::Forbidden, "the home of another user"))?;
    let home = services.view.borrow().home(&topic);
    let route = Route {
        node: home.node,
        url: home.url,
        partition: topic.partition(services.config.redis.partitions),
    };
    Ok(Form::JSON.response(StatusCode::OK, &route))
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn paths_are_compared_as_they_are() {
        let rows = [
            ("/v1/connect", Some(Target::Connect)),
            ("/v1/route", Some(Target::Route)),
            ("/health/live", Some(Target::Live)),
            ("/health/ready", Some(Target::Ready)),
            ("/health/live/", None),
            ("//health/live", None),
            ("/health/../health/live", None),
            ("/health/%6Cive", None),
            ("/Health/live", None),
            ("/echo", None),
            ("/", None),
            ("", None),
            ("*", None),
        ];
        for (path, target) in rows {
            assert_eq!(Target::at(path, false, false), target, "{path}");
        }
        assert_eq!(Target::at("/", true, false), Some(Target::Page));
        assert_eq!(Target::at("/echo", false, true), Some(Target::Echo));
    }
}
