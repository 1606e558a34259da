//! What a stretch of a load cost: the servers' processes, and the generator's own.
//!
//! In: process ids. Out: a [`Window`] between two moments, and from it [`Cost`]. The generator
//! watches itself twice: its processor time, and how late its event loop is for an appointment
//! every [`LAG_EVERY`]. A latency that it reports includes its own lateness, so it says when that
//! was large.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::{self, JoinHandle};

use super::error::BenchError;
use super::latency::{self, Percentiles};
use super::process::{self, Usage};

/// How often the event loop has an appointment.
const LAG_EVERY: Duration = Duration::from_millis(20);
/// From this share of a core on the generator itself was the bottleneck.
const CPU_SHARE_MAX: f64 = 0.9;
/// A loop that is so late every hundredth time adds that to the latencies it reports.
const LAG_P99_MAX: Duration = Duration::from_millis(25);

/// What the processes are called that keep what servers share.
const REDIS_NAMES: [&str; 2] = ["redis", "valkey"];

/// Processor time, of those kinds of processes that are watched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Of all servers.
    pub server: Option<Duration>,
    /// Of Redis, by its name.
    pub redis: Option<Duration>,
}

/// Watches processes and its own event loop.
#[derive(Debug)]
pub struct Meter {
    watched: Vec<Watched>,
    lag: Rc<RefCell<Histogram<u64>>>,
    watch: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct Watched {
    pid: u32,
    name: String,
}

impl Meter {
    /// Begins to watch.
    ///
    /// # Errors
    /// [`BenchError::Process`] for an id that no process has.
    pub fn start(pids: &[u32]) -> Result<Self, BenchError> {
        let watched = pids.iter().map(|pid| {
            let name = process::name(*pid);
            let name = name.map_err(|source| BenchError::Process { pid: *pid, source })?;
            Ok(Watched { pid: *pid, name })
        });
        let watched = watched.collect::<Result<_, BenchError>>()?;
        let lag = Rc::new(RefCell::new(latency::histogram()));
        let into = Rc::clone(&lag);
        let watch = task::spawn_local(async move {
            loop {
                let due = Instant::now() + LAG_EVERY;
                tokio::time::sleep_until(due.into()).await;
                let late_us = latency::micros(due.elapsed());
                into.borrow_mut().saturating_record(late_us);
            }
        });
        Ok(Self {
            watched,
            lag,
            watch,
        })
    }

    /// Whether there is a server to watch.
    #[must_use]
    pub fn has_server(&self) -> bool {
        !self.watched.is_empty()
    }

    /// What the first process holds now.
    ///
    /// # Errors
    /// [`BenchError::Process`] where it is gone.
    pub fn resident_bytes(&self) -> Result<u64, BenchError> {
        let usages = self.usages()?;
        Ok(usages.first().map_or(0, |usage| usage.resident_bytes))
    }

    /// Begins a stretch.
    ///
    /// # Errors
    /// [`BenchError::Process`] where a process is gone.
    pub fn begin(&self) -> Result<Window<'_>, BenchError> {
        self.lag.borrow_mut().reset();
        Ok(Window {
            meter: self,
            begin: Instant::now(),
            usages: self.usages()?,
            own: own(),
        })
    }

    /// What servers have used so far.
    ///
    /// # Errors
    /// [`BenchError::Process`] where a process is gone.
    pub fn cpu(&self) -> Result<Cpu, BenchError> {
        let mut cpu = Cpu::default();
        for (watched, usage) in self.watched.iter().zip(self.usages()?) {
            let is_redis = REDIS_NAMES.iter().any(|name| watched.name.contains(name));
            let part = if is_redis {
                &mut cpu.redis
            } else {
                &mut cpu.server
            };
            *part = Some(part.unwrap_or_default() + usage.cpu());
        }
        Ok(cpu)
    }

    fn usages(&self) -> Result<Vec<Usage>, BenchError> {
        let usages = self.watched.iter().map(|watched| usage(watched.pid));
        usages.collect()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

fn usage(pid: u32) -> Result<Usage, BenchError> {
    process::usage(pid).map_err(|source| BenchError::Process { pid, source })
}

/// The generator's own processor time, where the system tells it.
fn own() -> Option<Duration> {
    let usage = process::usage(std::process::id()).ok()?;
    Some(usage.cpu())
}

/// A stretch that has begun.
#[derive(Debug)]
pub struct Window<'a> {
    meter: &'a Meter,
    begin: Instant,
    usages: Vec<Usage>,
    own: Option<Duration>,
}

impl Window<'_> {
    /// Ends the stretch now.
    ///
    /// # Errors
    /// [`BenchError::Process`] where a process is gone.
    pub fn end(self) -> Result<Cost, BenchError> {
        self.end_with(Instant::now())
    }

