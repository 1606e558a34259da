//! The scripts of a topic: what must be one step in Redis.
//!
//! In: the Lua files of `broker/scripts`. Out: one [`Script`] each, glued from its `#!` line, those
//! parts that it uses of what scripts share, and itself: every run makes each function anew, so that
//! one which is not used costs all the same. Every script declares all its keys, which are under
//! one tag. All of them begin with `#!lua`, so that a demoted master, and one that takes no writes,
//! refuses them before the first write. Those that read, and those that take away or move a little,
//! still run where memory is full. Those that read are there twice: a script with `no-writes` runs
//! where others are refused, but a demoted master would answer it from stale data, so it first asks
//! who it is.

use crate::redis::Script;

/// Among so many variants each publisher has one by chance. A server keeps every script that it was
/// ever given, some 10 KB each; and a master that has the same one is rare.
const VARIANTS: u16 = 4_096;

/// A script: its first lines, then the files that it is made of.
macro_rules! glued {
    ([$($head:literal),+], $($file:literal),+) => {
        Script::new(concat!($($head),+, $(include_str!(concat!("../scripts/", $file))),+))
    };
}

/// A script that writes and tells, by the command of a cluster or of one server. With
/// `flags=allow-oom` it runs where memory is full: it takes away, or moves a little.
macro_rules! telling {
    ($is_sharded:expr, $flags:literal, $($file:literal),+) => {
        if $is_sharded {
            glued!(["#!lua", $flags, "\nlocal spread = 'SPUBLISH'\n"], $($file),+)
        } else {
            glued!(["#!lua", $flags, "\nlocal spread = 'PUBLISH'\n"], $($file),+)
        }
    };
}

