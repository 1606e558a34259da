//! For which app a call of the API is made, and whether its client may still call.
//!
//! In: the client whose key came, the app that the call names, which apps there are, and the time. Out:
//! the app, or why the call is refused. Pure; owns nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::api_clients::{ApiClient, ClientApp};
use fanfare_protocol::ids::App;

/// Why a call is refused, whatever it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The client's time is over.
    Expired,
    /// It names an app that is not the client's. Told whether there is such an app or not.
    OtherApp,
    /// There is no such app.
    UnknownApp(App),
}

/// The app that a call is about. `default` is that of a client of all apps whose call names none.
///
/// # Errors
/// [`Refused`].
pub fn app_of(
    client: &ApiClient,
    named: Option<App>,
    (default, is_known): (&App, impl Fn(&App) -> bool),
    now: SystemTime,
) -> Result<App, Refused> {
    if is_expired(client, now) {
        return Err(Refused::Expired);
    }
    let app = match (&client.app, named) {
        (ClientApp::One(own), Some(named)) if *own != named => return Err(Refused::OtherApp),
        (ClientApp::One(own), _) => own.clone(),
        (ClientApp::Any, Some(named)) => named,
        (ClientApp::Any, None) => default.clone(),
    };
    match is_known(&app) {
        true => Ok(app),
        false => Err(Refused::UnknownApp(app)),
    }
}

/// Whether the client's time is over.
#[must_use]
pub fn is_expired(client: &ApiClient, now: SystemTime) -> bool {
    client.expires.is_some_and(|expires| is_over(expires, now))
}

/// Whether this unix second has begun. A time that no clock can show is never over.
fn is_over(expires: u64, now: SystemTime) -> bool {
    let end = UNIX_EPOCH.checked_add(Duration::from_secs(expires));
    end.is_some_and(|end| end <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_about_the_clients_app_and_no_other() {
        let app = |name: &str| App::new(name).unwrap();
        let client = |own: Option<&str>| ApiClient {
            app: own.map_or(ClientApp::Any, |own| ClientApp::One(app(own))),
            ..ApiClient::with_key("k")
        };
        let default = App::default_app();
        let known = |asked: &App| matches!(asked.as_str(), "default" | "shop");
        let rows = [
            (None, None, Ok("default")),
            (None, Some("shop"), Ok("shop")),
            (None, Some("none"), Err(Refused::UnknownApp(app("none")))),
            (Some("shop"), None, Ok("shop")),
            (Some("shop"), Some("shop"), Ok("shop")),
            (Some("shop"), Some("default"), Err(Refused::OtherApp)),
            (Some("shop"), Some("none"), Err(Refused::OtherApp)),
            (Some("gone"), None, Err(Refused::UnknownApp(app("gone")))),
        ];
        for (own, named, wanted) in rows {
            let got = app_of(
                &client(own),
                named.map(app),
                (&default, known),
                SystemTime::now(),
            );
            assert_eq!(got, wanted.map(app), "{own:?} {named:?}");
        }
    }

    #[test]
    fn a_client_ends_with_its_second() {
        let default = App::default_app();
        let at = |s| UNIX_EPOCH + Duration::from_secs(s);
        let client = ApiClient {
            expires: Some(100),
            ..ApiClient::with_key("k")
        };
        let asked = |now| app_of(&client, None, (&default, |_: &App| true), now);
        assert_eq!(asked(at(99)), Ok(App::default_app()));
        assert_eq!(asked(at(100)), Err(Refused::Expired));
        let endless = ApiClient {
            expires: Some(u64::MAX),
            ..client
        };
        let answer = app_of(&endless, None, (&default, |_: &App| true), at(1 << 40));
        assert!(answer.is_ok(), "{answer:?}");
    }
}
