//! Whose token may stand for whom: at `connect`, at `refresh`, and for one topic.
//!
//! In: who a session is, and what a valid token says. Out: nothing, or why not. Pure; owns nothing. A
//! token of another app is refused as one of another user is.

use crate::auth::Claims;
use fanfare_protocol::ids::{App, Topic, User};

/// Who a session is so far.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    /// The app that it lives in.
    pub app: &'a App,
    /// Its user; `None` before it is known, and for anonymous sessions.
    pub user: Option<&'a User>,
}

/// Why a token may not be used here, though it is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// It is one of another app.
    OtherApp,
    /// It is one of another user.
    OtherUser,
    /// It is for another topic.
    OtherTopic,
    /// There must be a token.
    NoToken,
}

/// Whether a session may open with this token, or with none.
///
/// # Errors
/// [`Mismatch`]. Who came without a user may come with any; a token that comes behind a handshake
/// with one must be the same user's.
pub fn may_open(
    holder: Holder<'_>,
    claims: Option<&Claims>,
    lets_anonymous_in: bool,
) -> Result<(), Mismatch> {
    let Some(claims) = claims else {
        let is_known = holder.user.is_some() || lets_anonymous_in;
        return is_known.then_some(()).ok_or(Mismatch::NoToken);
    };
    in_app(holder, claims)?;
    let is_other = holder.user.is_some_and(|user| *user != claims.user);
    (!is_other).then_some(()).ok_or(Mismatch::OtherUser)
}

/// Whether a session may go on with this token in place of its own.
///
/// # Errors
/// [`Mismatch`]: an anonymous session never becomes somebody.
pub fn may_go_on(holder: Holder<'_>, claims: &Claims) -> Result<(), Mismatch> {
    in_app(holder, claims)?;
    let is_same = holder.user == Some(&claims.user);
    is_same.then_some(()).ok_or(Mismatch::OtherUser)
}

/// Whether a token for the topic of this name opens `topic` to the session.
///
/// # Errors
/// [`Mismatch`].
pub fn may_open_topic(
    holder: Holder<'_>,
    (claims, named): (&Claims, &str),
    topic: &Topic,
) -> Result<(), Mismatch> {
    may_go_on(holder, claims)?;
    let is_same = topic.app() == holder.app.as_str() && topic.name() == named;
    is_same.then_some(()).ok_or(Mismatch::OtherTopic)
}

fn in_app(holder: Holder<'_>, claims: &Claims) -> Result<(), Mismatch> {
    let is_same = *holder.app == claims.app;
    is_same.then_some(()).ok_or(Mismatch::OtherApp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::model::doors::claims_of;

    fn claims(app: &str, user: &str) -> Claims {
        claims_of(&App::new(app).unwrap(), user)
    }

    #[test]
    fn a_token_stands_for_its_own_user_of_its_own_app_only() {
        let (app, ada) = (App::default_app(), User::new("ada").unwrap());
        let known = Holder {
            app: &app,
            user: Some(&ada),
        };
        let unknown = Holder {
            user: None,
            ..known
        };
        let (same, other) = (claims("default", "ada"), claims("default", "bob"));
        let foreign = claims("shop", "ada");
        let user = Err(Mismatch::OtherUser);
        let of_app = Err(Mismatch::OtherApp);
        // Who, with which token; to open, to go on.
        let rows = [
            (known, &same, Ok(()), Ok(())),
            (known, &other, user, user),
            (known, &foreign, of_app, of_app),
            (unknown, &same, Ok(()), user),
            (unknown, &other, Ok(()), user),
            (unknown, &foreign, of_app, of_app),
        ];
        for (holder, claims, opens, goes_on) in rows {
            assert_eq!(may_open(holder, Some(claims), false), opens, "{holder:?}");
            assert_eq!(may_go_on(holder, claims), goes_on, "{holder:?}");
        }
        assert_eq!(may_open(unknown, None, false), Err(Mismatch::NoToken));
        assert_eq!(may_open(unknown, None, true), Ok(()));
        assert_eq!(may_open(known, None, false), Ok(()));
    }

    #[test]
    fn a_token_for_one_topic_opens_that_one() {
        let (app, ada) = (App::default_app(), User::new("ada").unwrap());
        let holder = Holder {
            app: &app,
            user: Some(&ada),
        };
        let topic = |app: &str| Topic::new(&App::new(app).unwrap(), "t").unwrap();
        let (here, there) = (topic("default"), topic("shop"));
        let own = claims("default", "ada");
        let opens = |claims: &Claims, named, topic| may_open_topic(holder, (claims, named), topic);
        assert_eq!(opens(&own, "t", &here), Ok(()));
        assert_eq!(opens(&own, "u", &here), Err(Mismatch::OtherTopic));
        assert_eq!(opens(&own, "t", &there), Err(Mismatch::OtherTopic));
        let bob = claims("default", "bob");
        assert_eq!(opens(&bob, "t", &here), Err(Mismatch::OtherUser));
        let foreign = claims("shop", "ada");
        assert_eq!(opens(&foreign, "t", &here), Err(Mismatch::OtherApp));
        assert_eq!(opens(&foreign, "t", &there), Err(Mismatch::OtherApp));
    }
}
