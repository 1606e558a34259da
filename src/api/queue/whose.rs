//! Whose dead letters a call is about.
//!
//! In: the caller, the apps there are, letters. Out: whether a letter is one of the caller's app. A letter
//! whose app is gone, or cannot be read, is seen by clients of all apps that name none. Pure.

use std::sync::Arc;

use crate::api::auth::Caller;
use crate::api::state::ApiState;
use crate::apps::Settings;
use crate::broker::queue::{DeadLetter, entry};
use crate::config::api_clients::ClientApp;
use fanfare_protocol::ids::App;

/// See the module.
#[derive(Debug)]
pub(super) struct Whose {
    app: App,
    /// The apps there are, where letters of all others are the caller's too.
    known: Option<Arc<Settings>>,
}

impl Whose {
    /// Those of this caller.
    pub(super) fn of(state: &ApiState, caller: &Caller) -> Self {
        let is_operator = caller.client.app == ClientApp::Any;
        let is_of_none = is_operator && caller.app == App::default_app();
        // An app that was not read yet is not gone.
        let takes_orphans = is_of_none && state.apps.are_read();
        Self {
            app: caller.app.clone(),
            known: takes_orphans.then(|| state.apps.all()),
        }
    }

    /// Whether this one is among them.
    pub(super) fn has(&self, letter: &DeadLetter) -> bool {
        let Some(name) = app_of(letter) else {
            return self.known.is_some();
        };
        name == self.app
            || self
                .known
                .as_ref()
                .is_some_and(|known| !known.contains_key(&name))
    }
}

/// The app that a letter was for; `None` where it names none that could be.
fn app_of(letter: &DeadLetter) -> Option<App> {
    if let Ok(message) = entry::decode(&letter.kept) {
        return App::new(message.topic.app()).ok();
    }
    let fields = entry::decode_fields(&letter.kept)?;
    match fields.iter().find(|(name, _)| name == "app") {
        Some((_, app)) => App::new(app).ok(),
        None => Some(App::default_app()),
    }
}
