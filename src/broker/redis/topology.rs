//! Which masters a deployment has, and which of them has which slot: read, compared, looked up.
//!
//! In: answers of sentinels and of nodes of a Redis Cluster. Out: a [`Topology`], the same for every
//! form: one server and the master behind sentinels have all slots. Pure. Bounds: one entry per
//! master and one number per slot.
//!
//! The epoch of a master rises with every slot that it takes over and with every promotion. So a
//! slot that went away and came back between two looks shows as a new epoch, though it is where it
//! was: its subscriptions are gone all the same.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use fred::types::Value;
use fred::util::redis_keyslot;

/// Slots of a Redis Cluster.
pub const SLOTS_COUNT: usize = 16_384;

/// One master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master {
    /// `host:port`.
    pub address: String,
    /// See the module; 0 outside a cluster.
    pub epoch: u64,
    /// What it has.
    pub slots: Vec<RangeInclusive<u16>>,
}

/// All masters with slots, by address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    /// Ascending by address.
    pub masters: Vec<Master>,
    /// The newest epoch that the answering node knew of, or that a sentinel has for the master; an
    /// answer with an older one is stale.
    pub epoch: u64,
}

/// Why an answer is no topology.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The sentinel knows no such master.
    #[error("the sentinel knows no master called {0}; give its name as ?master=NAME")]
    UnknownMaster(String),
    /// Not what a sentinel or a node of a cluster answers.
    #[error("the answer to {0} cannot be read")]
    Unreadable(&'static str),
    /// A cluster without any.
    #[error("no node of the cluster has a slot yet")]
    NoSlots,
}

impl Topology {
    /// One server that has everything.
    #[must_use]
    pub fn of_one(address: String) -> Self {
        let master = Master {
            address,
            epoch: 0,
            slots: vec![0..=last_slot()],
        };
        Self {
            masters: vec![master],
            epoch: 0,
        }
    }

    /// What a sentinel says of the master of this name. `SENTINEL MASTER` has the epoch, and is asked
    /// first; the address is that of `SENTINEL GET-MASTER-ADDR-BY-NAME`: while a failover goes on
    /// the sentinel that leads it gives the new epoch with the old address there, and the new
    /// address here.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn of_sentinel(details: &Value, answer: &Value, name: &str) -> Result<Self, LayoutError> {
        let mut topology = Self::of_address(answer, name)?;
        let unreadable = LayoutError::Unreadable("SENTINEL MASTER");
        topology.epoch = config_epoch(details).ok_or(unreadable)?;
        Ok(topology)
    }

    fn of_address(answer: &Value, name: &str) -> Result<Self, LayoutError> {
        let unreadable = LayoutError::Unreadable("SENTINEL GET-MASTER-ADDR-BY-NAME");
        match answer {
            Value::Null => Err(LayoutError::UnknownMaster(name.to_owned())),
            Value::Array(parts) => match &parts[..] {
                [host, port] => {
                    let host = host.as_string().ok_or(unreadable.clone())?;
                    let port = port.as_string().and_then(|port| port.parse::<u16>().ok());
                    Ok(Self::of_one(address(&host, port.ok_or(unreadable)?)))
                }
                _ => Err(unreadable),
            },
            _ => Err(unreadable),
        }
    }

    /// What a node of a cluster says: `CLUSTER SLOTS` has the addresses as clients should use
    /// them, `CLUSTER NODES` the epochs. `asked` is the host that answered, for a node that does
    /// not know its own.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn of_cluster(slots: &Value, nodes: &Value, asked: &str) -> Result<Self, LayoutError> {
        let epochs = epochs(nodes).ok_or(LayoutError::Unreadable("CLUSTER NODES"))?;
        let unreadable = LayoutError::Unreadable("CLUSTER SLOTS");
        let Value::Array(ranges) = slots else {
            return Err(unreadable);
        };
        let mut topology = Self {
            masters: Vec::new(),
            epoch: epochs.values().copied().max().unwrap_or(0),
        };
        for range in ranges {
            let (slots, address, id) = range_of(range, asked).ok_or(unreadable.clone())?;
            let epoch = epochs.get(&id).copied().unwrap_or(0);
            match topology.masters.iter_mut().find(|m| m.address == address) {
                Some(master) => master.slots.push(slots),
                None => topology.masters.push(Master {
                    address,
                    epoch,
                    slots: vec![slots],
                }),
            }
        }
        if topology.masters.is_empty() {
            return Err(LayoutError::NoSlots);
        }
        // Nodes list the same slots in orders of their own.
        let by_begin = |slots: &RangeInclusive<u16>| *slots.start();
        for master in &mut topology.masters {
            master.slots.sort_unstable_by_key(by_begin);
        }
        topology
            .masters
            .sort_unstable_by(|a, b| a.address.cmp(&b.address));
        Ok(topology)
    }
}

/// `config-epoch` in masters of names and values, or in a map.
fn config_epoch(details: &Value) -> Option<u64> {
    const NAME: &str = "config-epoch";
    let value = match details {
        Value::Map(map) => map
            .iter()
            .find_map(|(name, value)| (name.as_str() == Some(NAME)).then_some(value))?,
        Value::Array(parts) => {
            let mut masters = parts.chunks_exact(2);
            let pair = masters.find(|pair| pair[0].as_str().as_deref() == Some(NAME))?;
            &pair[1]
        }
        _ => return None,
    };
    value.as_string()?.parse().ok()
}

