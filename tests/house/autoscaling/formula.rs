//! How many pods the HorizontalPodAutoscaler of Kubernetes asks for, by its documented algorithm.
//!
//! In: what each pod tells of each metric, and the `behavior` of the object. Out: a number of pods.
//! Follows `pkg/controller/podautoscaler` of Kubernetes 1.36: `ceil(pods × value ÷ target)` beyond a
//! tolerance of a tenth, the largest of several metrics, then windows, then policies, then the ends.
//! Pure: time is an argument, in seconds.

/// Beyond which part of the target anything is done (`--horizontal-pod-autoscaler-tolerance`).
const TOLERANCE: f64 = 0.1;

/// What one pod tells of one metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Told {
    Value(f64),
    /// It runs, and nobody has asked it yet.
    Silent,
    /// It does not run yet.
    Pending,
}

/// One metric.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// For each pod.
    pub(crate) target: f64,
    pub(crate) pods: Vec<Told>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Pods,
    Percent,
}

/// At most so many in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) kind: Kind,
    pub(crate) value: u64,
    pub(crate) period_s: u64,
}

/// One direction of `behavior`, whose policy of the largest change counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Direction {
    pub(crate) window_s: u64,
    pub(crate) policies: Vec<Policy>,
}

/// What the object says beside its metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) pods_min: u64,
    pub(crate) pods_max: u64,
    pub(crate) up: Direction,
    pub(crate) down: Direction,
}

/// The controller's memory of one object.
#[derive(Debug)]
pub(crate) struct Autoscaler {
    rules: Rules,
    /// When what was recommended, before windows.
    recommended: Vec<(u64, u64)>,
    /// When how many came, and went.
    came: Vec<(u64, u64)>,
    went: Vec<(u64, u64)>,
}

impl Autoscaler {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            recommended: Vec::new(),
            came: Vec::new(),
            went: Vec::new(),
        }
    }

    /// How many pods there are to be, of `pods` now.
    pub(crate) fn decide(&mut self, now: u64, pods: u64, readings: &[Reading]) -> u64 {
        let wanted = readings.iter().map(|reading| by_metric(pods, reading));
        let wanted = wanted.max().unwrap_or(pods);
        let steady = self.stabilized(now, pods, wanted);
        let decided = self.paced(now, pods, steady);
        if decided > pods {
            self.came.push((now, decided - pods));
        } else if decided < pods {
            self.went.push((now, pods - decided));
        }
        decided
    }

    /// No more than the least that was recommended within the window upward, no fewer than the most
    /// within the one downward.
    fn stabilized(&mut self, now: u64, pods: u64, wanted: u64) -> u64 {
        let within = |window: u64| {
            let recent = self.recommended.iter();
            recent.filter(move |(at, _)| at + window > now)
        };
        let up = within(self.rules.up.window_s).map(|(_, pods)| *pods).min();
        let down = within(self.rules.down.window_s)
            .map(|(_, pods)| *pods)
            .max();
        let up = up.map_or(wanted, |least| least.min(wanted));
        let down = down.map_or(wanted, |most| most.max(wanted));
        self.recommended.push((now, wanted));
        pods.max(up).min(down)
    }

    /// As far as the policies let it go, and the ends.
    fn paced(&self, now: u64, pods: u64, wanted: u64) -> u64 {
        let (least, most) = (self.rules.pods_min, self.rules.pods_max);
        let before = |policy: &Policy| {
            let changed = |events: &[(u64, u64)]| -> u64 {
                let recent = events.iter();
                let recent = recent.filter(|(at, _)| at + policy.period_s > now);
                recent.map(|(_, count)| count).sum()
            };
            (pods + changed(&self.went)).saturating_sub(changed(&self.came))
        };
        if wanted > pods {
            let limits = self
                .rules
                .up
                .policies
                .iter()
                .map(|policy| match policy.kind {
                    Kind::Pods => before(policy) + policy.value,
                    Kind::Percent => (before(policy) * (100 + policy.value)).div_ceil(100),
                });
            let limit = limits.max().unwrap_or(pods).max(pods);
            return wanted.min(limit).min(most);
        }
        if wanted < pods {
            let limits = self
                .rules
                .down
                .policies
                .iter()
                .map(|policy| match policy.kind {
                    Kind::Pods => before(policy).saturating_sub(policy.value),
                    Kind::Percent => before(policy) * (100 - policy.value.min(100)) / 100,
                });
            let limit = limits.min().unwrap_or(pods).min(pods);
            return wanted.max(limit).max(least);
        }
        wanted.clamp(least, most)
    }
}

fn is_near_target(ratio: f64) -> bool {
    (1.0 - TOLERANCE..=1.0 + TOLERANCE).contains(&ratio)
}

