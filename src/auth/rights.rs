//! What a token lets its bearer do: the claim `can`, and the rule that a namespace adds to it.
//!
//! In: `can`, a map from operations to lists of topic patterns. Out: yes or no for one operation
//! on one topic. Owned by the sessions whose tokens say it ([`KnownRights`]). Bounded by the token's
//! length, of which it keeps the patterns and nothing else, and by 65,535 bytes of them, more than the
//! longest token carries; an operation that `can` does not name has no pattern and is not allowed.
//!
//! A pattern is split at every `:`. `*` stands for exactly one segment; `**`, only at the end,
//! for one or more. So `orders:**` is everything in the namespace `orders` and not the topic
//! `orders`, which belongs to the namespace `default`. A pattern without a leading `@` matches no
//! inbox: who may write to people's inboxes must be told so with `@*` (names without `:`) or
//! `@**` (all). Names of operations that do not exist are passed over; a misplaced `*` refuses
//! the token, because its author meant something that it would not do.

use std::borrow::Cow;
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::config::Allow;
use fanfare_protocol::form::Encoding;
use fanfare_protocol::ids::{Topic, User};
use fanfare_protocol::pattern::{is_sound, matches};
use fanfare_protocol::raw::{Fields, Raw};

/// What a session wants to do with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Join it.
    Subscribe,
    /// Publish on it.
    Publish,
    /// Be a member and see members.
    Presence,
    /// Read what is retained.
    History,
}

/// The claim `can`: the patterns of all operations, one behind the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rights {
    text: Box<str>,
    /// Where each pattern ends in the text.
    ends: Box<[u16]>,
    /// How many patterns come before those of the next operation, in the order of [`OPERATIONS`].
    counts: [u16; OPERATIONS.len()],
    /// They take away only: what they match is not permitted by that.
    only_narrows: bool,
    /// Rights that must match as well.
    also: Option<Arc<Rights>>,
}

/// The operations, by the names that `can` has for them.
const OPERATIONS: [&str; 4] = ["subscribe", "publish", "presence", "history"];

/// Why a claim `can` is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RightsError {
    /// Not a map from operations, each there once, to lists of text.
    #[error("`can` must be a map from operations to lists of patterns")]
    Form,
    /// A `*` inside a segment, or a `**` that is not the last one.
    #[error("a `*` stands for a whole segment between `:`, a `**` only for the last ones")]
    Pattern,
}

impl Rights {
    /// Reads the claim from its JSON text.
    ///
    /// # Errors
    /// [`RightsError`]. A claim that is only partly understood grants nothing.
    pub fn from_json(json: &str) -> Result<Self, RightsError> {
        let fields = Fields::read(Encoding::Json, json.as_bytes(), &OPERATIONS)
            .map_err(|_| RightsError::Form)?;
        if !fields.repeated().is_empty() {
            return Err(RightsError::Form);
        }
        let (mut text, mut ends) = (String::new(), Vec::new());
        let mut counts = [0; OPERATIONS.len()];
        for (operation, count) in OPERATIONS.iter().zip(&mut counts) {
            let list = fields.get(operation).and_then(Raw::json);
            let list: Vec<Cow<'_, str>> = match list {
                Some(list) => serde_json::from_str(list).map_err(|_| RightsError::Form)?,
                None => Vec::new(),
            };
            for pattern in list {
                if !is_sound(&pattern) {
                    return Err(RightsError::Pattern);
                }
                text.push_str(&pattern);
                ends.push(u16::try_from(text.len()).map_err(|_| RightsError::Form)?);
            }
            *count = u16::try_from(ends.len()).map_err(|_| RightsError::Form)?;
        }
        Ok(Self {
            text: text.into(),
            ends: ends.into(),
            counts,
            only_narrows: false,
            also: None,
        })
    }

    /// The same, narrowed by others: what both allow.
    #[must_use]
    pub fn narrowed(&self, by: Self) -> Self {
        let before = self.also.clone();
        let by = match before {
            Some(before) => before.narrowed(by),
            None => by,
        };
        Self {
            also: Some(Arc::new(by)),
            ..self.clone()
        }
    }

    /// The same for whoever had none: they take away what they do not match, and permit nothing that needs a
    /// match.
    #[must_use]
    pub fn narrowing(self) -> Self {
        Self {
            only_narrows: true,
            ..self
        }
    }

    /// Whether some pattern of the operation matches the topic's name (without its app).
    #[must_use]
    pub fn allows(&self, operation: Operation, topic_name: &str) -> bool {
        let at = operation as usize;
        let first = at.checked_sub(1).map_or(0, |before| self.counts[before]);
        let mut patterns = first as usize..self.counts[at] as usize;
        let is_matched = patterns.any(|nth| {
            let begins = nth.checked_sub(1).map_or(0, |before| self.ends[before]);
            matches(
                &self.text[begins as usize..self.ends[nth] as usize],
                topic_name,
            )
        });
        let also = self.also.as_ref();
        is_matched && also.is_none_or(|also| also.allows(operation, topic_name))
    }
}

