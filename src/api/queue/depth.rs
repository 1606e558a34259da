//! `GET /v1/queue`: how much waits.
//!
//! In: what all nodes said with their last heartbeats; with `partitions=true` what the broker says of
//! each partition. Out: numbers. Bounds: [`PARTITIONS_AT_ONCE`] partitions are asked for at once.

use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::faults::PartitionFault;
use crate::api::auth::{Admitted, asks};
use crate::api::body::Wanted;
use crate::api::error::ApiError;
use crate::api::query::{Fields, Pairs, QueryFields};
use crate::api::schema::{BadRequest, Refused};
use crate::api::state::ApiState;
use crate::api::unix_ms;
use crate::broker::queue::{Counted, Depths};
use crate::broker::{Broker, BrokerError};
use fanfare_protocol::error::WireError;

/// Partitions that are asked for at the same time: enough to hide a round trip.
const PARTITIONS_AT_ONCE: usize = 32;

/// What to look at.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DepthParams {
    /// Asks the broker, and lists each partition in which anything is.
    #[param(nullable = false)]
    partitions: Option<bool>,
}

impl QueryFields for DepthParams {
    const NAMES: &'static [&'static str] = &["partitions"];

    fn read(pairs: &Pairs) -> Result<Self, WireError> {
        let flag = |text: &str| text.parse().ok();
        Ok(Self {
            partitions: pairs.get("partitions", "true or false", flag)?,
        })
    }
}

/// Entries that are due, by priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Due {
    /// Moved first.
    pub critical: u64,
    /// Then these.
    pub high: u64,
    /// What names no priority, by default.
    pub normal: u64,
    /// Moved last, but always some.
    pub low: u64,
}

impl Due {
    fn of([critical, high, normal, low]: [u64; 4]) -> Self {
        Self {
            critical,
            high,
            normal,
            low,
        }
    }
}

/// How the queue stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueueAnswer {
    /// Entries that are due, in the whole cluster, as its nodes said with their last heartbeats.
    pub depth: u64,
    /// The same by priority.
    pub due: Due,
    /// Entries that are to come later.
    pub delayed: u64,
    /// Dead letters.
    pub dead: u64,
    /// Age of the oldest due entry, in milliseconds; 0 where none waits.
    pub oldest_ms: u64,
    /// So many entries, due and delayed, are taken at most (`queue.capacity`).
    pub capacity: u64,
    /// The part of the depth that more nodes would work off.
    pub pressure: u64,
    /// Whether the queue outlives this process.
    pub durable: bool,
    /// Each partition in which anything is, as the broker says; there only with `partitions=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub partitions: Option<Vec<PartitionDepth>>,
    /// Partitions of which the broker does not say all, and why: what it does say stands in `partitions`. Absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub failed: Option<Vec<PartitionFault>>,
}

/// What is in one partition.
#[derive(Debug, Serialize, ToSchema)]
pub struct PartitionDepth {
    /// Which.
    pub partition: u32,
    /// Entries that are due.
    pub depth: u64,
    /// The same by priority.
    pub due: Due,
    /// Entries that are to come later.
    pub delayed: u64,
    /// Dead letters.
    pub dead: u64,
    /// Age of the oldest due entry, in milliseconds; 0 where none waits.
    pub oldest_ms: u64,
}

impl PartitionDepth {
    fn of(partition: u32, depths: &Depths, now_ms: u64) -> Option<Self> {
        let depth = depths.due.iter().sum();
        if depth == 0 && depths.later == 0 && depths.dead == 0 {
            return None;
        }
        let oldest = depths.oldest_ms.iter().flatten().min();
        Some(Self {
            partition,
            depth,
            due: Due::of(depths.due),
            delayed: depths.later,
            dead: depths.dead,
            oldest_ms: oldest.map_or(0, |oldest| now_ms.saturating_sub(*oldest)),
        })
    }
}

/// How much waits in the durable queue of the cluster.
#[utoipa::path(
    get, path = "/v1/queue", tag = "queue", operation_id = "get_queue",
    params(DepthParams),
    responses((status = 200, description = "How the queue stands.", body = QueueAnswer), BadRequest, Refused)
)]
pub(in crate::api) async fn get_queue(
    Admitted { state, .. }: Admitted<asks::SeeQueue>,
    wanted: Wanted,
    Fields(params): Fields<DepthParams>,
) -> Result<Response, ApiError> {
    let (partitions, failed) = match params.partitions {
        Some(true) => {
            let (partitions, failed) = partitions(&state).await;
            (Some(partitions), failed)
        }
        _ => (None, Vec::new()),
    };
    let told = state.directory.queue().told;
    Ok(wanted.ok(&QueueAnswer {
        depth: told.depth(),
        due: Due::of(told.due),
        delayed: told.later,
        dead: told.dead,
        oldest_ms: told.oldest_ms.into_iter().max().unwrap_or(0),
        capacity: state.config.queue.capacity,
        pressure: told.pressure,
        durable: matches!(&*state.broker, Broker::Redis(_)),
        partitions,
        failed: (!failed.is_empty()).then_some(failed),
    }))
}

/// What is in each partition that has anything, and those of which not all is known.
async fn partitions(state: &ApiState) -> (Vec<PartitionDepth>, Vec<PartitionFault>) {
    let all = stream::iter(0..state.config.redis.partitions);
    let depths = all.map(async |partition| (partition, state.broker.queue_depths(partition).await));
    let depths: Vec<_> = depths.buffered(PARTITIONS_AT_ONCE).collect().await;
    let (mut partitions, mut failed) = (Vec::new(), Vec::new());
    for (partition, depths) in depths {
        match depths {
            Ok(Counted { depths, ill }) => {
                partitions.extend(PartitionDepth::of(partition, &depths, unix_ms()));
                let ill = ill.map(BrokerError::Unexpected);
                failed.extend(ill.map(|error| PartitionFault::of(partition, &error)));
            }
            Err(error) => failed.push(PartitionFault::of(partition, &error)),
        }
    }
    (partitions, failed)
}
