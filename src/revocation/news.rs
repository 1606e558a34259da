//! Which sessions are to look at their tokens, or at what their app sets, by hashes.
//!
//! In: names of entries that are new or stronger, or apps that have changed. Out: whether a session
//! with these marks may be concerned. A hash that two names share costs a look and nothing else: the session judges its tokens
//! by the table. Bound: eight bytes an entry.

use std::hash::{BuildHasher as _, BuildHasherDefault};

use rustc_hash::{FxHashSet, FxHasher};

use super::{all_name, token_name, user_name};
use fanfare_protocol::ids::{App, User};

/// The hashes of what a session's tokens can be revoked by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// That of its app; 0: nobody has said yet.
    app: u64,
    /// The user's; 0: the session has no token.
    user: u64,
    /// That of its token's `jti`; 0: none.
    id: u64,
    /// Those of its tokens for topics.
    topics: Box<[u64]>,
}

impl Marks {
    /// Of a session of this app that has no token.
    #[must_use]
    pub fn of_app(app: &App) -> Self {
        Self {
            app: hash(&all_name(app)),
            ..Self::default()
        }
    }

    /// Of a session of this user, with the `jti` of its token and of those for its topics.
    #[must_use]
    pub fn new<'a>(
        app: &App,
        user: &User,
        id: Option<&str>,
        topics: impl Iterator<Item = &'a str>,
    ) -> Self {
        Self {
            app: hash(&all_name(app)),
            user: hash(&user_name(app, user)),
            id: id.map_or(0, |id| hash(&token_name(app, id))),
            topics: topics.map(|id| hash(&token_name(app, id))).collect(),
        }
    }
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct News {
    names: FxHashSet<u64>,
}

impl News {
    /// An entry of this name is new or stronger.
    pub fn add(&mut self, name: &str) {
        self.names.insert(hash(name));
    }

    /// These apps have changed.
    #[must_use]
    pub fn of_apps<'a>(apps: impl Iterator<Item = &'a App>) -> Self {
        Self {
            names: apps.map(|app| hash(&all_name(app))).collect(),
        }
    }

    /// These too.
    pub fn merge(&mut self, other: Self) {
        self.names.extend(other.names);
    }

    /// Whether nothing is new.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether they are of the app of a session with these marks.
    #[must_use]
    pub fn is_of(&self, marks: &Marks) -> bool {
        self.names.contains(&marks.app)
    }

    /// Whether a session with these marks is to look at its tokens.
    #[must_use]
    pub fn concerns(&self, marks: &Marks) -> bool {
        if marks.user == 0 {
            return false;
        }
        let of_topics = || marks.topics.iter().any(|id| self.names.contains(id));
        self.is_of(marks)
            || self.names.contains(&marks.user)
            || (marks.id != 0 && self.names.contains(&marks.id))
            || of_topics()
    }
}

/// Never 0.
fn hash(name: &str) -> u64 {
    BuildHasherDefault::<FxHasher>::default().hash_one(name) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_concerned_by_user_by_token_by_topic_tokens_or_all() {
        let app = App::default_app();
        let user = |name| User::new(name).unwrap();
        let ada = Marks::new(&app, &user("ada"), Some("x"), ["y", "z"].into_iter());
        let bob = Marks::new(&app, &user("bob"), None, [].into_iter());
        let nobody = Marks::of_app(&app);
        let other = Marks::new(
            &App::new("other").unwrap(),
            &user("ada"),
            Some("x"),
            ["z"].into_iter(),
        );
        let concerned = |name: &str| {
            let mut news = News::default();
            assert!(news.is_empty());
            news.add(name);
            assert!(!news.is_empty());
            [&ada, &bob, &nobody, &other].map(|marks| news.concerns(marks))
        };
        assert_eq!(concerned("u default ada"), [true, false, false, false]);
        assert_eq!(concerned("u default bob"), [false, true, false, false]);
        assert_eq!(concerned("t default x"), [true, false, false, false]);
        assert_eq!(concerned("t default z"), [true, false, false, false]);
        assert_eq!(concerned("t default bob"), [false; 4]);
        assert_eq!(concerned("u other ada"), [false, false, false, true]);
        assert_eq!(concerned("a default"), [true, true, false, false]);
        assert_eq!(concerned("a other"), [false, false, false, true]);
        // What an app sets concerns those without a token too.
        let news = News::of_apps([&app].into_iter());
        assert_eq!(
            [&ada, &bob, &nobody, &other].map(|m| news.is_of(m)),
            [true, true, true, false]
        );
    }
}
