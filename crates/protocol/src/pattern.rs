//! Patterns of topics, as tokens (`can`) and API clients (`topics`) have them.
//!
//! In: a pattern and a topic's name without its app. Out: whether the one names the other. Segments
//! are split by `:`; `*` is one segment, `**` (only as the last) one or more. A pattern names inboxes
//! only where it begins with `@`, and `@` itself is named by `@` alone: who may read all topics may
//! not read everybody's inbox by that. Pure; bounds are those of names.

/// What a pattern must be.
pub const SOUND: &str =
    "a `*` stands for a whole segment between `:`, a `**` only for the last ones";

/// Whether the stars of a pattern stand where they may.
#[must_use]
pub fn is_sound(pattern: &str) -> bool {
    let pattern = pattern.strip_prefix('@').unwrap_or(pattern);
    let mut segments = pattern.split(':').peekable();
    while let Some(segment) = segments.next() {
        let sound = match segment {
            "*" => true,
            "**" => segments.peek().is_none(),
            literal => !literal.contains('*'),
        };
        if !sound {
            return false;
        }
    }
    true
}

/// Whether a sound pattern matches a topic's name.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = match (pattern.strip_prefix('@'), name.strip_prefix('@')) {
        // Everyone is no inbox of somebody; only `@` itself names it.
        (Some(pattern), Some("")) => return pattern.is_empty(),
        (Some(pattern), Some(user)) => (pattern, user),
        (None, None) => (pattern, name),
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_star_beside_other_letters_is_not_sound() {
        for bad in ["orders*", "a:b*", "**:a", "a:**:b", "***", "*a", "@a*"] {
            assert!(!is_sound(bad), "{bad}");
        }
        for good in ["", "@", "*", "**", "@**", "a:*:b", "a:**", "@*"] {
            assert!(is_sound(good), "{good}");
        }
    }
}
