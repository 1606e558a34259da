//! What a token lets its bearer do: the claim `can`, and the rule that a namespace adds to it.
//!
//! In: `can`, a map from operations to lists of topic patterns. Out: yes or no for one operation
//! on one topic. Owned by the session that the token opened. Bounded by the token's length; an
//! operation that `can` does not name has no pattern and is not allowed.
//!
//! A pattern is split at every `:`. `*` stands for exactly one segment; `**`, only at the end,
//! for one or more. So `orders:**` is everything in the namespace `orders` and not the topic
//! `orders`, which belongs to the namespace `default`. A pattern without a leading `@` matches no
//! inbox: who may write to people's inboxes must be told so with `@*` (names without `:`) or
//! `@**` (all). Names of operations that do not exist are passed over; a misplaced `*` refuses
//! the token, because its author meant something that it would not do.

use crate::config::Allow;
use crate::protocol::codec::Wire;
use crate::protocol::ids::{Topic, User};
use crate::protocol::raw::{Fields, Raw};

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

/// The claim `can`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    subscribe: Box<[Pattern]>,
    publish: Box<[Pattern]>,
    presence: Box<[Pattern]>,
    history: Box<[Pattern]>,
}

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
        let known = ["subscribe", "publish", "presence", "history"];
        let fields =
            Fields::read(Wire::Json, json.as_bytes(), &known).map_err(|_| RightsError::Form)?;
        if !fields.repeated().is_empty() {
            return Err(RightsError::Form);
        }
        let patterns = |operation| -> Result<Box<[Pattern]>, RightsError> {
            let Some(list) = fields.get(operation).and_then(Raw::json) else {
                return Ok(Box::default());
            };
            let list: Vec<String> = serde_json::from_str(list).map_err(|_| RightsError::Form)?;
            list.into_iter().map(Pattern::new).collect()
        };
        Ok(Self {
            subscribe: patterns("subscribe")?,
            publish: patterns("publish")?,
            presence: patterns("presence")?,
            history: patterns("history")?,
        })
    }

    /// Whether some pattern of the operation matches the topic's name (without its app).
    #[must_use]
    pub fn allows(&self, operation: Operation, topic_name: &str) -> bool {
        let patterns = match operation {
            Operation::Subscribe => &self.subscribe,
            Operation::Publish => &self.publish,
            Operation::Presence => &self.presence,
            Operation::History => &self.history,
        };
        patterns.iter().any(|pattern| pattern.matches(topic_name))
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
    let named = topic_token || can.is_some_and(|can| can.allows(operation, topic.name()));
    let unrestricted = named || can.is_none();
    match allow {
        Allow::Anyone => unrestricted,
        Allow::Authenticated => user.is_some() && unrestricted,
        Allow::Token => named,
        Allow::Nobody => false,
    }
}

/// A topic pattern whose stars stand where they may.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern(Box<str>);

impl Pattern {
    fn new(text: String) -> Result<Self, RightsError> {
        let mut segments = text
            .strip_prefix('@')
            .unwrap_or(&text)
            .split(':')
            .peekable();
        while let Some(segment) = segments.next() {
            let sound = match segment {
                "*" => true,
                "**" => segments.peek().is_none(),
                literal => !literal.contains('*'),
            };
            if !sound {
                return Err(RightsError::Pattern);
            }
        }
        Ok(Self(text.into()))
    }

    fn matches(&self, name: &str) -> bool {
        let (pattern, name) = match (self.0.strip_prefix('@'), name.strip_prefix('@')) {
            // Everyone is no inbox of somebody; only `@` itself names it.
            (Some(pattern), Some("")) => return pattern.is_empty(),
            (Some(pattern), Some(user)) => (pattern, user),
            (None, None) => (&*self.0, name),
            _ => return false,
        };
        let mut segments = name.split(':');
        for wanted in pattern.split(':') {
            match (wanted, segments.next()) {
                (_, None) => return false,
                ("**", Some(_)) => return true,
                ("*", Some(_)) => {}
                (literal, Some(segment)) if literal == segment => {}
                _ => return false,
            }
        }
        segments.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ids::App;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern.to_owned()).unwrap().matches(name)
    }

    #[test]
    fn a_star_is_one_segment_and_two_are_the_rest() {
        let cases = [
            ("orders", "orders", true),
            ("orders", "orders:7", false),
            ("orders:7", "orders:70", false),
            ("orders:*", "orders:7", true),
            ("orders:*", "orders", false),
            ("orders:*", "orders:7:items", false),
            ("orders:*:items", "orders:7:items", true),
            ("orders:*:items", "orders:7:other", false),
            ("orders:**", "orders:7", true),
            ("orders:**", "orders:7:items", true),
            ("orders:**", "orders", false),
            ("orders:**", "orders2:7", false),
            ("*", "plain", true),
            ("*", "orders:7", false),
            ("**", "orders:7", true),
            ("*:7", "orders:7", true),
            ("a::b", "a::b", true),
            ("a:*:b", "a::b", true),
            ("Orders:7", "orders:7", false),
            ("", "a", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn inboxes_are_matched_only_by_patterns_that_say_so() {
        let cases = [
            ("**", "@alice", false),
            ("*", "@alice", false),
            ("@alice", "@alice", true),
            ("@alice", "alice", false),
            ("@*", "@alice", true),
            ("@*", "alice", false),
            ("@*", "@team:alice", false),
            ("@**", "@team:alice", true),
            ("@team:*", "@team:alice", true),
            ("@**", "@", false),
            ("@*", "@", false),
            ("@", "@", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
    }

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
}
