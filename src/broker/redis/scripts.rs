//! The scripts of a topic: what must be one step in Redis.
//!
//! In: the Lua files of `broker/scripts`, each behind its `#!` line and the parts it shares with
//! others. Out: one [`Script`] each. Every script declares all its keys, which stand under one
//! tag. All of them begin with `#!lua`, so that a demoted master, and one that takes no writes,
//! refuses them before the first write. Those that read, and those that take away or move a little,
//! still run where memory is full. Those that read are there twice: a script with `no-writes` runs
//! where others are refused, but a demoted master would answer it from stale data, so it first asks
//! who it is.

use crate::redis::Script;

/// Among so many variants each publisher has one by chance. A server keeps every script that it was
/// ever given, some 10 KB each; and a pair that has the same one is rare.
const VARIANTS: u16 = 4_096;

/// A script that writes and tells: shebang, by which command it tells, the common words, the files.
/// With `flags=allow-oom` it runs where memory is full: it takes away, or moves a little.
macro_rules! telling {
    ($flags:literal, $spread:literal, $($file:literal),+) => {
        Script::new(concat!(
            "#!lua",
            $flags,
            "\nlocal spread = '",
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
    ($is_sharded:expr, $flags:literal, $($file:literal),+) => {
        if $is_sharded {
            telling!($flags, "SPUBLISH", $($file),+)
        } else {
            telling!($flags, "PUBLISH", $($file),+)
        }
    };
}

/// A script that reads, and renews how long what it reads is remembered.
#[derive(Debug)]
pub struct Reading {
    /// For a master that takes writes, or whose memory is full.
    pub usual: Script,
    /// For a master that takes none: it renews nothing, and asks itself whether it is a master.
    pub frozen: Script,
}

macro_rules! reading {
    ($file:literal) => {
        Reading {
            usual: Script::new(concat!(
                "#!lua flags=allow-oom\n",
                "local function renew(key, ms) redis.call('PEXPIRE', key, ms) end\n",
                include_str!("../scripts/position.lua"),
                include_str!(concat!("../scripts/", $file))
            )),
            frozen: Script::new(concat!(
                "#!lua flags=no-writes\n",
                include_str!("../scripts/frozen.lua"),
                include_str!("../scripts/position.lua"),
                include_str!(concat!("../scripts/", $file))
            )),
        }
    };
}

/// All scripts of the broker.
#[derive(Debug)]
pub struct Scripts {
    /// A publication. In a variant of this link's own, and loaded by its publisher alone: where
    /// Redis lost it, all that was sent behind the first that failed must have failed as well.
    pub publish: Script,
    /// The same, of the link for publications that wait for replicas.
    pub publish_replicated: Script,
    /// What came after a position.
    pub since: Reading,
    /// The newest position, remembered on.
    pub last: Reading,
    /// A page of history.
    pub history: Reading,
    /// Cursor, newest position and pending entries of an inbox.
    pub inbox: Reading,
    /// Moves a cursor.
    pub ack: Script,
    /// Makes a member.
    pub enter: Script,
    /// Removes a member.
    pub leave: Script,
    /// Removes the members of a dead owner.
    pub reap: Script,
    /// A page of members.
    pub members: Reading,
    /// A probe of the feed.
    pub probe: Script,
    /// A probe of the gate that every script passes which writes; it does nothing.
    pub gate: Script,
}

impl Scripts {
    /// The scripts for a master of a cluster, or for a server that has everything.
    #[must_use]
    pub fn new(is_sharded: bool) -> Self {
        let publish = by_form!(is_sharded, "", "publish.lua");
        let variant = rand::random_range(0..VARIANTS);
        Self {
            publish_replicated: publish.variant(variant ^ 1),
            publish: publish.variant(variant),
            since: reading!("since.lua"),
            last: reading!("last.lua"),
            history: reading!("history.lua"),
            inbox: reading!("inbox.lua"),
            ack: by_form!(is_sharded, " flags=allow-oom", "ack.lua"),
            enter: by_form!(is_sharded, "", "membership.lua", "enter.lua"),
            leave: by_form!(
                is_sharded,
                " flags=allow-oom",
                "membership.lua",
                "leave.lua"
            ),
            reap: by_form!(is_sharded, " flags=allow-oom", "membership.lua", "reap.lua"),
            members: reading!("members.lua"),
            probe: Script::new(concat!("#!lua\n", include_str!("../scripts/probe.lua"))),
            gate: Script::new("#!lua\nreturn 1\n"),
        }
    }

    /// Every script, for loading on a new connection, but those of publishers, and the probe of the
    /// feed, which goes with them.
    #[must_use]
    pub fn all(&self) -> Vec<&Script> {
        let readings = [
            &self.since,
            &self.last,
            &self.history,
            &self.inbox,
            &self.members,
        ];
        let mut all: Vec<_> = readings
            .iter()
            .flat_map(|reading| [&reading.usual, &reading.frozen])
            .collect();
        all.extend([&self.ack, &self.enter, &self.leave, &self.reap, &self.gate]);
        all
    }
}
