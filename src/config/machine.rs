//! What the configuration takes from the machine: cores, the host's name, the limits of files and
//! memory.
//!
//! In: the operating system. Out: one [`Machine`], so that loading itself asks nothing and a test
//! can name its own machine.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The facts from which `server.workers`, `server.node_id`, `server.connections_max`,
/// `admission.memory_bytes_max` and `memory.bytes_max` come when nobody sets them.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// The host's name; in a pod, the pod's. See [`name_apart`].
    pub host_name: String,
    /// Files that this process may open. See [`file_limit`].
    pub file_limit: u64,
    /// Bytes of memory that the control group of this process may use. See [`memory_limit`].
    pub memory_limit: Option<u64>,
    /// Bytes of memory that the machine has; `None` where the system does not say.
    pub memory_total: Option<u64>,
}

impl Machine {
    /// This machine. Raises the soft file limit to the hard one.
    #[must_use]
    pub fn here() -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            host_name: name_apart(
                &rustix::system::uname().nodename().to_string_lossy(),
                rand::random(),
            ),
            file_limit: file_limit(),
            memory_limit: memory_limit(Path::new("/")),
            memory_total: memory_total(Path::new("/")),
        }
    }

    /// Bytes that this process can have at the most: what the control group allows, or what there
    /// is.
    #[must_use]
    pub fn memory_max(&self) -> Option<u64> {
        self.memory_limit.into_iter().chain(self.memory_total).min()
    }
}

/// The host's name, with this number behind it where every machine is called so: each instance of Cloud
/// Run is `localhost`, and of two nodes of one name only one may live. Made once a process, so that a
/// configuration that is read again names the same node.
#[must_use]
pub fn name_apart(host_name: &str, number: u32) -> String {
    // Names of hosts are the same in any case, and with the root's dot behind them.
    let plain = host_name.trim_end_matches('.').to_ascii_lowercase();
    match plain.as_str() {
        // The kernel's own word for a name that nobody has set.
        "" | "(none)" => format!("node-{number:08x}"),
        "localhost" | "localhost.localdomain" => format!("localhost-{number:08x}"),
        _ => host_name.to_owned(),
    }
}

/// What the control group of this process allows, version 2 or 1, below `root` (`/`, but in
/// tests): the smallest limit on the way from its own group to the top, because each holds. `None`
/// where nothing is limited, or the system has no control groups.
#[must_use]
pub fn memory_limit(root: &Path) -> Option<u64> {
    let limits = groups(root, "memory")
        .into_iter()
        .filter_map(|(group, is_newer)| {
            let file = if is_newer {
                "memory.max"
            } else {
                "memory.limit_in_bytes"
            };
            fs::read_to_string(group.join(file)).ok()
        });
    let numbers = limits.filter_map(|text| text.trim().parse().ok());
    // Version 1 says "no limit" by the largest number of whole pages.
    numbers.filter(|bytes| *bytes < UNLIMITED).min()
}

/// The same for processor time, in cores: half a core is 0.5.
#[must_use]
pub fn cpu_limit(root: &Path) -> Option<f64> {
    let limits = groups(root, "cpu")
        .into_iter()
        .filter_map(|(group, is_newer)| {
            let read = |file| fs::read_to_string(group.join(file)).ok();
            let text = match is_newer {
                true => read("cpu.max")?,
                false => format!(
                    "{} {}",
                    read("cpu.cfs_quota_us")?,
                    read("cpu.cfs_period_us")?
                ),
            };
            // The time, and of how much; where nothing is limited, `max`, or in version 1 less than 0.
            let mut numbers = text.split_whitespace().map(str::parse::<f64>);
            let (time, of) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
            (time > 0.0 && of > 0.0).then(|| time / of)
        });
    limits.min_by(f64::total_cmp)
}

/// How many cores this process can use at once: what its control group allows, which may be a part of
/// one, and no more than it may run on.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "no machine has so many cores")]
pub fn cores_max(machine: &Machine) -> f64 {
    let whole = machine.cores as f64;
    cpu_limit(Path::new("/")).map_or(whole, |limit| limit.min(whole))
}

/// The directories of a controller's groups, from the process' own to the top, each with whether it
/// is of version 2.
fn groups(root: &Path, controller: &str) -> Vec<(PathBuf, bool)> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let directories = groups.lines().flat_map(|line| {
        // `NUMBER:CONTROLLERS:PATH`; version 2 names no controllers.
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let mount = root.join("sys/fs/cgroup");
        let mount = match controllers {
            "" => mount,
            _ if controllers.split(',').any(|one| one == controller) => mount.join(controller),
            _ => return Vec::new(),
        };
        // In a container the path may be that of the host, and only the top is to be seen.
        let own = Path::new(path.trim_start_matches('/')).ancestors();
        let is_newer = controllers.is_empty();
        own.map(|group| (mount.join(group), is_newer)).collect()
    });
    directories.collect()
}

