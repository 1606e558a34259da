//! The scripts of a topic: what must be one step in Redis.
//!
//! In: the Lua files of `broker/scripts`, each behind its `#!` line and the parts it shares with
//! others. Out: one [`Script`] each. Every script declares all its keys, which stand under one
//! tag. All of them begin with `#!lua`, so that a demoted master refuses them before the first
//! write; those that only read (and renew) still run where memory is full, so that clients can
//! resume. None has `no-writes`: then a demoted master would answer from stale data.

use crate::redis::Script;

/// A script that writes and tells: shebang, by which command it tells, the common words, the files.
macro_rules! telling {
    ($spread:literal, $($file:literal),+) => {
        Script::new(concat!(
            "#!lua\nlocal spread = '",
            $spread,
            "'\n",
            include_str!("../scripts/position.lua"),
            include_str!("../scripts/append.lua"),
            $(include_str!(concat!("../scripts/", $file))),+
        ))
    };
}

/// The variant for a cluster, or for one server.
macro_rules! by_form {
    ($is_sharded:expr, $($file:literal),+) => {
        if $is_sharded {
            telling!("SPUBLISH", $($file),+)
        } else {
            telling!("PUBLISH", $($file),+)
        }
    };
}

/// A script that reads, and runs where memory is full.
macro_rules! reading {
    ($file:literal) => {
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
    /// A page of members.
    pub members: Script,
    /// A probe of the feed.
    pub probe: Script,
}

impl Scripts {
    /// The scripts for a master of a cluster, or for a server that has everything.
    #[must_use]
    pub fn new(is_sharded: bool) -> Self {
        Self {
            publish: by_form!(is_sharded, "publish.lua"),
            since: reading!("since.lua"),
            last: reading!("last.lua"),
            history: reading!("history.lua"),
            inbox: reading!("inbox.lua"),
            ack: by_form!(is_sharded, "ack.lua"),
            enter: by_form!(is_sharded, "membership.lua", "enter.lua"),
            leave: by_form!(is_sharded, "membership.lua", "leave.lua"),
            reap: by_form!(is_sharded, "membership.lua", "reap.lua"),
            members: reading!("members.lua"),
            probe: reading!("probe.lua"),
        }
    }

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
