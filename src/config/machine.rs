//! What the configuration takes from the machine: cores, the host's name, the file limit.
//!
//! In: the operating system. Out: one [`Machine`], so that loading itself asks nothing and a test
//! can name its own machine.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The facts from which `server.workers`, `server.node_id` and `server.connections_max` come
/// when nobody sets them.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// The host's name; in a pod, the pod's.
    pub host_name: String,
    /// Files that this process may open. See [`file_limit`].
    pub file_limit: u64,
}

impl Machine {
    /// This machine. Raises the soft file limit to the hard one.
    #[must_use]
    pub fn here() -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            host_name: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            file_limit: file_limit(),
        }
    }
}

/// Raises the soft limit of open files to the hard one and returns what then holds. A limit that
/// cannot be raised stays as it is.
#[must_use]
pub fn file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // A refusal leaves the soft limit in force, which the answer then shows.
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    now.unwrap_or(u64::MAX)
}
