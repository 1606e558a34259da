//! How the chart scales a cluster whose queue grows, by the documented formula of Kubernetes.
//!
//! In: the chart ([`chart`]), the algorithm ([`formula`]) and a cluster that is as it was measured
//! ([`queue`]). Out: a failure that says what the series did. The chart's own values are tried, and
//! values that are worse, each of which must be found. The same with a real control plane is not
//! here: that takes minutes, and this no time at all.

mod chart;
mod formula;
mod queue;

use chart::{Chart, chart};
use formula::{Kind, Policy};
use queue::{Load, Place, Series};

/// Three nodes have little to do; then 3,000 entries come for each at once, and more than they move,
/// for an hour.
const STEP: Load = Load {
    quiet: 4_500.0,
    loud: 40_000.0,
    swing: 0.3,
    step_at: 300,
    step_end: 4_000,
    burst: 9_000.0,
    sessions: 1_500.0,
    redis: f64::INFINITY,
};

/// Until all that came must be gone again.
const SECONDS: u64 = 6_000;

const PLACE: Place = Place {
    cores: 2.0,
    scrape_at: 0,
    decide_at: 0,
};

/// Longest time from the step to more pods, and until what waits is below the target again.
const UP_WITHIN_S: u64 = 60;
const DRAINED_WITHIN_S: u64 = 180;
/// Time in which the direction may change once.
const TURNS_WITHIN_S: u64 = 900;

/// What is wrong with a series, in words that the tests below look for.
fn faults(chart: &Chart, load: &Load, series: &Series) -> Vec<String> {
    let mut faults = Vec::new();
    let step = load.step_at as usize;
    let least = chart.rules.pods_min;
    let up = (step..).zip(&series[step..]).find(|(_, s)| s.ready > least);
    match up {
        Some((at, _)) if (at - step) as u64 <= UP_WITHIN_S => {}
        Some((at, _)) => faults.push(format!("late: more pods after {} s", at - step)),
        None => faults.push("late: never more pods".to_owned()),
    }
    let end = load.step_end as usize;
    let is_deep = |s: &&queue::Second| s.depth / s.ready as f64 > 1_000.0;
    let settled = step + DRAINED_WITHIN_S as usize;
    if let Some(second) = series[settled.min(end)..].iter().find(is_deep) {
        faults.push(format!("deep: {second:?}"));
    }
    let changes: Vec<(u64, i64)> = (1..series.len())
        .map(|at| {
            (
                at as u64,
                series[at].pods as i64 - series[at - 1].pods as i64,
            )
        })
        .filter(|(_, change)| *change != 0)
        .collect();
    let turns: Vec<u64> = changes
        .windows(2)
        .filter(|pair| (pair[0].1 > 0) != (pair[1].1 > 0))
        .map(|pair| pair[1].0)
        .collect();
    let soon = turns
        .windows(2)
        .find(|pair| pair[1] - pair[0] < TURNS_WITHIN_S);
    if let Some(pair) = soon {
        faults.push(format!("turns: at {pair:?}"));
    }
    let mut downs = changes.iter().filter(|(_, change)| *change < 0);
    if let Some((at, change)) = downs.clone().find(|(_, change)| *change < -1) {
        faults.push(format!("fast: {change} pods at {at} s"));
    }
    let mut last = downs.next();
    for down in downs {
        let apart = last.map_or(u64::MAX, |last| down.0 - last.0);
        if apart < chart.stop_s {
            faults.push(format!(
                "fast: pods went {apart} s apart, a stop takes {} s",
                chart.stop_s
            ));
            break;
        }
        last = Some(down);
    }
    if series.last().is_none_or(|last| last.pods != least) {
        faults.push(format!("stays: {:?} at the end", series.last()));
    }
    faults
}

fn tried(chart: &Chart, place: &Place) -> Vec<String> {
    let series = queue::run(chart, &STEP, place, SECONDS);
    // For who looks at it: the number of pods, each with the second from which it held.
    let changes = (1..series.len()).filter(|at| series[*at].pods != series[at - 1].pods);
    let told: Vec<_> = changes.map(|at| (at, series[at].pods)).collect();
    eprintln!("{place:?}: {told:?}");
    faults(chart, &STEP, &series)
}

#[test]
fn a_load_step_is_met_within_a_minute_and_goes_slower_than_a_stop() {
    let chart = chart();
    assert!(chart.rules.down.window_s >= 300.max(2 * chart.stop_s).min(3_600));
    for cores in [1.0, 2.0, 4.0, 16.0] {
        for (scrape_at, decide_at) in [(0, 0), (0, 14), (5, 4), (7, 0), (14, 0), (14, 13)] {
            let place = Place {
                cores,
                scrape_at,
                decide_at,
            };
            assert_eq!(tried(&chart, &place), [""; 0], "{place:?}");
        }
    }
}

