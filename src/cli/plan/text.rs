//! A plan as people read it.
//!
//! In: what was asked and the [`Plan`]. Out: lines, warnings where the plan goes beyond what was
//! measured, and what to do where there is none.

use super::input::Input;
use super::model::{NoPlan, Plan, Resource};
use crate::cli::output;

/// The most of each that was measured (docs/performance.md).
const SESSIONS_MEASURED: u64 = 19_000;
const NODES_MEASURED: u64 = 300;
const BODY_MEASURED: u64 = 1_024;

/// Up to how many masters docs/redis.md says how evenly partitions are dealt.
const MASTERS_KNOWN: u64 = 16;

/// Defaults that a larger plan must change.
const HANDSHAKES_DEFAULT: u64 = 5_000;
const MAXCLIENTS_DEFAULT: u64 = 10_000;
const MESSAGE_BYTES_DEFAULT: u64 = 65_536;
const TOPICS_DEFAULT: u64 = 128;

/// What to do where nothing is enough.
pub(super) fn hint(none: NoPlan) -> &'static str {
    match none {
        NoPlan::Nodes(Resource::Sessions | Resource::Spare) => {
            "give larger nodes: --node-sessions, with --node-cores and --node-memory"
        }
        NoPlan::Nodes(Resource::Memory) => "give more --node-memory, or fewer --topics",
        NoPlan::Nodes(Resource::Network) => "give more --network, or a smaller --rate or --fanout",
        NoPlan::Nodes(_) => {
            "publish less often (--rate), or to fewer sessions at once (--fanout); nodes with more \
             cores help only where CPU is short"
        }
        NoPlan::Masters(Resource::RedisMemory) => {
            "give more --redis-memory, or keep less (--history, --inbox)"
        }
        NoPlan::Masters(_) => "publish less often (--rate): part the topics over several clusters",
        NoPlan::Heartbeats(_) => {
            "give larger nodes, so that there are fewer (--node-sessions), or several clusters"
        }
    }
}

/// What is beyond measurements and defaults.
pub(super) fn warnings(input: &Input, plan: &Plan) -> Vec<String> {
    let demand = &input.demand;
    let mut warnings = Vec::new();
    let mut beyond = |what: &str, is: u64, most: u64| {
        if is > most {
            let (is, most) = (grouped(is), grouped(most));
            warnings.push(format!("{is} {what}: at most {most} were measured"));
        }
    };
    beyond("sessions a node", plan.sessions_per_node, SESSIONS_MEASURED);
    beyond("nodes", plan.nodes, NODES_MEASURED);
    beyond("bytes a publication", demand.body_bytes, BODY_MEASURED);
    if plan.redis_masters > MASTERS_KNOWN {
        warnings.push(format!(
            "{} masters of Redis: how evenly partitions are dealt is known up to {MASTERS_KNOWN}",
            grouped(plan.redis_masters)
        ));
    }
    let mut setting = |is: u64, default: u64, what: &str| {
        if is > default {
            let (is, default) = (grouped(is), grouped(default));
            warnings.push(format!("set {what} above {is}; the default is {default}"));
        }
    };
    let connections = plan.connections_per_master;
    let connects = plan.connects_per_s.div_ceil(plan.nodes);
    setting(connects, HANDSHAKES_DEFAULT, "admission.handshakes_per_s");
    setting(connections, MAXCLIENTS_DEFAULT, "maxclients of Redis");
    setting(
        demand.body_bytes,
        MESSAGE_BYTES_DEFAULT,
        "session.message_bytes_max",
    );
    let each = u128::from(demand.topics) * u128::from(demand.fanout) / u128::from(demand.users);
    let each = u64::try_from(each).unwrap_or(u64::MAX);
    setting(each, TOPICS_DEFAULT, "session.topics_max");
    warnings
}

/// The plan, line by line.
pub(super) fn lines(input: &Input, plan: &Plan, warnings: &[String]) -> Vec<String> {
    let demand = &input.demand;
    let mut lines = vec![
        format!(
            "{} users, {} topics, {} publications/s of {} bytes, each to {} sessions",
            grouped(demand.users),
            grouped(demand.topics),
            grouped(demand.publications_per_s),
            grouped(demand.body_bytes),
            grouped(demand.fanout)
        ),
        String::new(),
    ];
    let facts = [
        ("nodes", grouped(plan.nodes)),
        ("masters of Redis", grouped(plan.redis_masters)),
        ("binds first", plan.binds_first.name().to_owned()),
        ("sessions a node", grouped(plan.sessions_per_node)),
        ("open files a node", grouped(plan.files_per_node)),
        ("deliveries/s", grouped(plan.deliveries_per_s)),
        ("connects/s", grouped(plan.connects_per_s)),
        ("to clients", bits(plan.clients_bits_per_s as f64)),
        ("kept in Redis", memory(plan.redis_bytes as f64)),
        ("redis.partitions", grouped(plan.redis_partitions)),
        ("connections a master", grouped(plan.connections_per_master)),
    ];
    lines.extend(facts.map(|(name, value)| format!("{name:<22}{value}")));
    lines.push(String::new());
    let rows: Vec<Vec<String>> = plan
        .needs
        .iter()
        .map(|need| {
            let shown = |value| amount(need.resource, value);
            vec![
                need.resource.name().to_owned(),
                grouped(need.needed),
                shown(need.used),
                shown(need.has),
                format!("{:.0} %", need.share * 100.0),
            ]
        })
        .collect();
    let head = [
        "resource",
        "needs",
        "each uses",
        "each has",
        "of what it may",
    ];
    lines.extend(output::table(&head, &rows));
    if !warnings.is_empty() {
        lines.push(String::new());
        lines.extend(warnings.iter().map(|warning| format!("warning: {warning}")));
    }
    lines
}

fn amount(resource: Resource, value: f64) -> String {
    match resource {
        Resource::Sessions | Resource::Spare => grouped(value.ceil() as u64),
        Resource::Cpu | Resource::Control | Resource::RedisCpu => format!("{value:.2} cores"),
        Resource::Memory | Resource::RedisMemory => memory(value),
        Resource::Network | Resource::RedisNetwork => bits(value),
    }
}

fn memory(bytes: f64) -> String {
    scaled(bytes, 1024.0, ["bytes", "KiB", "MiB", "GiB", "TiB"])
}

fn bits(per_s: f64) -> String {
    scaled(
        per_s,
        1000.0,
        ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"],
    )
}

fn scaled(value: f64, step: f64, units: [&str; 5]) -> String {
    let (mut value, mut unit) = (value, 0);
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = usize::from(value < 100.0 && unit > 0);
    format!("{value:.digits$} {}", units[unit])
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_scaled() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(memory(512.0), "512 bytes");
        assert_eq!(memory(1.5 * 1024.0 * 1024.0), "1.5 MiB");
        assert_eq!(memory(1e30), "909494701772928256 TiB");
        assert_eq!(bits(250_000_000.0), "250 Mbit/s");
    }
}
