//! Patterns again, read in another way than the protocol's crate reads them.
//!
//! In: a pattern, the name of a topic. Out: whether one names the other. Pure.

/// Patterns again, by segments from the end of the pattern.
pub(super) fn names(pattern: &str, name: &str) -> bool {
    fn fits(pattern: &[&str], name: &[&str]) -> bool {
        match (pattern, name) {
            ([before @ .., "**"], rest) => {
                let (first, more) = rest.split_at(before.len().min(rest.len()));
                !more.is_empty() && fits(before, first)
            }
            ([before @ .., last], [rest @ .., one]) => {
                (*last == "*" || last == one) && fits(before, rest)
            }
            ([], []) => true,
            _ => false,
        }
    }
    let (of_inboxes, inbox) = (pattern.starts_with('@'), name.starts_with('@'));
    if of_inboxes != inbox || (inbox && (pattern == "@" || name == "@")) {
        return pattern == "@" && name == "@";
    }
    let split = |text: &'_ str| -> Vec<String> {
        let text = text.trim_start_matches('@');
        text.split(':').map(str::to_owned).collect()
    };
    let (pattern, name) = (split(pattern), split(name));
    let pattern: Vec<_> = pattern.iter().map(String::as_str).collect();
    let name: Vec<_> = name.iter().map(String::as_str).collect();
    fits(&pattern, &name)
}