/// The slot of a key or channel.
#[must_use]
pub fn slot_of(key: &str) -> usize {
    usize::from(redis_keyslot(key.as_bytes()))
}

/// The slot of everything that a partition has: its number is the tag.
#[must_use]
pub fn slot_of_partition(partition: u32) -> usize {
    slot_of(&partition.to_string())
}

fn last_slot() -> u16 {
    u16::try_from(SLOTS_COUNT - 1).expect("slots are counted in 14 bits")
}

fn address(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// `[begin, end, [host, port, id, …], replicas…]`.
fn range_of(range: &Value, asked: &str) -> Option<(RangeInclusive<u16>, String, String)> {
    let Value::Array(parts) = range else {
        return None;
    };
    let number = |value: &Value| u16::try_from(value.as_i64()?).ok();
    let (begin, end) = (number(parts.first()?)?, number(parts.get(1)?)?);
    let Value::Array(master) = parts.get(2)? else {
        return None;
    };
    let host = master.first()?.as_string().unwrap_or_default();
    let host = if host.is_empty() || host == "?" {
        asked
    } else {
        &host
    };
    let port = number(master.get(1)?)?;
    let id = master.get(2)?.as_string()?;
    let is_range = begin <= end && usize::from(end) < SLOTS_COUNT;
    is_range.then(|| (begin..=end, address(host, port), id))
}

/// `id address flags master ping pong epoch …` a line.
fn epochs(nodes: &Value) -> Option<HashMap<String, u64>> {
    let text = nodes.as_string()?;
    let of_line = |line: &str| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.nth(5)?.parse().ok()?))
    };
    text.lines().map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(parts: &[&str]) -> Value {
        Value::Array(parts.iter().map(|part| Value::from(*part)).collect())
    }

    fn range(begin: i64, end: i64, host: Value, port: i64, id: &str) -> Value {
        let master = Value::Array(vec![host, port.into(), id.into(), Value::Array(Vec::new())]);
        let replica = texts(&["10.0.0.9", "1", "r"]);
        Value::Array(vec![begin.into(), end.into(), master, replica])
    }

    fn nodes() -> Value {
        let line = |id: &str, epoch: u32| {
            format!("{id} 10.0.0.1:1@2,name master - 0 0 {epoch} connected 0-5 [9->-x]\n")
        };
        Value::from(line("a", 4) + &line("b", 9) + &line("r", 9))
    }

    #[test]
    fn a_sentinel_names_the_master_or_says_that_it_knows_none() {
        let details = texts(&["name", "m", "config-epoch", "7", "quorum", "2"]);
        let read = |answer: &Value| Topology::of_sentinel(&details, answer, "m");
        let one = |address: &str| {
            Ok(Topology {
                epoch: 7,
                ..Topology::of_one(address.to_owned())
            })
        };
        assert_eq!(read(&texts(&["10.0.0.1", "6379"])), one("10.0.0.1:6379"));
        assert_eq!(read(&texts(&["::1", "6379"])), one("[::1]:6379"));
        let unknown = LayoutError::UnknownMaster("m".to_owned());
        assert_eq!(read(&Value::Null), Err(unknown));
        let nameless = Topology::of_sentinel(&texts(&[]), &texts(&["h", "1"]), "m");
        assert_eq!(nameless, Err(LayoutError::Unreadable("SENTINEL MASTER")));
        for strange in [texts(&["h"]), texts(&["h", "x"]), Value::from(7)] {
            let read = read(&strange);
            assert!(
                matches!(read, Err(LayoutError::Unreadable(_))),
                "{strange:?}"
            );
        }
    }

    #[test]
    fn a_cluster_is_read_the_same_whatever_order_its_nodes_list() {
        let b = || range(11, 16_383, "10.0.0.2".into(), 7, "b");
        let a = || range(6, 9, Value::Null, 8, "a");
        let a_too = || range(0, 5, "asked".into(), 8, "a");
        let read = |ranges| Topology::of_cluster(&Value::Array(ranges), &nodes(), "asked").unwrap();
        let topology = read(vec![b(), a(), a_too()]);
        assert_eq!(topology, read(vec![a_too(), b(), a()]));
        let master = |address: &str, epoch, slots| Master {
            address: address.to_owned(),
            epoch,
            slots,
        };
        let expected = [
            master("10.0.0.2:7", 9, vec![11..=16_383]),
            master("asked:8", 4, vec![0..=5, 6..=9]),
        ];
        assert_eq!((topology.epoch, &topology.masters[..]), (9, &expected[..]));
    }

    #[test]
    fn what_no_cluster_answers_is_refused() {
        let read = |slots: &Value, nodes: &Value| Topology::of_cluster(slots, nodes, "asked");
        let none = Value::Array(Vec::new());
        assert_eq!(read(&none, &nodes()), Err(LayoutError::NoSlots));
        for strange in [
            range(5, 4, "h".into(), 1, "a"),
            range(0, 16_384, "h".into(), 1, "a"),
            range(0, 1, "h".into(), 70_000, "a"),
            texts(&["0", "1"]),
        ] {
            let read = read(&Value::Array(vec![strange.clone()]), &nodes());
            assert!(
                matches!(read, Err(LayoutError::Unreadable(_))),
                "{strange:?}"
            );
        }
        let read = read(&none, &Value::from("one two"));
        assert!(matches!(read, Err(LayoutError::Unreadable(_))));
    }
}
