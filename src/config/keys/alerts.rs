//! The keys of `[alerts]`: from where on the node calls something wrong.
//!
//! In: nothing. Out: rows of the table, as all other keys are.

use crate::config::alerts::Alerts;
use crate::config::key::{Initial, Key, section};
use crate::config::value::{Kind, Unit};
use crate::config::values::Values;
use Initial::Is;

/// A part of something that 0 turns off.
const PERCENT: Kind = number(1, 100, Unit::Count);

const fn number(min: u64, max: u64, unit: Unit) -> Kind {
    Kind::Number {
        min,
        max,
        unit,
        zero: Some("for no such alert"),
    }
}

section!(ALERTS, "alerts" => Alerts {
    error: "error_percent", PERCENT, Is("5"),
        "error_rate: of all requests and commands so many or more failed in 15 minutes, of at least 20, because the node or what it needs could not (unavailable, internal, rate_limited). What a caller did wrong does not count.";
    response: "response_ms", number(1, 3_600_000, Unit::Ms), Is("1000"),
        "mean_response: requests or commands took so long or longer in the mean of 5 minutes, of at least 20.";
    memory: "memory_percent", PERCENT, Is("80"),
        "memory_high: the process has so much or more of its memory limit (fanfare_memory_limit_bytes), in the mean of a minute.";
    cpu: "cpu_percent", PERCENT, Is("80"),
        "cpu_high: the process uses so much or more of its cores (fanfare_cpu_limit_cores), in the mean of a minute.";
    refused: "refused_percent", PERCENT, Is("10"),
        "connections_refused: of those who came in 5 minutes so many or more were turned away, of at least 20, for want of places, pace or memory, or because the node could not serve.";
    queue_age: "queue_age_s", number(1, 604_800, Unit::S), Is("60"),
        "queue_age: the oldest due entry of the durable queue, in the partitions of this node, is so old or older.";
    growth: "growth_percent", number(1, 1_000, Unit::Count), Is("10"),
        "memory_growing: memory without caches grows by more than this in an hour, of at least an hour, or in a day, of at least a day; goes on growing; and sessions do not explain it.";
    processing: "processing_s", number(5, 3_600, Unit::S), Is("30"),
        "processing_slow: a command, a request or a pass over the queue took so long or longer, or a part has not turned for so long.";
});
