//! The keys of a publication's script, in their parts: what stands there is written one behind the
//! other, where the command is, and no key is made for it alone.
//!
//! In: a topic, its partition, and its idempotency key. Out: what [`Keys`] names, in the order of
//! `publish.lua`. Pure. Bounds: [`KEYS_MAX`].

use super::Keys;
use fanfare_protocol::ids::{Topic, TopicKind};

/// Most keys of one publication.
pub const KEYS_MAX: usize = 5;

/// One key.
pub type KeyParts<'a> = [&'a str; 4];

/// See the module.
#[derive(Debug)]
pub struct PublicationKeys<'a> {
    all: [KeyParts<'a>; KEYS_MAX],
    count: usize,
}

impl<'a> PublicationKeys<'a> {
    /// Those of a publication on this topic, which is of this partition.
    #[must_use]
    pub fn new(
        keys: &'a Keys,
        topic: &'a Topic,
        partition: u32,
        idempotency: Option<&'a str>,
    ) -> Self {
        let begin = keys.begin(partition);
        let of = |end, rest| [begin, topic.qualified(), end, rest];
        let channel = [keys.channel_begin(partition), topic.qualified(), "}", ""];
        let mut all = [channel, of("}:s", ""), of("}:l", ""), channel, channel];
        let mut count = 3;
        let cursor = (topic.kind() == TopicKind::Inbox).then(|| of("}:c", ""));
        let idempotency = idempotency.map(|key| of("}:k:", key));
        for key in cursor.into_iter().chain(idempotency) {
            all[count] = key;
            count += 1;
        }
        Self { all, count }
    }

    /// One after the other.
    #[must_use]
    pub fn as_slice(&self) -> &[KeyParts<'a>] {
        &self.all[..self.count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanfare_protocol::ids::App;

    #[test]
    fn the_parts_of_a_key_are_the_key() {
        let keys = Keys::of_database("ff", 256, 2);
        for name in ["t", "@ada"] {
            let topic = Topic::new(&App::default_app(), name).unwrap();
            let partition = keys.partition_of(&topic);
            let parts = PublicationKeys::new(&keys, &topic, partition, Some("once"));
            let named: Vec<_> = parts.as_slice().iter().map(|key| key.concat()).collect();
            let mut expected = vec![keys.channel(&topic), keys.stream(&topic), keys.last(&topic)];
            if name == "@ada" {
                expected.push(keys.cursor(&topic));
            }
            expected.push(keys.idempotency(&topic, "once"));
            assert_eq!(named, expected);
        }
    }
}
