//! What the parts of one master share: its links for commands, probes, scripts, health.
//!
//! In: the configuration of one server. Out: [`Shared`], which publisher, feed, supervisors and the
//! broker's calls hold. Each link is one connection with a circuit of its own, kept alive by its
//! supervisor (`supervisor.rs`). Bounds: those of each [`RedisLink`].
//!
//! | link | carries | so that |
//! |---|---|---|
//! | publications | publications, and the probes that the feed hears | they are written and answered on the thread of the feed, over a connection of our own (`publications.rs`) |
//! | urgent | acknowledgements, heartbeats, leases, control | nothing that waits there is long, whatever has to be caught up |
//! | bulk | last positions, pages of streams and members, members that come and go, occupancy, what reapers do | a herd of questions holds up other questions alone |
//! | replicated | publications of namespaces with `replicas_min` | a WAIT holds up what comes after it on the same connection, and that is more of the same |

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::carrying::Carrying;
use super::continuity::Continuity;
use super::control::Heard;
use super::health::{Health, Line};
use super::master::{MasterContext, MasterSpec};
use super::owned_slots::Owned;
use super::refusals::Refusals;
use super::scripts::Scripts;
use crate::broker::queue::bells::Bells;
use crate::config;
use crate::redis::circuit::Circuit;
use crate::redis::{Keys, RedisError, RedisLink};
use crate::telemetry::metrics::{ControlCounters, Counter, Metrics};
use fanfare_protocol::ids::SessionId;

pub mod fullness;
pub mod policy;

use fullness::Fullness;
use policy::Policy;

/// What a link is for: see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// What nobody may hold up.
    Urgent,
    /// All else.
    Bulk,
    /// Publications that wait for replicas.
    Replicated,
    /// All other publications.
    Publications,
}

impl Purpose {
    /// The word for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Urgent => "urgent",
            Self::Bulk => "bulk",
            Self::Replicated => "replicated",
            Self::Publications => "publications",
        }
    }

    /// Behind "Redis cannot be used", for people.
    #[must_use]
    pub fn by_which(self) -> &'static str {
        match self {
            Self::Urgent => "",
            Self::Bulk => " by its bulk link",
            Self::Replicated => " by its replicated link",
            Self::Publications => " by its publications link",
        }
    }

    /// As health names it.
    #[must_use]
    pub fn line(self) -> Line {
        match self {
            Self::Urgent => Line::Urgent,
            Self::Bulk => Line::Bulk,
            Self::Replicated => Line::Replicated,
            Self::Publications => Line::Publications,
        }
    }

    /// How many such links are away now.
    #[must_use]
    pub fn gauge(self) -> fn(&ControlCounters) -> &Counter {
        match self {
            Self::Urgent => |control| &control.away_urgent,
            Self::Bulk => |control| &control.away_bulk,
            Self::Replicated => |control| &control.away_replicated,
            Self::Publications => |control| &control.away_publications,
        }
    }
}

/// One connection for commands to one master, and how its supervisor is called.
#[derive(Debug)]
pub struct CommandLink {
    /// The connection.
    pub link: Arc<RedisLink>,
    /// What it is for.
    pub purpose: Purpose,
    /// The server may be no master any more: it is to be asked now.
    pub suspect: Notify,
}

impl CommandLink {
    fn new(
        purpose: Purpose,
        settings: &config::Redis,
        place: &MasterSpec,
        metrics: &Arc<Metrics>,
    ) -> Result<Arc<Self>, RedisError> {
        let link = RedisLink::new(settings, Arc::clone(metrics))?;
        Ok(Arc::new(Self {
            link: Arc::new(link.telling(Arc::clone(&place.misplaced))),
            purpose,
            suspect: Notify::new(),
        }))
    }
}

/// What the link for publications and the feed tell each other of the probes.
#[derive(Debug)]
pub struct Probes {
    started: Instant,
    /// When the youngest probe that came back was sent, in microseconds since the start.
    heard_us: AtomicU64,
    /// The feed is to be built anew.
    pub rebuild: Notify,
    /// A probe is wanted now: the feed stands again.
    pub now: Notify,
}

