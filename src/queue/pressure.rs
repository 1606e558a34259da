//! Which part of the depth more nodes would work off.
//!
//! In: processor time of the process, each second. Out: a number from 0 to 1: how busy it was over
//! [`WINDOW`] seconds, where half of its cores or more is 1, and a quarter of them, or half a core, is 0.
//! A queue that is deep because Redis is slow leaves the node nearly idle, and no further node would
//! help. What is nearly idle counts as idle: a node that takes entries and asks a slow Redis in vain
//! used 0.16 to 0.22 of a core, and a share of the depth would grow with it (measured, docs/performance.md).
//! At most [`CORES_MAX`] cores count. Pure. Bound: one number a second of the window.

use std::collections::VecDeque;

/// Seconds over which the load is taken.
pub const WINDOW: usize = 10;
/// The most cores that count. What moves entries are the two threads of the control side, on a machine of
/// any size: a node that uses two cores has no more for its queue, and is all that it can be at half of
/// four. Without this bound one that has no limit of CPU on a machine of 16 cores would tell its depth
/// in full only from eight cores on, which its queue never uses. With a lower one, what sessions cost a
/// large node would sooner count for its queue, where Redis is slow.
pub const CORES_MAX: f64 = 4.0;

/// See the module.
#[derive(Debug)]
pub struct Pressure {
    cores: f64,
    /// Processor seconds, one for each second, the oldest first.
    samples: VecDeque<f64>,
}

impl Pressure {
    /// Of a process that can use so many cores, or a part of one.
    #[must_use]
    pub fn new(cores: f64) -> Self {
        Self {
            cores: cores.clamp(0.1, CORES_MAX),
            samples: VecDeque::with_capacity(WINDOW + 1),
        }
    }

    /// A second has passed; the process has used so many processor seconds since its start.
    pub fn sample(&mut self, cpu_seconds: f64) {
        self.samples.push_back(cpu_seconds);
        while self.samples.len() > WINDOW + 1 {
            self.samples.pop_front();
        }
    }

    /// The part, 0 while no second is known.
    #[must_use]
    pub fn part(&self) -> f64 {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else {
            return 0.0;
        };
        let seconds = self.samples.len() - 1;
        if seconds == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss)]
        let busy = (last - first) / seconds as f64;
        let (idle, full) = ((self.cores / 4.0).min(0.5), self.cores / 2.0);
        ((busy - idle) / (full - idle)).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_cores_is_all_and_the_window_moves_on() {
        let part_at = |pressure: &mut Pressure, from: f64, cores: f64| {
            for second in 0..=20 {
                pressure.sample(from + cores * f64::from(second));
            }
            pressure.part()
        };
        let mut pressure = Pressure::new(4.0);
        assert!(pressure.part() < f64::EPSILON);
        let part = part_at(&mut pressure, 0.0, 1.25);
        assert!((part - 0.5).abs() < 1e-9, "between half a core and two");
        let part = part_at(&mut pressure, 25.0, 3.0);
        assert!((part - 1.0).abs() < 1e-9);
        let part = part_at(&mut pressure, 85.0, 0.5);
        assert!(part < f64::EPSILON, "half a core is nearly idle: {part}");
        for cores in [4.0, 16.0, 128.0] {
            let mut large = Pressure::new(cores);
            let part = part_at(&mut large, 0.0, 2.0);
            assert!((part - 1.0).abs() < 1e-9, "{part} on {cores} cores");
            let part = part_at(&mut large, 40.0, 1.25);
            assert!((part - 0.5).abs() < 1e-9, "{part} on {cores} cores");
        }
        let mut small = Pressure::new(1.0);
        assert!(part_at(&mut small, 0.0, 0.25) < f64::EPSILON);
        assert!(part_at(&mut small, 5.0, 0.375) > 0.4);
        // A limit of a fifth of a core: what it can be at most is all.
        let mut limited = Pressure::new(0.2);
        assert!(part_at(&mut limited, 0.0, 0.04) < f64::EPSILON);
        assert!((part_at(&mut limited, 5.0, 0.2) - 1.0).abs() < 1e-9);
    }
}