/// The machine's memory by `/proc/meminfo` below `root`.
#[must_use]
pub fn memory_total(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1_024)
}

/// No machine has so much memory.
const UNLIMITED: u64 = 1 << 60;

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

#[cfg(test)]
mod tests {
    use super::*;

    /// A root directory with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        memory_limit(root(files).path())
    }

    #[test]
    fn a_name_that_every_machine_has_gets_an_end_of_its_own() {
        let rows = [
            ("", "node-0000001f"),
            ("(none)", "node-0000001f"),
            ("localhost", "localhost-0000001f"),
            ("localhost.localdomain", "localhost-0000001f"),
            ("LOCALHOST", "localhost-0000001f"),
            ("Localhost.LocalDomain", "localhost-0000001f"),
            ("localhost.", "localhost-0000001f"),
            (".", "node-0000001f"),
            ("web-1", "web-1"),
            ("Web-1", "Web-1"),
            ("localhost-1", "localhost-1"),
        ];
        for (host_name, name) in rows {
            assert_eq!(name_apart(host_name, 31), name, "{host_name}");
        }
    }

    #[test]
    fn the_smallest_limit_on_the_way_to_the_top_holds() {
        let own = ("proc/self/cgroup", "0::/pods/one\n");
        let limits = [
            ("sys/fs/cgroup/pods/one/memory.max", "3000000\n"),
            ("sys/fs/cgroup/pods/memory.max", "2000000\n"),
            ("sys/fs/cgroup/memory.max", "max\n"),
        ];
        assert_eq!(limit(&[own, limits[0], limits[2]]), Some(3_000_000));
        assert_eq!(limit(&[own, limits[0], limits[1]]), Some(2_000_000));
    }

    #[test]
    fn in_a_container_only_the_top_is_to_be_seen() {
        let own = ("proc/self/cgroup", "0::/kubepods/burstable/pod7/abc\n");
        let top = ("sys/fs/cgroup/memory.max", "536870912\n");
        assert_eq!(limit(&[own, top]), Some(536_870_912));
    }

    #[test]
    fn the_first_version_is_read_too() {
        let own = ("proc/self/cgroup", "9:cpu,cpuacct:/x\n4:memory:/docker/a\n");
        let memory = "sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes";
        assert_eq!(limit(&[own, (memory, "1048576\n")]), Some(1_048_576));
        assert_eq!(limit(&[own, (memory, "9223372036854771712\n")]), None);
    }

    #[test]
    fn the_smallest_share_of_processor_time_holds() {
        let cores = |files: &[(&str, &str)]| cpu_limit(root(files).path());
        let own = ("proc/self/cgroup", "0::/pods/one\n");
        let half = ("sys/fs/cgroup/pods/one/cpu.max", "50000 100000\n");
        let two = ("sys/fs/cgroup/pods/cpu.max", "200000 100000\n");
        let none = ("sys/fs/cgroup/cpu.max", "max 100000\n");
        assert_eq!(cores(&[own, none]), None);
        assert_eq!(cores(&[own, two, none]), Some(2.0));
        assert_eq!(cores(&[own, half, two, none]), Some(0.5));
        let own = ("proc/self/cgroup", "9:cpu,cpuacct:/x\n4:memory:/a\n");
        let period = ("sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n");
        let quota = |text| ("sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", text);
        assert_eq!(cores(&[own, period, quota("150000\n")]), Some(1.5));
        assert_eq!(cores(&[own, period, quota("-1\n")]), None);
    }

    #[test]
    fn the_memory_of_the_machine_is_read_in_bytes() {
        let root = root(&[("proc/meminfo", "MemTotal:        2048 kB\nMemFree:  1 kB\n")]);
        assert_eq!(memory_total(root.path()), Some(2_097_152));
        assert_eq!(memory_total(&root.path().join("nowhere")), None);
    }

    #[test]
    fn where_nothing_is_limited_or_known_there_is_no_limit() {
        assert_eq!(limit(&[]), None);
        let own = ("proc/self/cgroup", "0::/\n");
        assert_eq!(limit(&[own]), None);
        assert_eq!(limit(&[own, ("sys/fs/cgroup/memory.max", "max\n")]), None);
    }
}