impl Probes {
    /// Nothing heard yet; time counts from now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            heard_us: AtomicU64::new(0),
            rebuild: Notify::new(),
            now: Notify::new(),
        }
    }

    /// What the next probe carries: when it is sent.
    #[must_use]
    pub fn stamp(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A probe came back: how long it was on its way. What it says that is no stamp, or one that
    /// is still to come, is not ours.
    pub fn heard(&self, payload: &[u8]) -> Option<Duration> {
        let stamp = std::str::from_utf8(payload).ok()?.parse().ok()?;
        let age_us = self.stamp().checked_sub(stamp)?;
        self.heard_us.fetch_max(stamp, Ordering::Relaxed);
        Some(Duration::from_micros(age_us))
    }

    /// How old the youngest probe is that came back (the start, before the first).
    #[must_use]
    pub fn age(&self) -> Duration {
        let heard_us = self.heard_us.load(Ordering::Relaxed);
        Duration::from_micros(self.stamp().saturating_sub(heard_us))
    }
}

impl Default for Probes {
    fn default() -> Self {
        Self::new()
    }
}

/// What the parts of one master share.
#[derive(Debug)]
pub struct Shared {
    /// For what nobody may hold up.
    pub urgent: Arc<CommandLink>,
    /// For all else.
    pub bulk: Arc<CommandLink>,
    /// Whether publications are sent, over the connection that the feed's thread has for them.
    pub publications: Circuit,
    /// For publications that wait for replicas, where there are any.
    pub replicated: Option<Arc<CommandLink>>,
    /// The most replicas that a namespace asks for.
    pub replicas_min: u32,
    /// Names of keys.
    pub keys: Keys,
    /// The scripts.
    pub scripts: Scripts,
    /// Up or down.
    pub health: Health,
    /// In which words the links are refused.
    pub refusals: Refusals,
    /// Probes.
    pub probes: Probes,
    /// Instruments.
    pub metrics: Arc<Metrics>,
    /// This process, as the probe channel names it.
    pub process: SessionId,
    /// Whether the server still has what it was told by the bulk link.
    pub continuity: Continuity,
    /// What Redis does when its memory is full.
    pub maxmemory_policy: Policy,
    /// How full it is.
    pub fullness: Fullness,
    /// The slots that are here, on a master of a cluster.
    pub owned: Option<Owned>,
    /// The cluster's control messages, where they may come this way.
    pub heard: Option<Arc<Heard>>,
    /// Partitions in whose queue something new waits.
    pub bells: Arc<Bells>,
    /// Until when publications bring contexts of traces.
    pub carrying: Arc<Carrying>,
}

impl Shared {
    /// For links that are not connected yet, to a server with these settings at this place.
    ///
    /// # Errors
    /// As [`RedisLink::new`].
    pub fn new(
        settings: &config::Redis,
        place: &MasterSpec,
        context: &MasterContext,
    ) -> Result<Self, RedisError> {
        let metrics = &context.metrics;
        let link = |purpose| CommandLink::new(purpose, settings, place, metrics);
        Ok(Self {
            urgent: link(Purpose::Urgent)?,
            bulk: link(Purpose::Bulk)?,
            replicated: match settings.replicas_min {
                0 => None,
                _ => Some(link(Purpose::Replicated)?),
            },
            publications: Circuit::new(Arc::clone(metrics)),
            replicas_min: settings.replicas_min,
            keys: Keys::of_database(&settings.prefix, settings.partitions, place.database),
            scripts: Scripts::new(place.slots.is_some()),
            health: Health::new(),
            refusals: Refusals::new(Arc::clone(metrics)),
            probes: Probes::new(),
            metrics: Arc::clone(metrics),
            process: SessionId::random(),
            maxmemory_policy: Policy::default(),
            fullness: Fullness::default(),
            continuity: Continuity::new(Arc::clone(&context.moves)),
            owned: place.slots.as_deref().map(Owned::new),
            heard: place.hears_control.then(|| Arc::clone(&context.heard)),
            bells: Arc::clone(&context.bells),
            carrying: Arc::clone(&context.carrying),
        })
    }

    /// All links for commands that fred has; `publications` is beside them.
    pub fn links(&self) -> impl Iterator<Item = &Arc<CommandLink>> {
        [&self.urgent, &self.bulk]
            .into_iter()
            .chain(&self.replicated)
    }

    /// The channel of this master's probes. In a cluster a sharded one, which goes to no other master,
    /// as a classic one would; it is another one when its slot has gone.
    #[must_use]
    pub fn probe_channel(&self) -> String {
        let tag = self.owned.as_ref().and_then(Owned::tag);
        self.keys.probe(self.process, tag)
    }

    /// `host:port` of the server, for people.
    #[must_use]
    pub fn server(&self) -> String {
        self.urgent.link.server()
    }
}

/// Waits until `stop` turns true or its sender is gone.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stop.wait_for(|is_stopped| *is_stopped).await;
}
