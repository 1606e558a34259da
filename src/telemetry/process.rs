//! What the operating system says of this process: memory, descriptors, processor time, start; and how
//! long it stood still.
//!
//! In: `/proc/self` and `/proc/stat` (Linux). Out: the metrics that Prometheus calls standard.
//! Where the system does not tell a number, its metric is left out.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::family::{Family, Kind, Value};

/// Clock ticks a second in `/proc`: `USER_HZ`, which Linux fixes at 100 for user space.
const TICKS_PER_S: f64 = 100.0;

/// How long this process stood still.
static STALLED_US: AtomicU64 = AtomicU64::new(0);

/// The process stood still for so long since its start. Told by whoever looks at its clock.
pub fn stalled(since_start: Duration) {
    let us = u64::try_from(since_start.as_micros()).unwrap_or(u64::MAX);
    STALLED_US.store(us, Ordering::Relaxed);
}

/// Resident memory, in bytes.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    resident_of(&fs::read_to_string("/proc/self/status").ok()?)
}

/// User and system processor time since the start, in seconds.
#[must_use]
pub fn cpu_seconds_now() -> Option<f64> {
    cpu_seconds(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// The standard process metrics.
#[must_use]
pub fn families() -> Vec<Family> {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let open_fds = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    let memory = Family::known(
        "process_resident_memory_bytes",
        "Resident memory of the process.",
        resident_bytes().map(Value::Whole),
    );
    let files = Family::known(
        "process_open_fds",
        "Open file descriptors of the process.",
        open_fds.map(|count| Value::Whole(count as u64)),
    );
    let time = Family::known(
        "process_cpu_seconds_total",
        "User and system processor time of the process.",
        cpu_seconds(&stat).map(Value::Real),
    );
    let time = time.map(|time| Family {
        kind: Kind::Counter,
        ..time
    });
    let start = Family::known(
        "process_start_time_seconds",
        "Start of the process, unix seconds.",
        start_seconds(&stat, &boot).map(Value::Real),
    );
    let stalled = Duration::from_micros(STALLED_US.load(Ordering::Relaxed));
    let stalled = Family::known(
        "fanfare_stalled_seconds_total",
        "Time in which the process stood still: it was stopped, or its machine was, or gave it no processor. Of each such time what is above a second, told when it goes on.",
        Some(Value::Real(stalled.as_secs_f64())),
    );
    let stalled = stalled.map(|stalled| Family {
        kind: Kind::Counter,
        ..stalled
    });
    let all = [memory, files, time, start, stalled];
    all.into_iter().flatten().collect()
}

fn resident_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

/// A field of `/proc/self/stat` by its number in proc(5). Fields are counted behind the command's
/// name, which stands in parentheses and may contain spaces and parentheses itself.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    const FIRST_AFTER_NAME: usize = 3;
    let (_, fields) = stat.rsplit_once(')')?;
    let field = fields.split_whitespace().nth(number - FIRST_AFTER_NAME)?;
    field.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    const USER_TIME: usize = 14;
    const SYSTEM_TIME: usize = 15;
    Some((stat_field(stat, USER_TIME)? + stat_field(stat, SYSTEM_TIME)?) / TICKS_PER_S)
}

fn start_seconds(stat: &str, boot: &str) -> Option<f64> {
    const START_TIME: usize = 22;
    let booted: f64 = boot
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .parse()
        .ok()?;
    Some(booted + stat_field(stat, START_TIME)? / TICKS_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (a ) b) S 1 42 42 0 -1 4194560 900 0 0 0 250 150 0 0 20 0 4 0 12345 \
                        1000000 500 18446744073709551615";

    #[test]
    fn the_fields_of_proc_are_read_behind_a_name_with_parentheses() {
        assert_eq!(cpu_seconds(STAT), Some(4.0));
        assert_eq!(
            start_seconds(STAT, "cpu 1\nbtime 1700000000\n"),
            Some(1_700_000_123.45)
        );
        assert_eq!(resident_of("VmPeak: 9 kB\nVmRSS:\t  12 kB\n"), Some(12_288));
    }

    #[test]
    fn what_the_system_does_not_tell_is_left_out() {
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(start_seconds(STAT, ""), None);
        assert_eq!(resident_of("Name: x"), None);
    }
}
