//! What the operating system says and does about processes: memory, processor time, cores.
//!
//! In: `/proc` (Linux) and `taskset`. Out: numbers, and a line about the machine. Where `taskset`
//! is missing nothing is pinned, and the bench says so.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use fanfare::config::machine::memory_total;
use fanfare_bench::process::usage;

/// The core of what is measured.
pub(crate) const MEASURED_CORE: &str = "0";
/// The core of the load and of Redis.
pub(crate) const LOAD_CORE: &str = "1";

/// Puts a process with all its threads on one core. False when that cannot be done here.
pub(crate) fn pin(pid: u32, core: &str) -> bool {
    Command::new("taskset")
        .args(["-a", "-c", "-p", core, &pid.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Processor time of a process, user and system, over all its threads. Exact to 10 ms.
pub(crate) fn cpu(pid: u32) -> Duration {
    usage(pid).expect("the process lives").cpu()
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    usage(pid).expect("the process lives").resident_bytes
}

/// The machine in a line: processor, cores, memory, kernel, and how busy it was just now.
pub(crate) fn machine() -> String {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processors = text("/proc/cpuinfo");
    let model = processors.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim().to_owned())
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = memory_total(Path::new("/")).unwrap_or_default() >> 30;
    let kernel = text("/proc/sys/kernel/osrelease");
    let load = text("/proc/loadavg");
    let load: Vec<_> = load.split_whitespace().take(3).collect();
    format!(
        "{}, {cores} cores, {memory} GiB, Linux {}, load {}",
        model.unwrap_or_else(|| "unknown processor".into()),
        kernel.trim(),
        load.join(" ")
    )
}
