//! The kinds of fault: their words, which forms of Redis they fit, what they are done to.
//!
//! In: nothing. Out: what the nemesis and the command line choose from. Pure.

use super::redis_form::Form;

/// What a fault is done to. Two at once are never done to the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Node,
    Redis,
    Clients,
}

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    NodeKill,
    NodeDrain,
    NodePause,
    NodeFreeze,
    RedisKill,
    RedisPause,
    KillFeeds,
    KillCommands,
    RedisLinkCut,
    RedisLinkDelay,
    RedisLinkStall,
    ClientLinkCut,
    ClientLinkDelay,
    ClientLinkStall,
    SlowClients,
    DropClients,
    Failover,
    SlotsMove,
    RedisOutage,
    RedisUnreachable,
    RedisReadOnly,
    RedisFull,
    RedisSlow,
    ThinClients,
    NodePanic,
    HomeKill,
}

impl Kind {
    /// All kinds.
    pub(crate) const ALL: [Self; 26] = [
        Self::NodeKill,
        Self::NodeDrain,
        Self::NodePause,
        Self::NodeFreeze,
        Self::RedisKill,
        Self::RedisPause,
        Self::KillFeeds,
        Self::KillCommands,
        Self::RedisLinkCut,
        Self::RedisLinkDelay,
        Self::RedisLinkStall,
        Self::ClientLinkCut,
        Self::ClientLinkDelay,
        Self::ClientLinkStall,
        Self::SlowClients,
        Self::DropClients,
        Self::Failover,
        Self::SlotsMove,
        Self::RedisOutage,
        Self::RedisUnreachable,
        Self::RedisReadOnly,
        Self::RedisFull,
        Self::RedisSlow,
        Self::ThinClients,
        Self::NodePanic,
        Self::HomeKill,
    ];

    /// The word in the figure and on the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::NodeKill => "node-kill",
            Self::NodeDrain => "node-drain",
            Self::NodePause => "node-pause",
            Self::NodeFreeze => "node-pause-past-lease",
            Self::RedisKill => "redis-kill",
            Self::RedisPause => "redis-pause",
            Self::KillFeeds => "client-kill-pubsub",
            Self::KillCommands => "client-kill-normal",
            Self::RedisLinkCut => "redis-link-cut",
            Self::RedisLinkDelay => "redis-link-delay",
            Self::RedisLinkStall => "redis-link-stall",
            Self::ClientLinkCut => "client-link-cut",
            Self::ClientLinkDelay => "client-link-delay",
            Self::ClientLinkStall => "client-link-stall",
            Self::SlowClients => "slow-clients",
            Self::DropClients => "drop-clients",
            Self::Failover => "failover",
            Self::SlotsMove => "slots-move",
            Self::RedisOutage => "redis-outage",
            Self::RedisUnreachable => "redis-unreachable",
            Self::RedisReadOnly => "redis-read-only",
            Self::RedisFull => "redis-full",
            Self::RedisSlow => "redis-slow",
            Self::ThinClients => "thin-clients",
            Self::NodePanic => "node-panic",
            Self::HomeKill => "home-kill",
        }
    }

    /// Whether it can be done to this form of Redis.
    pub(crate) fn fits(self, form: Form) -> bool {
        match self {
            Self::RedisLinkCut
            | Self::RedisLinkDelay
            | Self::RedisLinkStall
            | Self::RedisUnreachable => form == Form::Single,
            // Servers that do not answer for so long are replaced where there are others.
            Self::RedisOutage | Self::RedisSlow => !form.has_replicas(),
            Self::Failover => form.has_replicas(),
            Self::SlotsMove => form == Form::Cluster,
            _ => true,
        }
    }

    /// Whether it lasts longer than a lease, so that a short run has no time for it.
    pub(crate) fn is_long(self) -> bool {
        matches!(
            self,
            Self::RedisOutage
                | Self::RedisUnreachable
                | Self::RedisReadOnly
                | Self::RedisFull
                | Self::RedisSlow
                | Self::ThinClients
        )
    }

    pub(crate) fn target(self) -> Target {
        match self {
            Self::NodeKill
            | Self::NodeDrain
            | Self::NodePause
            | Self::NodeFreeze
            | Self::NodePanic
            | Self::HomeKill => Target::Node,
            Self::SlowClients
            | Self::DropClients
            | Self::ClientLinkCut
            | Self::ClientLinkDelay
            | Self::ClientLinkStall
            | Self::ThinClients => Target::Clients,
            _ => Target::Redis,
        }
    }

    /// Whether the service must come back by itself, and is measured from the fault's begin.
    pub(crate) fn heals_itself(self, form: Form) -> bool {
        match self {
            Self::NodeKill | Self::NodeDrain | Self::NodeFreeze | Self::NodePanic => true,
            Self::HomeKill => true,
            Self::KillFeeds | Self::KillCommands => true,
            Self::ClientLinkCut | Self::DropClients | Self::Failover | Self::SlotsMove => true,
            Self::RedisKill => form.has_replicas(),
            _ => false,
        }
    }
}
