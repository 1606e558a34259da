//! That all series are bounded, and that workers are added up.

use super::*;

#[test]
fn no_node_has_more_series_than_are_allowed() {
    let series = |workers| -> usize {
        let families = Metrics::new(workers).families();
        let samples = families.iter().flat_map(|family| &family.samples);
        let lines = samples.map(|sample| match &sample.value {
            Value::Spread(spread) => spread.counts.len() + 2,
            Value::Whole(_) | Value::Real(_) => 1,
        });
        lines.sum()
    };
    let (one, most) = (series(1), series(1_024));
    assert!(
        one > 1_000,
        "{one}: pairs that did not occur are counted too"
    );
    assert!(most <= SERIES_MAX, "{most}");
}

#[test]
fn workers_are_added_up() {
    let metrics = Metrics::new(2);
    for (worker, count) in metrics.workers.iter().zip([3, 4]) {
        worker.counters.connections.add_owned(count);
        worker.commands.of(CommandType::Ping).add_owned(count);
        worker
            .connect_seconds
            .count_owned(Duration::from_secs(count));
    }
    let families = metrics.families();
    let told = |name| {
        let family = families.iter().find(|family| family.name == name);
        let samples = family.expect("it is told").samples.iter();
        samples
            .map(|sample| sample.value.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(told("fanfare_connections_total"), [Value::Whole(7)]);
    assert!(told("fanfare_commands_total").contains(&Value::Whole(7)));
    let Value::Spread(spread) = &told("fanfare_connect_seconds")[0] else {
        panic!("no histogram");
    };
    assert_eq!(
        (spread.counts.iter().sum::<u64>(), spread.sum_us),
        (2, 7_000_000)
    );
}
