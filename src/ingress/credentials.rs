//! Who a request says it is, and for which app: its token, wherever it stands, and the user that
//! follows from it.
//!
//! In: headers and query of one request. Out: a [`Credential`] from `Authorization: Bearer`, else
//! `?token=`, else the cookie; and by [`identify`] the app and an identity, or how they are refused. An empty
//! one is passed over, and refused where there is no other. Everything is split and compared as
//! bytes, so that a neighbour of any encoding hides nothing (RFC 6265, section 5.4; RFC 9110, 5.5).

use std::borrow::Cow;
use std::time::SystemTime;

use hyper::Request;
use hyper::header::{self, HeaderMap};

use crate::apps::Apps;
use crate::auth::Claims;
use crate::auth::error::TokenError;
use crate::http::error::HttpError;
use crate::http::request::bearer;
use crate::session::state::{Identity, Refusal, refused_token};
use crate::verification::Asked;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::ids::{App, NameError, User};

use super::listener_state::PublicState;

/// Where a token stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `Authorization: Bearer TOKEN`.
    Header,
    /// `?token=TOKEN`.
    Query,
    /// The cookie that `auth.cookie` names.
    Cookie,
}

/// A token that nobody has verified.
#[derive(Debug, PartialEq, Eq)]
pub struct Credential<'a> {
    /// Where it stood.
    pub source: Source,
    token: Cow<'a, [u8]>,
}

impl<'a> Credential<'a> {
    /// The one that counts: the first in the order of [`Source`] that is not empty.
    ///
    /// # Errors
    /// `unauthorized` for two different ones in `Authorization`, the query or the cookies; `bad_request` for
    /// another parameter that is there twice with two values.
    pub fn find(
        headers: &'a HeaderMap,
        query: &'a Query,
        cookie_name: Option<&str>,
    ) -> Result<Option<Self>, HttpError> {
        let in_header = bearer(headers)?.map(|token| (Source::Header, token));
        query.check()?;
        let in_query = query.token.as_deref();
        let in_query = in_query.map(|token| (Source::Query, token.as_bytes()));
        let in_cookies = match cookie_name {
            Some(name) => one_cookie(headers, name)?,
            None => None,
        };
        let in_cookies = in_cookies.map(|token| (Source::Cookie, token));
        let all = in_header.into_iter().chain(in_query).chain(in_cookies);
        let (mut empty, mut found) = (None, None);
        for (source, token) in all {
            let credential = Self {
                source,
                token: Cow::Borrowed(token),
            };
            if token.is_empty() {
                empty.get_or_insert(credential);
            } else {
                found.get_or_insert(credential);
            }
        }
        Ok(found.or(empty))
    }
}

/// The cookie of this name that is not empty, or else an empty one. A page of a neighbouring domain can
/// set one of the same name that is sent first (RFC 6265, section 5.4), so none of two is believed.
fn one_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a [u8]>, HttpError> {
    let mut found: Option<&[u8]> = None;
    for token in cookies(headers, name) {
        match found {
            Some(before) if !before.is_empty() && !token.is_empty() && before != token => {
                let text = format!("there is more than one cookie `{name}`");
                return Err(HttpError::new(ErrorCode::Unauthorized, text).presented());
            }
            Some(before) if !before.is_empty() => {}
            _ => found = Some(token),
        }
    }
    Ok(found)
}

/// The values of a cookie of this name, in the order of the request. Names are compared exactly;
/// quotes around a value are no part of it (RFC 6265, section 4.1.1).
fn cookies<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .filter_map(move |pair| {
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
            let bare = value
                .strip_prefix(b"\"")
                .and_then(|v| v.strip_suffix(b"\""));
            (key == name.as_bytes()).then_some(bare.unwrap_or(value))
        })
}

/// The parameters that the public listener knows; all others are passed over.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query {
    token: Option<String>,
    user: Option<String>,
    app: Option<String>,
    /// `wait=1`: `welcome` waits for `connect`.
    pub waits: bool,
    /// `heartbeat=app`: pings are events.
    pub app_pings: bool,
    /// One that is there with two values: two readers could take different ones.
    doubled: Option<&'static str>,
}