/// One that changes members.
macro_rules! members {
    ($is_sharded:expr, $flags:literal, $($file:literal),+) => {
        telling!(
            $is_sharded,
            $flags,
            "membership.lua",
            "change.lua",
            "append.lua",
            "published.lua",
            "change_end.lua",
            $($file),+
        )
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
    (usual [$($usual:literal),+], frozen [$($frozen:literal),+]) => {
        Reading {
            usual: glued!(["#!lua flags=allow-oom\n"], $($usual),+),
            frozen: glued!(["#!lua flags=no-writes\n"], "frozen.lua", $($frozen),+),
        }
    };
    ($($file:literal),+) => {
        reading!(usual [$($file),+], frozen [$($file),+])
    };
}

/// All scripts of the broker.
#[derive(Debug)]
pub struct Scripts {
    /// A publication. In a variant of this link's own, and loaded by its publisher alone: where
    /// Redis lost it, all that was sent after the first that failed must have failed as well.
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
    /// Puts entries into the queue.
    pub queue_enqueue: Script,
    /// Reads the heads of the queue's streams.
    pub queue_fetch: Script,
    /// Moves entries out of the queue.
    pub queue_move: Script,
    /// Which topics the user may not write.
    pub queue_may: Script,
    /// What waits in a partition.
    pub queue_depths: Reading,
    /// An entry of the audit.
    pub audit: Script,
    /// A probe of the feed.
    pub probe: Script,
    /// A probe of the gate that every script passes which writes; it does nothing.
    pub gate: Script,
}

impl Scripts {
    /// The scripts for a master of a cluster, or for a server that has everything.
    #[must_use]
    pub fn new(is_sharded: bool) -> Self {
        let publish = telling!(is_sharded, "", "publish.lua", "append.lua", "published.lua");
        let variant = rand::random_range(0..VARIANTS);
        Self {
            publish_replicated: publish.variant(variant ^ 1),
            publish: publish.variant(variant),
            since: reading!(
                "above.lua",
                "clock.lua",
                "age.lua",
                "newest.lua",
                "field.lua",
                "page.lua",
                "since.lua"
            ),
            last: reading!(
                usual ["clock.lua", "ahead.lua", "renew.lua", "newest.lua", "last.lua"],
                frozen ["clock.lua", "ahead.lua", "renew_frozen.lua", "newest.lua", "last.lua"]
            ),
            history: reading!(
                "above.lua",
                "clock.lua",
                "age.lua",
                "field.lua",
                "page.lua",
                "history.lua"
            ),
            inbox: reading!(
                "above.lua",
                "clock.lua",
                "age.lua",
                "newest.lua",
                "field.lua",
                "inbox.lua"
            ),
            ack: telling!(
                is_sharded,
                " flags=allow-oom",
                "above.lua",
                "clock.lua",
                "ahead.lua",
                "renew.lua",
                "newest.lua",
                "ack.lua"
            ),
            enter: members!(is_sharded, "", "clock.lua", "newest.lua", "enter.lua"),
            leave: members!(is_sharded, " flags=allow-oom", "remove.lua", "leave.lua"),
            reap: members!(is_sharded, " flags=allow-oom", "remove.lua", "reap.lua"),
            members: reading!("newest.lua", "members.lua"),
            queue_enqueue: queue_enqueue(is_sharded),
            queue_fetch: queue_fetch(),
            queue_move: queue_move(is_sharded),
            queue_may: queue_may(is_sharded),
            queue_depths: reading!("words.lua", "queue_part.lua", "queue_depths.lua"),
            audit: glued!(["#!lua flags=allow-oom\n"], "audit.lua"),
            probe: telling!(is_sharded, "", "probe.lua"),
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
            &self.queue_depths,
        ];
        let mut all: Vec<_> = readings
            .iter()
            .flat_map(|reading| [&reading.usual, &reading.frozen])
            .collect();
        all.extend([&self.ack, &self.enter, &self.leave, &self.reap, &self.gate]);
        all.extend([&self.queue_enqueue, &self.queue_fetch]);
        all.extend([&self.queue_move, &self.queue_may, &self.audit]);
        all
    }
}

fn queue_enqueue(is_sharded: bool) -> Script {
    telling!(
        is_sharded,
        "",
        "words.lua",
        "queue_name.lua",
        "queue_add.lua",
        "queue_come.lua",
        "queue_enqueue.lua"
    )
}

fn queue_fetch() -> Script {
    glued!(
        ["#!lua flags=allow-oom\n"],
        "clock.lua",
        "words.lua",
        "queue_name.lua",
        "queue_add.lua",
        "queue_come.lua",
        "queue_part.lua",
        "queue_held.lua",
        "queue_fetch.lua"
    )
}

fn queue_may(is_sharded: bool) -> Script {
    telling!(
        is_sharded,
        " flags=allow-oom",
        "words.lua",
        "queue_refused.lua",
        "queue_may.lua"
    )
}

/// It publishes as the script of publications does.
fn queue_move(is_sharded: bool) -> Script {
    telling!(
        is_sharded,
        " flags=allow-oom",
        "clock.lua",
        "words.lua",
        "queue_refused.lua",
        "queue_add.lua",
        "queue_held.lua",
        "queue_append.lua",
        "append.lua",
        "published.lua",
        "change_end.lua",
        "queue_move.lua"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of a script, without its comments.
    fn words(script: &Script) -> Vec<String> {
        let source = script.load_args()[1].as_string().expect("a text");
        let code = source
            .lines()
            .map(|line| line.split("--").next().unwrap_or_default());
        let code: Vec<_> = code.collect();
        let is_of_word = |letter: char| letter.is_alphanumeric() || letter == '_';
        let words = code
            .iter()
            .flat_map(|line| line.split(|letter| !is_of_word(letter)));
        words
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn no_script_makes_a_function_that_it_does_not_use() {
        for is_sharded in [false, true] {
            let scripts = Scripts::new(is_sharded);
            let mut all = scripts.all();
            all.push(&scripts.publish);
            for script in all {
                let words = words(script);
                let made = words
                    .windows(3)
                    .filter(|w| w[0] == "local" && w[1] == "function");
                for name in made.map(|w| &w[2]) {
                    let count = words.iter().filter(|word| *word == name).count();
                    assert!(count > 1, "{name} in {words:?}");
                }
            }
        }
    }
}