#[test]
fn a_chart_that_scales_worse_is_found() {
    type Worse = (&'static str, fn(&mut Chart));
    let worse: [Worse; 7] = [
        ("turns", |chart| chart.rules.down.window_s = 0),
        ("fast", |chart| chart.rules.down.policies[0].value = 2),
        ("fast", |chart| {
            chart.rules.down.policies[0].period_s = chart.stop_s - 20
        }),
        ("late", |chart| chart.rules.up.window_s = 120),
        ("late", |chart| {
            chart.queue = Some(("fanfare_queue_pressure".to_owned(), 1e7));
            chart.cpu = Some(3.0);
        }),
        ("deep", |chart| {
            chart.rules.up.policies = vec![Policy {
                kind: Kind::Pods,
                value: 1,
                period_s: 120,
            }];
        }),
        ("deep", |chart| chart.rules.pods_max = 4),
    ];
    for (index, (word, change)) in worse.iter().enumerate() {
        let mut chart = chart();
        change(&mut chart);
        let faults = tried(&chart, &PLACE);
        let is_found = faults.iter().any(|fault| fault.starts_with(word));
        assert!(is_found, "{index}: not {word}: {faults:?}");
    }
}

/// Where nobody tells of CPU and memory the queue has to be enough.
#[test]
fn the_queue_alone_adds_nodes_within_a_minute() {
    let mut chart = chart();
    (chart.cpu, chart.memory, chart.sessions) = (None, None, None);
    for cores in [1.0, 2.0, 4.0, 16.0] {
        let place = Place { cores, ..PLACE };
        let faults = tried(&chart, &place);
        let is_late = faults.iter().any(|fault| fault.starts_with("late"));
        assert!(!is_late, "{place:?}: {faults:?}");
    }
}

#[test]
fn a_slow_redis_adds_no_nodes_by_pressure_and_all_of_them_by_depth() {
    let slow = Load {
        redis: 3_000.0,
        ..STEP
    };
    let most = |chart: &Chart| {
        let series = queue::run(chart, &slow, &PLACE, slow.step_end);
        series.iter().map(|second| second.pods).max()
    };
    let mut chart = chart();
    assert_eq!(most(&chart), Some(chart.rules.pods_min));
    chart.queue = Some(("fanfare_queue_depth".to_owned(), 1_000.0));
    assert_eq!(most(&chart), Some(chart.rules.pods_max));
}

#[test]
fn sessions_alone_add_nodes_until_each_has_the_target() {
    let chart = chart();
    let target = chart.sessions.expect("sessions count");
    let many = Load {
        loud: 0.0,
        quiet: 0.0,
        burst: 0.0,
        sessions: 9.5 * target,
        ..STEP
    };
    let series = queue::run(&chart, &many, &PLACE, 900);
    assert_eq!(series.last().map(|second| second.pods), Some(10));
}

/// A node without a limit of CPU counts up to four cores of its machine, and where there are so many it
/// tells little of its depth as pressure. Then CPU, in percent of what it requests, adds nodes at once,
/// and the queue alone somewhat later, however large the machine is.
#[test]
fn a_little_too_much_is_met_on_large_machines_too_because_cpu_counts() {
    let little = Load {
        loud: 28_000.0,
        swing: 0.0,
        ..STEP
    };
    let is_late = |chart: &Chart, cores| {
        let place = Place { cores, ..PLACE };
        let series = queue::run(chart, &little, &place, SECONDS);
        let faults = faults(chart, &little, &series);
        faults.iter().any(|fault| fault.starts_with("late"))
    };
    let mut chart = chart();
    let all = [1.0, 2.0, 4.0, 16.0];
    assert_eq!(all.map(|cores| is_late(&chart, cores)), [false; 4]);
    chart.cpu = None;
    assert_eq!(
        all.map(|cores| is_late(&chart, cores)),
        [false, false, true, true]
    );
    let asked_after = [2.0, 4.0, 8.0, 16.0, 64.0].map(|cores| {
        let place = Place { cores, ..PLACE };
        let series = queue::run(&chart, &little, &place, SECONDS);
        let step = little.step_at as usize;
        let asked = (series[step..].iter()).position(|s| s.pods > chart.rules.pods_min);
        asked.expect("it asks for more")
    });
    assert_eq!(asked_after, [15, 75, 75, 75, 75], "seconds");
}