impl Query {
    /// Reads the query of a target.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Self {
        let [mut token, mut user, mut app, mut wait, mut heartbeat] = [const { None }; 5];
        let mut doubled = None;
        let text = request.uri().query().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            let (name, known) = match &*name {
                "token" => ("token", &mut token),
                "user" => ("user", &mut user),
                "app" => ("app", &mut app),
                "wait" => ("wait", &mut wait),
                "heartbeat" => ("heartbeat", &mut heartbeat),
                _ => continue,
            };
            if known.as_ref().is_some_and(|before| *before != value) {
                doubled.get_or_insert(name);
            }
            *known = Some(value);
        }
        Self {
            token: token.map(Cow::into_owned),
            user: user.map(Cow::into_owned),
            app: app.map(Cow::into_owned),
            waits: wait.is_some_and(|value| value == "1"),
            app_pings: heartbeat.is_some_and(|value| value == "app"),
            doubled,
        }
    }

    /// Refuses a parameter that is there with two values.
    fn check(&self) -> Result<(), HttpError> {
        let Some(name) = self.doubled else {
            return Ok(());
        };
        let text = format!("there is more than one `{name}` in the query");
        Err(match name {
            "token" => HttpError::new(ErrorCode::Unauthorized, text).presented(),
            _ => HttpError::new(ErrorCode::BadRequest, text),
        })
    }
}

/// Who is behind a request, as far as it says.
#[derive(Debug, Default)]
pub struct Caller {
    /// The app: that of `?app=`, else that of the token. `None`: neither is there.
    pub app: Option<App>,
    /// The user, and what the token says.
    pub identity: Identity,
    /// The app, the token or the user is no good: told on the open socket.
    pub refused: Option<Refusal>,
}

impl Caller {
    fn refused(refusal: Refusal) -> Self {
        Self {
            refused: Some(refusal),
            ..Self::default()
        }
    }
}

/// Who the request says it is, and in which app. An app that is not known, and a token that is no good,
/// are refused here where the token stands in the header; else that is returned, to be refused on the
/// open socket. Waits where the token's key has to be fetched, or its check leaves the worker.
/// Cancel-safe.
///
/// # Errors
/// `unauthorized`, `token_expired` or `unavailable`, for the header's token.
pub async fn identify(
    state: &PublicState,
    credential: Option<Credential<'_>>,
    query: &Query,
) -> Result<Caller, HttpError> {
    let refused = |source: Option<Source>, refusal: Refusal| match source {
        Some(Source::Header) => Err(HttpError::from(refusal.error).presented()),
        _ => Ok(Caller::refused(refusal)),
    };
    let source = credential.as_ref().map(|credential| credential.source);
    let app = match known_app(&state.services.apps, query) {
        Ok(app) => app,
        Err(refusal) => return refused(source, refusal),
    };
    if let Some(credential) = credential {
        return match verify(state, &credential, app.as_ref()).await {
            Ok(claims) => Ok(Caller {
                app: Some(claims.app.clone()),
                identity: identity(claims),
                refused: None,
            }),
            Err(error) => refused(source, refused_token(error)),
        };
    }
    let is_dev = state.services.config.server.dev;
    let name = query.user.as_ref().filter(|_| is_dev);
    match name.map(|name| User::new(name)).transpose() {
        Ok(user) => Ok(Caller {
            app,
            identity: Identity { user, claims: None },
            refused: None,
        }),
        Err(error) => Ok(Caller::refused(refused_user(error))),
    }
}

