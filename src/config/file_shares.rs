//! How the files that this process may open are dealt out, so that no part takes those of another.
//!
//! In: the limit, the most sessions, the number of workers. Out: how many connections each listener
//! may have. Sessions have `server.connections_max`; of what is left, Redis, the workers' own files
//! and the log come first, then the API with two parts in three, then connections to the public
//! listener that are no session yet.

use crate::config::Server;
use crate::config::machine;

/// Files of a worker: its listener and what its runtime waits with.
const OF_WORKER: u64 = 6;
/// Files of everything else: eight for each of a dozen masters of Redis, the control side, the
/// log.
const OF_NODE: u64 = 128;
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

impl FileShares {
    /// Of this process. Raises the soft limit of files to the hard one.
    #[must_use]
    pub fn here(server: &Server) -> Self {
        let (sessions, workers) = (server.connections_max as u64, server.workers as u64);
        Self::of(machine::file_limit(), sessions, workers)
    }

    fn of(file_limit: u64, sessions: u64, workers: u64) -> Self {
        let own = OF_NODE + OF_WORKER * workers;
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

    #[test]
    fn no_share_of_the_files_is_taken_from_another() {
        for file_limit in [1_024, 4_096, 20_000, 65_536, 1_048_576] {
            for workers in [1, 8, 32] {
                let sessions = file_limit - files_reserved(file_limit);
                let shares = FileShares::of(file_limit, sessions, workers);
                let all = (shares.public + shares.api) as u64;
                let own = OF_NODE + OF_WORKER * workers;
                assert!(all + own <= file_limit, "{file_limit} {workers} {shares:?}");
                assert!(shares.public as u64 >= sessions + FEWEST);
            }
        }
    }

    #[test]
    fn a_high_limit_gives_each_kind_its_most() {
        let most = FileShares {
            public: 1_000 + 4_096,
            api: 1_024,
        };
        assert_eq!(FileShares::of(1_048_576, 1_000, 4), most);
        assert_eq!(FileShares::of(u64::MAX, 1_000, 4), most);
    }
}