/// The rights of all sessions, each kept once as long as somebody has them. Bounded by twice the
/// sessions; one lock, held for one look, and for a look at all of them once in as many new ones.
#[derive(Debug, Default)]
pub struct KnownRights(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    rights: FxHashMap<u64, Weak<Rights>>,
    /// When there are so many, those go that nobody has any more.
    full_at: usize,
}

/// Rights that are kept before anybody asks whether they are still had.
const KNOWN_MIN: usize = 32;

impl KnownRights {
    /// The same rights, shared with whoever has them already.
    #[must_use]
    pub fn shared(&self, rights: Rights) -> Arc<Rights> {
        let hash = FxBuildHasher.hash_one(&rights);
        // Where a holder of the lock panicked, nothing was half done.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.rights.get(&hash).and_then(Weak::upgrade)
            && *same == rights
        {
            return same;
        }
        known.make_room();
        let rights = Arc::new(rights);
        known.rights.insert(hash, Arc::downgrade(&rights));
        rights
    }
}

impl Known {
    /// Lets go of those that nobody has any more, where there are twice as many as after the last
    /// time: so each new one pays for a look at two.
    fn make_room(&mut self) {
        if self.rights.len() < self.full_at.max(KNOWN_MIN) {
            return;
        }
        self.rights.retain(|_, rights| rights.strong_count() > 0);
        self.full_at = 2 * self.rights.len();
        self.rights.shrink_to(self.full_at);
    }
}