/// The app of `?app=`, where that is there. Before what is stored was read there may be any.
fn known_app(apps: &Apps, query: &Query) -> Result<Option<App>, Refusal> {
    let Some(name) = &query.app else {
        return Ok(None);
    };
    let app = App::new(name).ok();
    let may_be = app.is_some() && !apps.are_read();
    let known = app.filter(|app| apps.get(app).is_some());
    known.map(Some).ok_or_else(|| {
        if may_be {
            let text =
                "whether there is the app that `app` in the URL names is not known yet: try again";
            return Refusal {
                error: WireError::new(ErrorCode::Unavailable, text),
                end: Some(CloseReason::Unavailable),
            };
        }
        let text = "`app` in the URL names no app that is known here";
        Refusal {
            error: WireError::new(ErrorCode::Unauthorized, text),
            end: Some(CloseReason::Unauthorized),
        }
    })
}

async fn verify(
    state: &PublicState,
    credential: &Credential<'_>,
    app: Option<&App>,
) -> Result<Claims, TokenError> {
    let services = &state.services;
    let token = std::str::from_utf8(&credential.token).map_err(|_| TokenError::NotJwt)?;
    if services.checks.are_light(std::iter::once(token), app) {
        return services.verifier.session(token, app, SystemTime::now());
    }
    let asked = Asked {
        own: Some(token.to_owned()),
        app: app.cloned(),
        ..Asked::default()
    };
    let mut checked = services.checks.check(asked).await;
    let checked = checked.pop().ok_or(TokenError::Unavailable)?;
    services
        .verifier
        .checked_session(checked, SystemTime::now())
}

fn identity(claims: Claims) -> Identity {
    Identity {
        user: Some(claims.user.clone()),
        claims: Some(claims),
    }
}

