//! Names of the keys that hold the members of a topic.
//!
//! In: a `%T` topic. Out: names under its tag. Owns nothing.

use super::Keys;
use fanfare_protocol::ids::Topic;

impl Keys {
    /// The hash of members (of a `%T` topic).
    #[must_use]
    pub fn hash(&self, topic: &Topic) -> String {
        self.of(topic, "h")
    }

    /// The sessions of the members in their order (of a `%T` topic).
    #[must_use]
    pub fn member_names(&self, topic: &Topic) -> String {
        self.of(topic, "n")
    }

    /// How many members each owner has (of a `%T` topic).
    #[must_use]
    pub fn member_counts(&self, topic: &Topic) -> String {
        self.of(topic, "o")
    }
}
