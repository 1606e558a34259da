//! How the files that this process may open are dealt out, so that no part takes those of another.
//!
//! In: the limit, the most sessions, the number of workers, the deployments of Redis. Out: how many
//! connections each listener may have. Sessions have `server.connections_max`; of what is left,
//! Redis, the workers' own files and the log come first, then the API with two parts in three, then
//! connections to the public listener that are no session yet. Of a Redis Cluster only the hosts
//! that are listed are known here: a larger one is reported when its masters are known.

use crate::config::machine;
use crate::config::redis_url::{RedisForm, RedisUrl};
use crate::config::{Redis, Server};

/// Fewest files that a node needs beside its sessions, as this file deals them out: Redis, the API's callers, connections that are no session yet.
pub const FILES_RESERVED: u64 = 500;

/// Files of a worker: its listener and what its runtime waits with.
const OF_WORKER: u64 = 6;
/// Files of a master of Redis: up to four connections, and the thread that hears.
const OF_MASTER: u64 = 8;
/// Masters for which files are set apart in any case.
const MASTERS_MIN: u64 = 12;
/// Files of everything else: the control side, the log.
const OF_NODE: u64 = 32;
/// Fewest connections of a kind, however low the limit is.
const FEWEST: u64 = 16;
/// Most connections of the API. The callers are backends with pools and a few probes.
const API_MAX: u64 = 1_024;
/// Most connections to the public listener beside those of sessions.
const HANDSHAKES_MAX: u64 = 4_096;

/// How many connections the listeners may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileShares {
    /// The public listener: sessions, and connections that are none yet.
    pub public: usize,
    /// The API.
    pub api: usize,
}

/// Files that are set apart for these deployments: their masters, and those who say where they are.
fn of_redis(urls: &[RedisUrl]) -> u64 {
    let files = |url: &RedisUrl| {
        let hosts = url.hosts.len() as u64;
        match url.form {
            RedisForm::Single => OF_MASTER,
            RedisForm::Sentinel { .. } => OF_MASTER + hosts,
            RedisForm::Cluster => OF_MASTER * hosts + 1,
        }
    };
    let files: u64 = urls.iter().map(files).sum();
    files.max(OF_MASTER * MASTERS_MIN)
}

/// For how many masters of these deployments files are set apart.
#[must_use]
pub fn masters_planned(urls: &[RedisUrl]) -> usize {
    usize::try_from(of_redis(urls) / OF_MASTER).unwrap_or(usize::MAX)
}

/// Fewest files that a node over these deployments needs beside its sessions.
#[must_use]
pub fn reserved(urls: &[RedisUrl]) -> u64 {
    FILES_RESERVED + of_redis(urls) - OF_MASTER * MASTERS_MIN
}

/// Most connections of the listener for metrics and health, where it has an address of its own.
const PROBES_MAX: usize = 64;

impl FileShares {
    /// The API's share, dealt out to the API and to a listener for metrics and health.
    #[must_use]
    pub fn with_probes(&self) -> (usize, usize) {
        let probes = (self.api / 4).min(PROBES_MAX);
        (self.api - probes, probes)
    }

    /// Of this process. Raises the soft limit of files to the hard one.
    #[must_use]
    pub fn here(server: &Server, redis: &Redis) -> Self {
        let workers = server.listen.map_or(0, |_| server.workers as u64);
        let sessions = server.sessions_max() as u64;
        let urls = redis.url.iter().chain(&redis.shards);
        let urls: Vec<_> = urls
            .filter_map(|url| RedisUrl::parse(&url.0).ok())
            .collect();
        Self::of(machine::file_limit(), sessions, workers, of_redis(&urls))
    }

    fn of(file_limit: u64, sessions: u64, workers: u64, redis: u64) -> Self {
        let own = OF_NODE + redis + OF_WORKER * workers;
        let left = file_limit.saturating_sub(sessions).saturating_sub(own);
        let api = (left / 3 * 2).clamp(FEWEST, API_MAX);
        let handshakes = left.saturating_sub(api).clamp(FEWEST, HANDSHAKES_MAX);
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            public: count(sessions + handshakes),
            api: count(api),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::presets::files_reserved;

    fn urls(list: &[&str]) -> Vec<RedisUrl> {
        let read = |url: &&str| RedisUrl::parse(url).expect("a URL");
        list.iter().map(read).collect()
    }

    #[test]
    fn no_share_of_the_files_is_taken_from_another() {
        for masters in [1, 12, 40] {
            let urls = urls(&vec!["redis://a:1"; masters]);
            let redis = of_redis(&urls);
            for file_limit in [1_024, 4_096, 20_000, 65_536, 1_048_576] {
                for workers in [1, 8, 32] {
                    let reserved = files_reserved(file_limit).max(reserved(&urls));
                    let sessions = file_limit - reserved;
                    let shares = FileShares::of(file_limit, sessions, workers, redis);
                    let all = (shares.public + shares.api) as u64;
                    let own = OF_NODE + OF_MASTER * masters as u64 + OF_WORKER * workers;
                    assert!(all + own <= file_limit, "{file_limit} {workers} {shares:?}");
                    assert!(shares.public as u64 >= sessions + FEWEST);
                }
            }
        }
    }

    #[test]
    fn a_high_limit_gives_each_kind_its_most() {
        let most = FileShares {
            public: 1_000 + 4_096,
            api: 1_024,
        };
        let redis = of_redis(&[]);
        assert_eq!(FileShares::of(1_048_576, 1_000, 4, redis), most);
        assert_eq!(FileShares::of(u64::MAX, 1_000, 4, redis), most);
    }

    #[test]
    fn metrics_have_a_part_of_what_the_api_has() {
        let probes = |api| FileShares { public: 0, api }.with_probes();
        assert_eq!(probes(1_024), (960, 64));
        assert_eq!(probes(16), (12, 4));
    }

    #[test]
    fn the_share_of_redis_follows_what_is_configured() {
        let single = ["redis://a:1"; 30];
        let hosts: Vec<_> = (1..=20).map(|n| format!("h{n}:1")).collect();
        let cluster = format!("redis-cluster://{}", hosts.join(","));
        let sentinels = "redis-sentinel://a:1,b:1,c:1?master=m";
        for (list, files) in [
            (&[][..], 96),
            (&single[..1], 96),
            (&single[..12], 96),
            (&single[..13], 104),
            (&single[..], 240),
            (&[&*cluster][..], 161),
            (&[sentinels; 12][..], 12 * 11),
        ] {
            let urls = urls(list);
            assert_eq!(of_redis(&urls), files, "{list:?}");
            assert_eq!(reserved(&urls), 500 + files - 96, "{list:?}");
            assert_eq!(masters_planned(&urls) as u64, files / 8, "{list:?}");
        }
    }
}