/// `?user=` that is no user name: a browser cannot read a status, so it is told inside.
fn refused_user(error: NameError) -> Refusal {
    Refusal {
        error: WireError::new(ErrorCode::Unauthorized, format!("`user`: {error}")),
        end: Some(CloseReason::Unauthorized),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

    const NAME: &str = "fanfare_token";

    fn headers(pairs: &[(HeaderName, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn query(text: &str) -> Query {
        Query::of(
            &Request::get(format!("/v1/connect?{text}"))
                .body(())
                .unwrap(),
        )
    }

    /// The source and token that count.
    fn found(pairs: &[(HeaderName, &[u8])], text: &str) -> Option<(Source, String)> {
        let (headers, query) = (headers(pairs), query(text));
        let found = Credential::find(&headers, &query, Some(NAME)).unwrap()?;
        let token = String::from_utf8_lossy(&found.token).into_owned();
        Some((found.source, token))
    }

    #[test]
    fn the_first_source_that_has_a_token_counts() {
        use Source::{Cookie, Header, Query};
        const BASIC: (HeaderName, &[u8]) = (header::AUTHORIZATION, b"Basic dTpw");
        const BEARER: (HeaderName, &[u8]) = (header::AUTHORIZATION, b"Bearer h");
        const ALONE: (HeaderName, &[u8]) = (header::AUTHORIZATION, b"Bearer");
        const COOKIE: (HeaderName, &[u8]) = (header::COOKIE, b"fanfare_token=c");
        type Row<'a> = (
            &'a [(HeaderName, &'a [u8])],
            &'a str,
            Option<(Source, &'a str)>,
        );
        let rows: &[Row<'_>] = &[
            (&[BEARER, COOKIE], "token=q", Some((Header, "h"))),
            (&[BASIC, COOKIE], "token=q", Some((Query, "q"))),
            (&[BASIC, COOKIE], "", Some((Cookie, "c"))),
            (&[BASIC, BEARER], "token=q", Some((Header, "h"))),
            (&[BASIC], "", None),
            (&[ALONE, COOKIE], "token=", Some((Cookie, "c"))),
            (&[ALONE], "token=", Some((Header, ""))),
            (&[], "token=", Some((Query, ""))),
            (&[], "x=%FF&token=q&y=%", Some((Query, "q"))),
            (&[], "Token=q", None),
        ];
        for (pairs, text, wanted) in rows {
            let wanted = wanted.map(|(source, token)| (source, token.to_owned()));
            assert_eq!(found(pairs, text), wanted, "{pairs:?} {text}");
        }
    }

    #[test]
    fn a_cookie_is_found_among_neighbours_of_any_kind() {
        let rows: &[(&[&[u8]], Option<&str>)] = &[
            (&[b"fanfare_token=c"], Some("c")),
            (&[b"n=J\xfcrgen; fanfare_token=c"], Some("c")),
            (&[b"n=J\xfcrgen", b"fanfare_token=c"], Some("c")),
            (&[b"a=\"x; y\"; fanfare_token=c"], Some("c")),
            (&[b"a=b=c;fanfare_token=c;"], Some("c")),
            (&[b"lone; fanfare_token = c ; z"], Some("c")),
            (&[b"fanfare_token=\"c\""], Some("c")),
            (&[b"fanfare_token=c=="], Some("c==")),
            (&[b"fanfare_token=; fanfare_token=c"], Some("c")),
            (&[b"fanfare_token=c; fanfare_token=c"], Some("c")),
            (&[b"fanfare_token=c; fanfare_token="], Some("c")),
            (
                &[b"xfanfare_token=x; fanfare_token2=y; Fanfare_Token=z"],
                None,
            ),
            (&[b"__Host-fanfare_token=x; fanfare_token"], None),
        ];
        for (values, wanted) in rows {
            let pairs: Vec<_> = values.iter().map(|v| (header::COOKIE, *v)).collect();
            let wanted = wanted.map(|token| (Source::Cookie, token.to_owned()));
            assert_eq!(found(&pairs, ""), wanted, "{values:?}");
        }
        let headers = headers(&[(header::COOKIE, b"fanfare_token=c")]);
        let query = Query::default();
        let none = Credential::find(&headers, &query, None).unwrap();
        assert_eq!(none, None, "no cookie is configured");
    }

    #[test]
    fn of_two_cookies_none_is_believed() {
        let rows: [&[&[u8]]; 2] = [
            &[b"fanfare_token=c; fanfare_token=d"],
            &[b"fanfare_token=c", b"fanfare_token=; fanfare_token=\"d\""],
        ];
        for values in rows {
            let pairs: Vec<_> = values.iter().map(|v| (header::COOKIE, *v)).collect();
            let (headers, query) = (headers(&pairs), Query::default());
            let found = Credential::find(&headers, &query, Some(NAME));
            let code = found.err().map(|error| error.error.code);
            assert_eq!(code, Some(ErrorCode::Unauthorized), "{values:?}");
        }
    }

    #[test]
    fn a_parameter_with_two_values_is_refused() {
        let refused = |text: &str| {
            let (headers, query) = (headers(&[]), query(text));
            let found = Credential::find(&headers, &query, None);
            found.err().map(|error| error.error.code)
        };
        let (token, other) = (ErrorCode::Unauthorized, ErrorCode::BadRequest);
        let rows = [
            ("token=a&token=b", Some(token)),
            ("token=a&x=1&token=", Some(token)),
            ("token=a&token=a", None),
            ("user=ada&user=bob", Some(other)),
            ("app=shop&app=game", Some(other)),
            ("wait=1&wait=0", Some(other)),
            ("heartbeat=ws&heartbeat=app", Some(other)),
            ("x=1&x=2", None),
        ];
        for (text, wanted) in rows {
            assert_eq!(refused(text), wanted, "{text}");
        }
        let headers = headers(&[(header::AUTHORIZATION, b"Bearer h")]);
        let query = query("token=a&token=b");
        assert!(Credential::find(&headers, &query, None).is_err());
    }

    #[test]
    fn the_parameters_of_a_session_have_one_value_each() {
        let all = query("wait=1&heartbeat=app&user=ada&app=shop");
        assert!(all.waits && all.app_pings);
        assert_eq!(all.user.as_deref(), Some("ada"));
        assert_eq!(all.app.as_deref(), Some("shop"));
        let others = query("wait=true&heartbeat=ws&App=1");
        assert_eq!(others, Query::default());
    }
}
