//! The name under which the broker remembers an idempotency key.
//!
//! In: who publishes, and the key that was given. Out: one text in which no two masters of them meet:
//! the kind, the publisher's length in decimal, the publisher, the key. Users may hold every byte
//! that could separate (`a` with `b:c` is not `a:b` with `c`), so the length is what parts them.
//! Pure. Bounds: those of its parts.

use crate::config::api_clients::KEYS_NAME;
use fanfare_protocol::ids::{App, SessionId};

/// Whose keys: each publisher has its own.
#[derive(Debug, Clone, Copy)]
pub enum Publisher<'a> {
    /// A client of the HTTP API, in an app.
    Api {
        /// The app that it speaks of.
        app: &'a App,
        /// Its name.
        client: &'a str,
    },
    /// A user, over all sessions.
    User(&'a str),
    /// A session without a user.
    Session(SessionId),
}

impl Publisher<'_> {
    /// What the broker remembers for a publication of this publisher with this key.
    #[must_use]
    pub fn remembered(self, key: &str) -> String {
        match self {
            // As earlier releases have it for all: the operator's keys are one client.
            Self::Api { app, client } if client == KEYS_NAME => named('a', app.as_str(), key),
            Self::Api { app, client } => named('c', &named('a', app.as_str(), client), key),
            Self::User(user) => named('u', user, key),
            Self::Session(session) => named('s', &session.to_string(), key),
        }
    }
}

fn named(kind: char, publisher: &str, key: &str) -> String {
    format!("{kind}{}:{publisher}:{key}", publisher.len())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_of_two_publishers_never_meet() {
        // Every way to cut these texts in two, with every separator that somebody could choose.
        let texts = [
            "a:b:c", "1:a:1:b", "a b c", "u1:a:b", "::::", "a%3Ab", "11:1:1",
        ];
        let mut masters = HashSet::new();
        let mut names = HashSet::new();
        for text in texts {
            for (at, _) in text.char_indices().skip(1) {
                for key in [&text[at..], text[at..].trim_start_matches([':', ' '])] {
                    let user = &text[..at];
                    if masters.insert((user, key)) {
                        let name = Publisher::User(user).remembered(key);
                        assert!(names.insert(name), "{user} with {key} meets another");
                    }
                }
            }
        }
        assert!(masters.len() > 40);
    }

    #[test]
    fn kinds_of_publishers_never_meet() {
        let session = SessionId(7);
        let (app, user) = (App::default_app(), session.to_string());
        let api = |client| Publisher::Api { app: &app, client }.remembered("k");
        let names = [
            api(KEYS_NAME),
            api("billing"),
            api("billin"),
            Publisher::User(app.as_str()).remembered("k"),
            Publisher::Session(session).remembered("k"),
            Publisher::User(&user).remembered("k"),
        ];
        assert_eq!(HashSet::from(names).len(), 6);
    }
}