    /// Ends the stretch with the last message that came: waiting in vain for more cost nothing,
    /// and is no part of any rate.
    ///
    /// # Errors
    /// [`BenchError::Process`] where a process is gone.
    pub fn end_with(self, last: Instant) -> Result<Cost, BenchError> {
        let took = last.saturating_duration_since(self.begin);
        let took = took.max(Duration::from_micros(1));
        let ends = self.meter.usages()?;
        let processes = self.meter.watched.iter().zip(self.usages).zip(ends);
        let processes = processes.map(|((watched, begin), end)| ProcessCost {
            pid: watched.pid,
            name: watched.name.clone(),
            cpu_user_s: (end.user - begin.user).as_secs_f64(),
            cpu_system_s: (end.system - begin.system).as_secs_f64(),
            resident_before_bytes: begin.resident_bytes,
            resident_after_bytes: end.resident_bytes,
        });
        let lag = self.meter.lag.borrow();
        let own = own().zip(self.own);
        let cpu_share = own.map(|(end, begin)| (end - begin).as_secs_f64() / took.as_secs_f64());
        Ok(Cost {
            took,
            processes: processes.collect(),
            generator: Generator::new(cpu_share, &lag),
        })
    }
}

/// What a stretch cost.
#[derive(Debug)]
pub struct Cost {
    /// How long it was.
    pub took: Duration,
    /// The servers' processes, in the order given.
    pub processes: Vec<ProcessCost>,
    /// The generator itself.
    pub generator: Generator,
}

impl Cost {
    /// Processor time of the first process in microseconds, where one is watched.
    #[must_use]
    pub fn server_cpu_us(&self) -> Option<f64> {
        self.processes.first().map(|p| p.cpu_s() * 1e6)
    }

    /// What the first process holds more than before, in bytes.
    #[must_use]
    pub fn server_growth_bytes(&self) -> Option<f64> {
        let process = self.processes.first()?;
        Some(process.resident_after_bytes as f64 - process.resident_before_bytes as f64)
    }
}

/// What one process used in a stretch.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ProcessCost {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Processor time in user space.
    pub cpu_user_s: f64,
    /// Processor time in the kernel.
    pub cpu_system_s: f64,
    /// Resident memory at the begin.
    pub resident_before_bytes: u64,
    /// Resident memory at the end.
    pub resident_after_bytes: u64,
}

impl ProcessCost {
    /// User and system together, in seconds.
    #[must_use]
    pub fn cpu_s(&self) -> f64 {
        self.cpu_user_s + self.cpu_system_s
    }
}

/// How the generator itself fared.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Generator {
    /// Of one core, from 0 to 1, where the system tells it.
    pub cpu_share: Option<f64>,
    /// How late its event loop was.
    pub lag_us: Percentiles,
    /// Whether its own limits are in the figures.
    pub was_bottleneck: bool,
}

impl Generator {
    fn new(cpu_share: Option<f64>, lag: &Histogram<u64>) -> Self {
        let lag_us = Percentiles::of(lag);
        Self {
            cpu_share,
            was_bottleneck: cpu_share >= Some(CPU_SHARE_MAX)
                || lag_us.p99 >= latency::micros(LAG_P99_MAX),
            lag_us,
        }
    }

    /// The verdict in a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let share = self
            .cpu_share
            .map(|share| format!("{:.0} %", share * 100.0));
        let facts = format!(
            "it used {} of a core, and its loop was {:.1} ms late at p99",
            share.as_deref().unwrap_or("an unknown share"),
            self.lag_us.p99 as f64 / 1_000.0
        );
        if self.cpu_share >= Some(CPU_SHARE_MAX) {
            format!(
                "THE GENERATOR WAS THE BOTTLENECK: {facts}. The server may do better than these \
                 figures; ask for less, or give the generator a core of its own"
            )
        } else if self.was_bottleneck {
            format!(
                "THE GENERATOR WAS THE BOTTLENECK for latencies: {facts}, and that is in them. \
                 Ask for less, or give the generator a core of its own"
            )
        } else {
            format!("the generator was not the bottleneck: {facts}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generator_without_a_free_core_or_on_time_loop_says_so() {
        let on_time = latency::histogram();
        let mut late = latency::histogram();
        late.saturating_record(latency::micros(2 * LAG_P99_MAX));
        assert!(!Generator::new(Some(0.5), &on_time).was_bottleneck);
        assert!(Generator::new(Some(0.95), &on_time).was_bottleneck);
        assert!(Generator::new(Some(0.1), &late).was_bottleneck);
        for limited in [
            Generator::new(Some(0.95), &on_time),
            Generator::new(None, &late),
        ] {
            assert!(limited.sentence().contains("BOTTLENECK"));
        }
    }
}
