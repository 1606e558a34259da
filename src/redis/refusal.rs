//! How a server of Redis refuses what it is asked, by the first word of its answer.
//!
//! In: the text of an error. Out: the [`Refusal`] of the table that it is, if any: Redis' own word,
//! what it means for the node, and what an operator does about it. Pure. Bounds: one row a word, so
//! that labels and messages made of it are few.

use crate::telemetry::metrics::{ControlCounters, Counter};

/// What a refusal means for the whole server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing can be written; reading goes on.
    ReadOnly,
    /// The server is of no use as long as it says so.
    Away,
}

/// A row of the table.
pub struct Refusal {
    /// As Redis says it, or what it is called where the answer has no word of its own.
    pub word: &'static str,
    /// Stands in the answer.
    text: &'static str,
    /// What it means.
    pub effect: Effect,
    /// What to do.
    pub advice: &'static str,
    /// How many masters refuse so now.
    pub gauge: fn(&ControlCounters) -> &Counter,
}

impl std::fmt::Debug for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word)
    }
}

/// Each word is there once.
impl PartialEq for Refusal {
    fn eq(&self, other: &Self) -> bool {
        self.word == other.word
    }
}

impl Eq for Refusal {}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.effect {
            Effect::ReadOnly => "Redis takes no writes",
            Effect::Away => "Redis cannot be used",
        };
        write!(f, "{what}: {}, {}", self.word, self.advice)
    }
}

macro_rules! refusals {
    ($($word:literal $text:literal $effect:ident $gauge:expr, $advice:literal,)*) => {
        /// Every refusal that is known, as docs/redis.md lists them.
        pub static REFUSALS: &[Refusal] = &[$(Refusal {
            word: $word,
            text: $text,
            effect: Effect::$effect,
            advice: $advice,
            gauge: $gauge,
        },)*];
    };
}

refusals! {
    "NOREPLICAS" "NOREPLICAS" ReadOnly |control| &control.refusing_noreplicas,
        "fewer replicas follow than min-replicas-to-write: bring them back, or lower it",
    "MISCONF" "MISCONF" ReadOnly |control| &control.refusing_misconf,
        "it cannot write its data to disk: see its log, and the disk",
    "OOM" "OOM" ReadOnly |control| &control.refusing_oom,
        "it has used maxmemory: raise that, or keep less history",
    "READONLY" "READONLY" Away |control| &control.refusing_readonly,
        "it is a replica, or has just become one: redis.url must lead to the master",
    "MASTERDOWN" "MASTERDOWN" Away |control| &control.refusing_masterdown,
        "it is a replica without its master: redis.url must lead to the master",
    "LOADING" "LOADING" Away |control| &control.refusing_loading,
        "it reads its data, and takes commands when that is done",
    "BUSY" "BUSY" Away |control| &control.refusing_busy,
        "a script or function of another program runs on and on: SCRIPT KILL or FUNCTION KILL ends it",
    "CLUSTERDOWN" "CLUSTERDOWN" Away |control| &control.refusing_clusterdown,
        "slots have no master, or most masters are away: see CLUSTER INFO, and set \
         cluster-require-full-coverage to no",
    "NOAUTH" "NOAUTH" Away |control| &control.refusing_noauth,
        "it wants a password: set redis.password_file, or a login in redis.url",
    "WRONGPASS" "WRONGPASS" Away |control| &control.refusing_wrongpass,
        "look into redis.user and redis.password_file, or the login in redis.url",
    "NOPERM" "NOPERM" Away |control| &control.refusing_noperm,
        "the user lacks a right: see the ACL line in docs/redis.md",
    "NOPERM" "The user executing the script can" Away |control| &control.refusing_noperm,
        "the user lacks a right: see the ACL line in docs/redis.md",
    "NOPERM" "ACL failure in script" Away |control| &control.refusing_noperm,
        "the user lacks a right: see the ACL line in docs/redis.md",
    "DENIED" "DENIED" Away |control| &control.refusing_denied,
        "it is in protected mode: give it a password, or the address to listen on",
    "MAXCLIENTS" "max number of clients" Away |control| &control.refusing_maxclients,
        "it has as many connections as maxclients allows: raise that",
    "NOPROTO" "NOPROTO" Away |control| &control.refusing_noproto,
        "Redis 7.0 or newer is needed",
    "NOPROTO" "unknown command 'HELLO'" Away |control| &control.refusing_noproto,
        "Redis 7.0 or newer is needed",
    "DATABASE" "DB index is out of range" Away |control| &control.refusing_database,
        "the server has no database of that number: see the end of redis.url, and `databases` in the \
         configuration of Redis",
    "DATABASE" "SELECT is not allowed in cluster mode" Away |control| &control.refusing_database,
        "a Redis Cluster has no database but 0: leave the number in redis.url out",
    "NOCLUSTER" "cluster support disabled" Away |control| &control.refusing_nocluster,
        "it is a single server: write redis:// and not redis-cluster:// in redis.url",
    "NOSENTINEL" "unknown command 'SENTINEL'" Away |control| &control.refusing_nosentinel,
        "what answers is no sentinel: name the sentinels, with their port, in redis.url",
}

impl Refusal {
    /// The refusal that this answer is.
    #[must_use]
    pub fn of(details: &str) -> Option<&'static Self> {
        // A word comes first; without one the server begins with ERR.
        let is_it = |row: &&Refusal| match details.starts_with("ERR ") || row.word != row.text {
            true => row.word != row.text && details.contains(row.text),
            false => details.split([' ', ':']).next() == Some(row.text),
        };
        REFUSALS.iter().find(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(details: &str) -> Option<&'static str> {
        Refusal::of(details).map(|refusal| refusal.word)
    }

    #[test]
    fn an_answer_is_known_by_its_word_or_its_text() {
        for (details, expected) in [
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                Some("OOM"),
            ),
            (
                "NOREPLICAS Not enough good replicas to write.",
                Some("NOREPLICAS"),
            ),
            ("ERR max number of clients reached", Some("MAXCLIENTS")),
            (
                "ERR unknown command 'SENTINEL', with args beginning with: 'm' ",
                Some("NOSENTINEL"),
            ),
            ("ERR DB index is out of range", Some("DATABASE")),
            (
                "ERR The user executing the script can't access at least one of the channels",
                Some("NOPERM"),
            ),
            (
                "ERR ACL failure in script: User ff has no permissions to access the 'x' channel",
                Some("NOPERM"),
            ),
            ("ERR value is not an integer, LOADING", None),
            ("BUSYGROUP Consumer Group name already exists", None),
            ("Request timed out.", None),
        ] {
            assert_eq!(word(details), expected, "{details}");
        }
    }

    #[test]
    fn each_row_is_found_by_its_own_text() {
        for row in REFUSALS {
            let answer = match row.word == row.text {
                true => format!("{} some more.", row.text),
                false => format!("ERR {} some more.", row.text),
            };
            assert_eq!(word(&answer), Some(row.word), "{answer}");
        }
    }
}
