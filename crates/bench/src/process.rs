//! What the operating system says about a process: its name, its processor time, its memory.
//!
//! In: `/proc` (Linux). Out: numbers. A node reads the same of itself for its metrics
//! (`src/api/process.rs`); it must not need the generator, nor the generator the node.

use std::io;
use std::time::Duration;

/// Clock ticks a second in `/proc`: `USER_HZ`, which Linux fixes at 100 for user space.
const TICKS_PER_S: u64 = 100;

/// What a process has used so far, and holds now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Processor time in user space, exact to 10 ms.
    pub user: Duration,
    /// Processor time in the kernel, exact to 10 ms.
    pub system: Duration,
    /// Resident memory.
    pub resident_bytes: u64,
}

impl Usage {
    /// User and system together.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        self.user + self.system
    }
}

/// The figures of a process, over all its threads.
///
/// # Errors
/// Where there is no such process, or no `/proc`.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command's name stands in parentheses; the third field of proc(5) follows it.
    let (_, fields) = stat.rsplit_once(')').ok_or(io::ErrorKind::InvalidData)?;
    let ticks = |number: usize| {
        let field = fields.split_whitespace().nth(number - 3);
        let count: Option<u64> = field.and_then(|text| text.parse().ok());
        count.map(|count| Duration::from_millis(count * 1_000 / TICKS_PER_S))
    };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: Option<u64> = kib.and_then(|text| text.trim().parse().ok());
    let (Some(user), Some(system), Some(kib)) = (ticks(14), ticks(15), kib) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    Ok(Usage {
        user,
        system,
        resident_bytes: kib * 1_024,
    })
}

/// What the process is called.
///
/// # Errors
/// Where there is no such process, or no `/proc`.
pub fn name(pid: u32) -> io::Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/comm"))?;
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_name_and_memory_and_nobody_has_the_id_0() {
        let here = usage(std::process::id()).expect("this process");
        assert!(here.resident_bytes > 100_000, "{here:?}");
        assert!(!name(std::process::id()).expect("a name").is_empty());
        assert!(usage(0).is_err());
    }
}
