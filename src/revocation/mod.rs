//! Revocation: which tokens are refused from now on, known on every node within a second.
//!
//! In: what the API revokes, of an app: the tokens of a user, one token by its `jti`, or all tokens.
//! Out: a judgement at every use of a token ([`known::Revocations`]), and which sessions of this node
//! are to look at theirs ([`news::News`]). Where revocations lie: one store of the whole cluster
//! ([`store`]), and every node has all of them in memory ([`table`]), so that a use of a token asks
//! nobody. Bounds: [`ENTRIES_ALL_MAX`] entries, and what a failover lost beside them; one is forgotten when no token that it names can be valid
//! any more.
//!
//! An entry says: tokens of this name that were issued before this second are refused. Entries are
//! merged by maximum, so that the order in which nodes add, read and write back does not matter, and
//! nothing ever makes one weaker.
//!
//! ```text
//!   API ── add ──▶ store ── doorbell, and each 500 ms ──▶ reader ──▶ table ──▶ verifier
//!                    ▲                                      │          └─ news ──▶ sessions
//!                    └──────── what a failover lost ────────┘
//! ```
//!
//! A doorbell may be lost and costs nothing but time. Reading asks only for what changed since the
//! last time; the store says with each answer how many entries it has and the sum of their prints
//! ([`print_of`]), so that a node sees at once that the store lacks something, whatever the clocks
//! and links did, and reads it whole and writes back what it lacks ([`reader`]).

use sha1::{Digest as _, Sha1};

use fanfare_protocol::ids::{App, User};

pub mod adding;
pub mod back;
pub mod known;
pub mod memory;
pub mod news;
pub mod own;
pub mod planted;
pub mod progress;
pub mod reader;
pub mod runner;
#[cfg(test)]
mod simulation;
pub mod store;
#[cfg(test)]
pub(crate) mod store_rig;
pub mod table;

/// Most entries of a cluster. More are refused: nothing is forgotten to make room, because whoever
/// was put out would be let in again.
pub const ENTRIES_MAX: usize = 100_000;

/// The same for an entry of a user: so many more that there is a way to put somebody out where single
/// tokens have filled the store.
pub const ENTRIES_USERS_MAX: usize = ENTRIES_MAX + 1_000;

/// The same for all tokens of an app, one entry each: the last way.
pub const ENTRIES_ALL_MAX: usize = ENTRIES_USERS_MAX + 1_000;

/// The same where a node writes back what the store has lost: that was within the bound when it was
/// promised, and others may have taken its place since.
pub const ENTRIES_BACK_MAX: usize = 2 * ENTRIES_ALL_MAX;

/// Most tokens of one call.
pub const TOKENS_MAX: usize = 100;

/// The second before which every token was issued: that of an entry which asks for no time.
pub const ANY_TIME: u64 = 253_402_300_800;

/// So far the clock of the store may be ahead of a node's. What it says beyond counts for no time
/// that a caller did not give: a clock that is days ahead would lock users out for days.
pub const AHEAD_MAX_S: u64 = 300;

/// So much longer than a token may live an entry is kept: for the leeway of a token's times and for
/// clocks that differ.
pub const KEPT_BEYOND_MS: u64 = 900_000;

/// Whose tokens are refused, in one app.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Those of a user, for sessions and for single topics.
    User(User),
    /// The token of this `jti`.
    Token(Box<str>),
    /// All.
    All,
}

/// Which tokens of a target are refused, and for how long that is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// Those that were issued before this second, unix time.
    pub issued_before: u64,
    /// When the entry is forgotten, unix milliseconds of the store's clock.
    pub until_ms: u64,
}

impl Mark {
    /// The stronger of both in each part.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            issued_before: self.issued_before.max(other.issued_before),
            until_ms: self.until_ms.max(other.until_ms),
        }
    }
}

