//! The scripts of a topic: what must be one step in Redis.
//!
//! In: the Lua files of `broker/scripts`, each behind its `#!` line and the parts it shares with
//! others. Out: one [`Script`] each. Every script declares all its keys, which stand under one
//! tag. All of them begin with `#!lua`, so that a demoted master refuses them before the first
//! write; those that only read (and renew) still run where memory is full, so that clients can
//! resume. None has `no-writes`: then a demoted master would answer from stale data.

use crate::redis::Script;

/// A script that writes: shebang, the common words, the file.
macro_rules! script {
    ($file:literal) => {
        Script::new(concat!(
            "#!lua\n",
            include_str!("../scripts/position.lua"),
            include_str!("../scripts/append.lua"),
            include_str!(concat!("../scripts/", $file))
        ))
    };
    ($file:literal, allow-oom) => {
        Script::new(concat!(
            "#!lua flags=allow-oom\n",
            include_str!("../scripts/position.lua"),
            include_str!(concat!("../scripts/", $file))
        ))
    };
}

/// All scripts of the broker.
#[derive(Debug)]
pub struct Scripts {
    /// A publication.
    pub publish: Script,
    /// What came after a position.
    pub since: Script,
    /// The newest position, remembered on.
    pub last: Script,
    /// A page of history.
    pub history: Script,
    /// Cursor, newest position and pending entries of an inbox.
    pub inbox: Script,
    /// Moves a cursor.
    pub ack: Script,
    /// Makes a member.
    pub enter: Script,
    /// Removes a member.
    pub leave: Script,
    /// Removes the members of a dead owner.
    pub reap: Script,
    /// All members.
    pub members: Script,
    /// A probe of the feed.
    pub probe: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            publish: script!("publish.lua"),
            since: script!("since.lua", allow - oom),
            last: script!("last.lua", allow - oom),
            history: script!("history.lua", allow - oom),
            inbox: script!("inbox.lua", allow - oom),
            ack: script!("ack.lua"),
            enter: script!("enter.lua"),
            leave: script!("leave.lua"),
            reap: script!("reap.lua"),
            members: script!("members.lua", allow - oom),
            probe: script!("probe.lua", allow - oom),
        }
    }
}

impl Scripts {
    /// Every script, for loading on a new connection.
    #[must_use]
    pub fn all(&self) -> [&Script; 11] {
        [
            &self.publish,
            &self.since,
            &self.last,
            &self.history,
            &self.inbox,
            &self.ack,
            &self.enter,
            &self.leave,
            &self.reap,
            &self.members,
            &self.probe,
        ]
    }
}
