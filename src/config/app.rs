//! What one app sets for itself: who gets in, and the options of its topics.
//!
//! In: `[apps.NAME]` of the file, or the same as JSON that the API was given; for the app `default`
//! the sections `[auth]`, `[namespaces.NAME]`, `[inbox]` and `[everyone]` of the node. Out: an
//! [`AppSettings`]. What an app does not say it has from those sections. Pure.

use std::collections::BTreeMap;

use fanfare_protocol::ids::{Topic, TopicKind};

use super::{Allow, Auth, Config, Namespace};

/// What one app sets for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppSettings {
    /// Who gets in. Only these keys are tried for a token of the app.
    pub auth: Auth,
    /// Options by namespace; `default` is always there.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Options of its inboxes.
    pub inbox: Namespace,
    /// Options of its topic `@`.
    pub everyone: Namespace,
    /// Which of the stored apps that had its name it is, one after the other; `None`: it is of the file.
    pub life: Option<u64>,
}

impl AppSettings {
    /// Those of the app `default`: the sections of the node.
    #[must_use]
    pub fn of_default(config: &Config) -> Self {
        Self {
            auth: config.auth.clone(),
            namespaces: config.namespaces.clone(),
            inbox: config.inbox.clone(),
            everyone: config.everyone.clone(),
            life: None,
        }
    }

    /// Whether these are of another app than those, which had the same name: one that was removed between.
    /// What moves from the store to the file or back stays the same.
    #[must_use]
    pub fn is_other_than(&self, other: &Self) -> bool {
        matches!((self.life, other.life), (Some(life), Some(other)) if life != other)
    }

    /// Those of an app that is not known: nobody gets in, nobody may do anything, nothing is kept.
    /// `node` gives the rest, which is of the node whatever the app.
    #[must_use]
    pub fn of_nobody(node: &Self) -> Self {
        let nothing = Namespace {
            history_entries_max: 0,
            presence: false,
            conflate: false,
            trace: false,
            subscribe: Allow::Nobody,
            publish: Allow::Nobody,
            history: Allow::Nobody,
            presence_allow: Allow::Nobody,
            replicas_min: 0,
            authorize_subscribe: None,
            authorize_publish: None,
            ..node.everyone.clone()
        };
        Self {
            auth: Auth {
                keys: Vec::new(),
                issuers: Vec::new(),
                anonymous: false,
                authorize_connect: None,
                ..node.auth.clone()
            },
            namespaces: BTreeMap::from([("default".to_owned(), nothing.clone())]),
            inbox: nothing.clone(),
            everyone: nothing,
            // Whoever has these is of no app that comes later.
            life: Some(u64::MAX),
        }
    }

    /// The options of a topic's namespace. An unknown namespace has the options of `default`.
    /// Presence topics are not asked here.
    #[must_use]
    pub fn namespace(&self, topic: &Topic) -> &Namespace {
        match topic.kind() {
            TopicKind::Inbox => &self.inbox,
            TopicKind::Everyone => &self.everyone,
            TopicKind::Plain | TopicKind::Presence => self
                .namespaces
                .get(topic.namespace())
                .or_else(|| self.namespaces.get("default"))
                .unwrap_or(&self.everyone),
        }
    }

    /// The operator's word for these options; `default` for names that stand for no namespace.
    #[must_use]
    pub fn namespace_name(&self, topic: &Topic) -> &str {
        match topic.kind() {
            TopicKind::Inbox => "inbox",
            TopicKind::Everyone => "everyone",
            TopicKind::Plain | TopicKind::Presence => {
                let known = self.namespaces.get_key_value(topic.namespace());
                known.map_or("default", |(name, _)| name)
            }
        }
    }
}