/// Whether a session may do `operation` on `topic`, where the namespace says `allow`.
///
/// `topic_token` says that the session holds a valid token for this very topic; it stands in for
/// a matching `can`. The session's own inbox and everyone are not asked here: their rules are the
/// same in every configuration.
#[must_use]
pub fn permitted(
    allow: Allow,
    operation: Operation,
    topic: &Topic,
    user: Option<&User>,
    can: Option<&Rights>,
    topic_token: bool,
) -> bool {
    let matched = can.is_some_and(|can| can.allows(operation, topic.name()));
    let named = topic_token || (matched && can.is_some_and(|can| !can.only_narrows));
    let unrestricted = topic_token || matched || can.is_none();
    match allow {
        Allow::Anyone => unrestricted,
        Allow::Authenticated => user.is_some() && unrestricted,
        Allow::Token => named,
        Allow::Nobody => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanfare_protocol::ids::App;

    #[test]
    fn a_misplaced_star_is_refused_and_an_unknown_operation_passed_over() {
        for bad in ["orders*", "a:b*", "**:a", "a:**:b", "***", "*a", "@a*"] {
            let can = format!(r#"{{"subscribe":["{bad}"]}}"#);
            assert_eq!(Rights::from_json(&can), Err(RightsError::Pattern), "{bad}");
        }
        for bad in [
            r#"{"subscribe":"a"}"#,
            r#"{"subscribe":null}"#,
            r#"{"subscribe":[1]}"#,
            r#"{"subscribe":["a"],"subscribe":["**"]}"#,
            "null",
            "[]",
            r#"[["a"],["a"],["a"],["a"]]"#,
            r#""**""#,
        ] {
            assert_eq!(Rights::from_json(bad), Err(RightsError::Form), "{bad}");
        }
        let rights = Rights::from_json(r#"{"drink":["**"],"publish":["a"]}"#).unwrap();
        assert!(rights.allows(Operation::Publish, "a"));
        for operation in [
            Operation::Subscribe,
            Operation::Presence,
            Operation::History,
        ] {
            assert!(!rights.allows(operation, "a"), "{operation:?}");
        }
    }

    #[test]
    fn each_operation_has_its_own_patterns() {
        let can = r#"{"subscribe":["s"],"publish":["p"],"presence":["m"],"history":["h"]}"#;
        let rights = Rights::from_json(can).unwrap();
        let own = [
            (Operation::Subscribe, "s"),
            (Operation::Publish, "p"),
            (Operation::Presence, "m"),
            (Operation::History, "h"),
        ];
        for (operation, _) in own {
            for (other, name) in own {
                assert_eq!(rights.allows(operation, name), operation == other);
            }
        }
    }

    #[test]
    fn the_namespace_decides_and_can_restricts() {
        let topic = Topic::new(&App::default_app(), "a").unwrap();
        let user = User::new("u").ok();
        let matching = Rights::from_json(r#"{"subscribe":["a"]}"#).unwrap();
        let other = Rights::from_json(r#"{"subscribe":["b"]}"#).unwrap();
        // Expected for: anyone, authenticated, token, nobody.
        let cases = [
            (None, None, false, [true, false, false, false]),
            (user.as_ref(), None, false, [true, true, false, false]),
            (
                user.as_ref(),
                Some(&matching),
                false,
                [true, true, true, false],
            ),
            (
                user.as_ref(),
                Some(&other),
                false,
                [false, false, false, false],
            ),
            (user.as_ref(), None, true, [true, true, true, false]),
            (user.as_ref(), Some(&other), true, [true, true, true, false]),
        ];
        let allows = [
            Allow::Anyone,
            Allow::Authenticated,
            Allow::Token,
            Allow::Nobody,
        ];
        for (user, can, topic_token, expected) in cases {
            let answers = allows.map(|allow| {
                permitted(allow, Operation::Subscribe, &topic, user, can, topic_token)
            });
            assert_eq!(answers, expected, "{user:?} {can:?} {topic_token}");
        }
    }

    #[test]
    fn narrowed_rights_allow_what_both_do_and_make_nothing_permitted() {
        let rights = |patterns: &str| {
            let can = format!(r#"{{"subscribe":{patterns}}}"#);
            Rights::from_json(&can).unwrap()
        };
        let own = rights(r#"["a:*","b:1"]"#);
        let once = own.narrowed(rights(r#"["a:1","a:2","b:**","c:1"]"#));
        let twice = once.narrowed(rights(r#"["*:1"]"#));
        let allowed = |rights: &Rights| {
            let names = ["a:1", "a:2", "a:3", "b:1", "c:1"].into_iter();
            let names = names.filter(|name| rights.allows(Operation::Subscribe, name));
            names.collect::<Vec<_>>()
        };
        assert_eq!(allowed(&own), ["a:1", "a:2", "a:3", "b:1"]);
        assert_eq!(allowed(&once), ["a:1", "a:2", "b:1"]);
        assert_eq!(allowed(&twice), ["a:1", "b:1"]);
        // Whoever had no `can` gets none by that.
        let (app, user) = (App::default_app(), User::new("u").ok());
        let narrowing = rights(r#"["a:1"]"#).narrowing();
        for (name, expected) in [
            ("a:1", [true, true, false, false]),
            ("a:2", [false, false, false, false]),
        ] {
            let topic = Topic::new(&app, name).unwrap();
            let allows = [
                Allow::Anyone,
                Allow::Authenticated,
                Allow::Token,
                Allow::Nobody,
            ];
            let answers = allows.map(|allow| {
                let (user, can) = (user.as_ref(), Some(&narrowing));
                permitted(allow, Operation::Subscribe, &topic, user, can, false)
            });
            assert_eq!(answers, expected, "{name}");
        }
    }

    #[test]
    fn equal_rights_are_kept_once_and_no_longer_than_somebody_has_them() {
        let known = KnownRights::default();
        let rights = |topic: usize| {
            let can = format!(r#"{{"subscribe":["t:{topic}"],"publish":["a","b:**"]}}"#);
            Rights::from_json(&can).unwrap()
        };
        let one = known.shared(rights(1));
        assert!(Arc::ptr_eq(&one, &known.shared(rights(1))));
        let other = known.shared(rights(2));
        assert!(other.allows(Operation::Subscribe, "t:2"));
        assert!(!other.allows(Operation::Subscribe, "t:1"));
        for topic in 0..10_000 {
            // Gone at once, except for the two that are kept.
            drop(known.shared(rights(topic)));
        }
        assert!(known.0.lock().unwrap().rights.capacity() < 100);
        assert!(Arc::ptr_eq(&one, &known.shared(rights(1))));
    }

    #[test]
    fn new_rights_do_not_look_through_all_that_are_known() {
        let known = KnownRights::default();
        let count = || known.0.lock().unwrap().rights.len();
        let new = |topic: usize| {
            let can = format!(r#"{{"subscribe":["t:{topic}"]}}"#);
            let before = count();
            let rights = known.shared(Rights::from_json(&can).unwrap());
            let looked_at = if count() > before { 0 } else { before };
            (rights, looked_at)
        };
        // Whatever the memory of the map is, it is full at some of these.
        let mut held = Vec::new();
        let mut looked_at = 0;
        for topic in 0..2_000 {
            held.push(new(topic).0);
            looked_at += new(100_000 + topic).1;
        }
        assert!(looked_at <= 4 * 4_000, "looked at {looked_at}");
        drop(held);
        for topic in 0..5_000 {
            drop(new(topic));
        }
        assert!(count() <= 2 * KNOWN_MIN, "{} are known", count());
    }
}
