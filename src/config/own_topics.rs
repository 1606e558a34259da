//! `[inbox]` and `[everyone]`: sections whose topics are Fanfare's own.
//!
//! In: nothing. Out: the options of a namespace that can be set there, with the defaults that hold
//! there, and those that are settled. Pure.

/// A section whose topics are Fanfare's own: it has some of a namespace's options, and what it
/// does not offer is settled.
pub struct OwnTopics {
    /// The section.
    pub section: &'static str,
    /// The options that can be set, with the defaults that hold here.
    pub offered: &'static [(&'static str, &'static str)],
    /// The options that cannot.
    pub settled: &'static [(&'static str, &'static str)],
}

/// `[inbox]` and `[everyone]`.
pub const OWN_TOPICS: [OwnTopics; 2] = [
    OwnTopics {
        section: "inbox",
        offered: &[
            ("history_entries_max", "1000"),
            ("history_age_s", "2592000"),
            ("priority", "normal"),
            ("conflate", "false"),
            ("trace", "false"),
            ("publish", "nobody"),
            ("history", "authenticated"),
            ("authorize_publish", ""),
            ("replicas_min", "0"),
            ("replicas_timeout_ms", "1000"),
        ],
        // The server joins the owner, and nobody else can join.
        settled: &[
            ("presence", "false"),
            ("subscribe", "nobody"),
            ("presence_allow", "nobody"),
            ("authorize_subscribe", ""),
        ],
    },
    OwnTopics {
        section: "everyone",
        offered: &[
            ("history_entries_max", "0"),
            ("history_age_s", "86400"),
            ("priority", "normal"),
            ("conflate", "false"),
            ("trace", "false"),
            ("history", "anyone"),
            ("replicas_min", "0"),
            ("replicas_timeout_ms", "1000"),
        ],
        // The server joins every session, and only the API publishes.
        settled: &[
            ("presence", "false"),
            ("subscribe", "nobody"),
            ("publish", "nobody"),
            ("presence_allow", "nobody"),
            ("authorize_subscribe", ""),
            ("authorize_publish", ""),
        ],
    },
];