/// One entry as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name ([`name_of`]).
    pub name: Box<str>,
    /// What it says.
    pub mark: Mark,
    /// The number of its last change. Numbers rise, and no two changes of one history have the same.
    pub at: u64,
}

impl Target {
    /// Most entries that there may be with one of these.
    #[must_use]
    pub fn most(&self) -> usize {
        match self {
            Self::Token(_) => ENTRIES_MAX,
            Self::User(_) => ENTRIES_USERS_MAX,
            Self::All => ENTRIES_ALL_MAX,
        }
    }
}

/// The name of an entry. Apps have no space, so that two entries never have one name.
#[must_use]
pub fn name_of(app: &App, target: &Target) -> Box<str> {
    match target {
        Target::User(user) => user_name(app, user),
        Target::Token(id) => token_name(app, id),
        Target::All => all_name(app),
    }
}

pub(crate) fn user_name(app: &App, user: &User) -> Box<str> {
    format!("u {app} {user}").into()
}

pub(crate) fn token_name(app: &App, id: &str) -> Box<str> {
    format!("t {app} {id}").into()
}

pub(crate) fn all_name(app: &App) -> Box<str> {
    format!("a {app}").into()
}

/// Whether it is the name of an entry that this release knows.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let app = |app: &str| App::new(app).is_ok();
    match name.split_once(' ') {
        Some(("a", of)) => app(of),
        Some(("u", of)) => of
            .split_once(' ')
            .is_some_and(|(of, user)| app(of) && User::new(user).is_ok()),
        Some(("t", of)) => of
            .split_once(' ')
            .is_some_and(|(of, id)| app(of) && !id.is_empty()),
        _ => false,
    }
}

/// 48 bits of the SHA-1 of an entry: the scripts of Redis compute the same, and numbers of Lua are
/// exact up to 53 bits.
#[must_use]
pub fn print_of(name: &str, mark: Mark) -> u64 {
    let text = format!("{name} {} {}", mark.issued_before, mark.until_ms);
    let hash = Sha1::digest(text.as_bytes());
    let bytes = hash.iter().take(6);
    bytes.fold(0, |print, byte| (print << 8) | u64::from(*byte))
}

/// Sums of prints are taken modulo this.
pub const PRINTS: u64 = 1 << 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unambiguous_and_recognised() {
        let app = App::default_app();
        let user = Target::User(User::new("t|default").unwrap());
        let token = Target::Token("a b\u{fc} c".into());
        assert_eq!(&*name_of(&app, &user), "u default t|default");
        assert_eq!(&*name_of(&app, &token), "t default a b\u{fc} c");
        assert_eq!(&*name_of(&app, &Target::All), "a default");
        for target in [user, token, Target::All] {
            assert!(is_name(&name_of(&app, &target)));
        }
        for other in [
            "",
            "a",
            "a ",
            "u default",
            "u default ",
            "t default ",
            "x default y",
            "a B",
        ] {
            assert!(!is_name(other), "{other}");
        }
    }

    #[test]
    fn a_print_is_the_one_that_the_scripts_compute() {
        // printf 'a default 1 2' | sha1sum
        let mark = Mark {
            issued_before: 1,
            until_ms: 2,
        };
        assert_eq!(print_of("a default", mark), 0x89c7_0242_3cf6);
    }

    #[test]
    fn single_tokens_never_close_the_way_to_put_out_a_user_or_all() {
        let user = Target::User(User::new("ada").unwrap());
        let most = [Target::Token("x".into()), user, Target::All].map(|target| target.most());
        assert_eq!(most, [100_000, 101_000, 102_000]);
    }

    #[test]
    fn marks_never_get_weaker() {
        let mark = |issued_before, until_ms| Mark {
            issued_before,
            until_ms,
        };
        assert_eq!(mark(1, 9).and(mark(2, 8)), mark(2, 9));
        assert_eq!(mark(2, 9).and(mark(1, 8)), mark(2, 9));
    }
}