/// What one metric asks for. Pods that tell nothing hold a change up: on the way up they count as
/// idle, on the way down as at the target; those that do not run yet count on the way up only.
fn by_metric(pods: u64, reading: &Reading) -> u64 {
    let told = |is: fn(&Told) -> bool| reading.pods.iter().filter(|told| is(told)).count() as f64;
    let values = reading.pods.iter().filter_map(|told| match told {
        Told::Value(value) => Some(*value),
        _ => None,
    });
    let (count, sum) = values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
    if count == 0.0 {
        return pods;
    }
    let ratio = sum / (count * reading.target);
    let silent = told(|told| *told == Told::Silent);
    let pending = match ratio > 1.0 {
        true => told(|told| *told == Told::Pending),
        false => 0.0,
    };
    if silent == 0.0 && pending == 0.0 {
        return match is_near_target(ratio) {
            true => pods,
            false => (ratio * count).ceil() as u64,
        };
    }
    let assumed = if ratio < 1.0 {
        silent * reading.target
    } else {
        0.0
    };
    let all = count + silent + pending;
    let cautious = (sum + assumed) / (all * reading.target);
    if is_near_target(cautious) || (ratio < 1.0) != (cautious < 1.0) {
        return pods;
    }
    let wanted = (cautious * all).ceil() as u64;
    let turns = (cautious < 1.0 && wanted > pods) || (cautious > 1.0 && wanted < pods);
    if turns { pods } else { wanted }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(target: f64, pods: &[Told]) -> Reading {
        Reading {
            target,
            pods: pods.to_vec(),
        }
    }

    fn each(target: f64, value: f64, pods: usize) -> Reading {
        reading(target, &vec![Told::Value(value); pods])
    }

    /// A window each way and one policy.
    fn rules(window_s: u64, kind: Kind, value: u64, period_s: u64) -> Rules {
        let policy = Policy {
            kind,
            value,
            period_s,
        };
        let direction = Direction {
            window_s,
            policies: vec![policy],
        };
        Rules {
            pods_min: 1,
            pods_max: 100,
            up: direction.clone(),
            down: direction,
        }
    }

    #[test]
    fn the_examples_of_the_documentation() {
        // Twice the target doubles, half of it halves, a tenth beside it does nothing.
        assert_eq!(by_metric(3, &each(100.0, 200.0, 3)), 6);
        assert_eq!(by_metric(4, &each(100.0, 50.0, 4)), 2);
        assert_eq!(by_metric(10, &each(100.0, 110.0, 10)), 10);
        assert_eq!(by_metric(10, &each(100.0, 111.0, 10)), 12);
        assert_eq!(by_metric(10, &each(100.0, 90.0, 10)), 10);
        assert_eq!(by_metric(10, &each(100.0, 89.0, 10)), 9);
    }

    #[test]
    fn pods_that_tell_nothing_hold_a_change_up() {
        let value = Told::Value;
        let up = |last| by_metric(3, &reading(100.0, &[value(300.0), value(300.0), last]));
        assert_eq!(up(Told::Silent), 6, "idle");
        assert_eq!(up(Told::Pending), 6);
        assert_eq!(up(value(300.0)), 9);
        let down = |last| by_metric(3, &reading(100.0, &[value(20.0), value(20.0), last]));
        assert_eq!(down(Told::Silent), 2, "at the target");
        assert_eq!(down(Told::Pending), 1, "does not count");
        assert_eq!(by_metric(3, &reading(100.0, &[Told::Silent; 3])), 3);
        // Never the other way: without the one above the target would be missed.
        let close = [value(150.0), Told::Silent];
        assert_eq!(by_metric(2, &reading(100.0, &close)), 2);
    }

    #[test]
    fn the_largest_of_several_metrics_counts() {
        let mut scaler = Autoscaler::new(rules(0, Kind::Percent, 1_000, 15));
        let readings = [each(100.0, 10.0, 4), each(100.0, 150.0, 4)];
        assert_eq!(scaler.decide(0, 4, &readings), 6);
    }

    #[test]
    fn policies_count_what_changed_within_their_period() {
        let mut scaler = Autoscaler::new(rules(0, Kind::Pods, 4, 60));
        let more = |pods| [each(100.0, 1_000.0, pods)];
        assert_eq!(scaler.decide(0, 3, &more(3)), 7);
        assert_eq!(scaler.decide(15, 7, &more(7)), 7, "four came 15 s ago");
        assert_eq!(scaler.decide(60, 7, &more(7)), 11);
        // 80 pods, a tenth a minute: 72, then 64.
        let mut scaler = Autoscaler::new(rules(0, Kind::Percent, 10, 60));
        let less = |pods| [each(100.0, 1.0, pods)];
        assert_eq!(scaler.decide(0, 80, &less(80)), 72);
        assert_eq!(scaler.decide(30, 72, &less(72)), 72);
        assert_eq!(scaler.decide(60, 72, &less(72)), 64);
    }

    #[test]
    fn windows_keep_the_most_downward_and_the_least_upward() {
        let mut scaler = Autoscaler::new(rules(60, Kind::Percent, 1_000, 15));
        assert_eq!(scaler.decide(0, 4, &[each(100.0, 100.0, 4)]), 4);
        assert_eq!(scaler.decide(15, 4, &[each(100.0, 200.0, 4)]), 4);
        assert_eq!(scaler.decide(30, 4, &[each(100.0, 25.0, 4)]), 4);
        assert_eq!(
            scaler.decide(74, 4, &[each(100.0, 25.0, 4)]),
            4,
            "8 was 59 s ago"
        );
        assert_eq!(scaler.decide(75, 4, &[each(100.0, 25.0, 4)]), 1);
    }

    #[test]
    fn the_ends_hold() {
        let mut scaler = Autoscaler::new(rules(0, Kind::Percent, 10_000, 15));
        assert_eq!(scaler.decide(0, 50, &[each(1.0, 1_000.0, 50)]), 100);
        let mut scaler = Autoscaler::new(rules(0, Kind::Percent, 100, 15));
        assert_eq!(scaler.decide(0, 50, &[each(1_000.0, 0.0, 50)]), 1);
    }
}
