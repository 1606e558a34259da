//! Metrics in the form of OTLP, encoded from the same families as `/metrics`.
//!
//! In: families, read once an interval. Out: one encoded request; names, labels and values are those of
//! `/metrics`, times are seconds. Owner: the job of metrics. Bounds: as many points as there are
//! series ([`crate::telemetry::metrics::SERIES_MAX`]); what was told before is kept for as many, and
//! only where it is asked for.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1 as form;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::transform::common::tonic::Attributes;
use opentelemetry_sdk::Resource;
use prost::Message as _;
use rustc_hash::FxBuildHasher;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::courier::Courier;
use super::resource::scope;
use crate::config::telemetry::Temporality;
use crate::telemetry::family::{Family, Kind, LabelPair, Sample, Value};
use crate::telemetry::histogram::Spread;

/// Reads all that is counted.
pub(super) type Readings = Box<dyn Fn() -> Vec<Family> + Send>;

/// How many nodes can be told apart by when they read.
const PHASES: u32 = 1_000;

/// Reads and sends once an interval, the first time after `first`, and once more when the node ends.
pub(super) async fn run(
    courier: Arc<Courier>,
    mut points: Points,
    (first, interval): (Duration, Duration),
    read: Readings,
    mut stop: watch::Receiver<bool>,
) {
    let mut ticks = interval_at(Instant::now() + first, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_last = tokio::select! {
            biased;
            // The sender lives as long as this does.
            _ = stop.wait_for(|stops| *stops) => true,
            _ = ticks.tick() => false,
        };
        courier.rest().await;
        // The node may have ended meanwhile.
        let is_last = is_last || *stop.borrow();
        let (families, now) = (read(), points.now());
        let (message, count) = points.request(&families, now);
        let is_once = points.temporality != Temporality::Cumulative;
        let carried = courier.carry(message.into(), is_once);
        let outcome = courier.count(count, carried).await;
        // What may have arrived is not told again: a sum would have it twice.
        if outcome.map_or_else(|failure| failure.is_unknown, |()| true) {
            points.taken(&families, now);
        }
        if is_last {
            return;
        }
    }
}

/// How long after its start a node reads first, by its name: many that start together come one by one.
pub(super) fn phase(node: &str, interval: Duration) -> Duration {
    let share = FxBuildHasher.hash_one(node) % u64::from(PHASES);
    // It is less than that.
    let share = u32::try_from(share).unwrap_or_default();
    interval / PHASES * (share + 1)
}

/// See the module.
pub(super) struct Points {
    resource: Resource,
    temporality: Temporality,
    start: u64,
    /// What was told last, of what is told by its growth, and when.
    told: HashMap<Series, Value>,
    told_at: u64,
}

type Series = (&'static str, Vec<LabelPair>);

impl Points {
    /// Nothing was told yet; what is counted began now.
    pub(super) fn new(resource: Resource, temporality: Temporality) -> Self {
        let start = nanos(SystemTime::now());
        Self {
            resource,
            temporality,
            start,
            told: HashMap::new(),
            told_at: start,
        }
    }

    /// A clock that was set back makes no reading end before it began.
    fn now(&self) -> u64 {
        nanos(SystemTime::now()).max(self.told_at)
    }

    /// A request with all of them, and how many points it has.
    fn request(&self, families: &[Family], now: u64) -> (Vec<u8>, u64) {
        let told = families
            .iter()
            .filter(|family| family.told().next().is_some());
        let metrics: Vec<_> = told.map(|family| self.metric(family, now)).collect();
        let count = families
            .iter()
            .map(|family| family.told().count() as u64)
            .sum();
        let metrics = form::ResourceMetrics {
            resource: Some((&self.resource).into()),
            scope_metrics: vec![form::ScopeMetrics {
                scope: Some((scope(), None).into()),
                metrics,
                ..form::ScopeMetrics::default()
            }],
            ..form::ResourceMetrics::default()
        };
        let resource_metrics = vec![metrics];
        (
            ExportMetricsServiceRequest { resource_metrics }.encode_to_vec(),
            count,
        )
    }

    /// The collector has these.
    fn taken(&mut self, families: &[Family], now: u64) {
        for family in families {
            if !self.grows(family.kind) {
                continue;
            }
            for sample in family.told() {
                let series = (family.name, sample.labels.clone());
                self.told.insert(series, sample.value.clone());
            }
        }
        self.told_at = now;
    }

    /// Whether such a family is told by its growth.
    fn grows(&self, kind: Kind) -> bool {
        match (self.temporality, kind) {
            (Temporality::Cumulative, _) | (_, Kind::Gauge) => false,
            (Temporality::Delta, _) => true,
            (Temporality::LowMemory, kind) => kind == Kind::Histogram,
        }
    }

    fn metric(&self, family: &Family, now: u64) -> form::Metric {
        let grows = self.grows(family.kind);
        let start = if grows { self.told_at } else { self.start };
        let temporality = match grows {
            true => form::AggregationTemporality::Delta,
            false => form::AggregationTemporality::Cumulative,
        };
        let temporality = i32::from(temporality);
        let value = |sample: &Sample| match grows {
            true => self.growth(family.name, sample),
            false => sample.value.clone(),
        };
        let numbers = |start| {
            family
                .told()
                .map(|s| number(s, &value(s), start, now))
                .collect()
        };
        let data = match family.kind {
            Kind::Gauge => Data::Gauge(form::Gauge {
                data_points: numbers(0),
            }),
            Kind::Counter => Data::Sum(form::Sum {
                data_points: numbers(start),
                aggregation_temporality: temporality,
                is_monotonic: true,
            }),
            Kind::Histogram => Data::Histogram(form::Histogram {
                data_points: family
                    .told()
                    .filter_map(|s| spread(s, &value(s), start, now))
                    .collect(),
                aggregation_temporality: temporality,
            }),
        };
        form::Metric {
            name: family.name.to_owned(),
            description: family.help.to_owned(),
            unit: match family.unit() {
                Some("seconds") => "s".to_owned(),
                Some("bytes") => "By".to_owned(),
                _ => String::new(),
            },
            data: Some(data),
            ..form::Metric::default()
        }
    }

    /// By how much a series has grown since it was told.
    fn growth(&self, name: &'static str, sample: &Sample) -> Value {
        let before = self.told.get(&(name, sample.labels.clone()));
        match (&sample.value, before) {
            (Value::Whole(now), Some(Value::Whole(before))) => {
                Value::Whole(now.saturating_sub(*before))
            }
            (Value::Real(now), Some(Value::Real(before))) => Value::Real((now - before).max(0.0)),
            (Value::Spread(now), Some(Value::Spread(before))) => {
                let counts = now.counts.iter().zip(&before.counts);
                Value::Spread(Spread {
                    counts: counts
                        .map(|(now, before)| now.saturating_sub(*before))
                        .collect(),
                    sum_us: now.sum_us.saturating_sub(before.sum_us),
                    exemplars: Vec::new(),
                })
            }
            (now, _) => now.clone(),
        }
    }
}

/// Nanoseconds since 1970.
fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn attributes(sample: &Sample) -> Attributes {
    let labels = sample.labels.iter();
    Attributes::from(labels.map(|(name, value)| KeyValue::new(*name, value.clone())))
}

fn number(sample: &Sample, value: &Value, start: u64, now: u64) -> form::NumberDataPoint {
    let value = match value {
        Value::Whole(value) => Some(Number::AsInt(i64::try_from(*value).unwrap_or(i64::MAX))),
        Value::Real(value) => Some(Number::AsDouble(*value)),
        Value::Spread(_) => None,
    };
    form::NumberDataPoint {
        attributes: attributes(sample).0,
        start_time_unix_nano: start,
        time_unix_nano: now,
        value,
        ..form::NumberDataPoint::default()
    }
}

fn spread(
    sample: &Sample,
    value: &Value,
    start: u64,
    now: u64,
) -> Option<form::HistogramDataPoint> {
    let Value::Spread(spread) = value else {
        return None;
    };
    let bounds = (0..spread.counts.len()).filter_map(|place| spread.bound_us(place));
    Some(form::HistogramDataPoint {
        attributes: attributes(sample).0,
        start_time_unix_nano: start,
        time_unix_nano: now,
        count: spread.counts.iter().sum(),
        sum: Some(seconds(spread.sum_us)),
        bucket_counts: spread.counts.clone(),
        explicit_bounds: bounds.map(seconds).collect(),
        ..form::HistogramDataPoint::default()
    })
}

#[expect(clippy::cast_precision_loss)]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::config::telemetry::Target;
    use crate::telemetry::counter::Counter;
    use crate::telemetry::histogram::Histogram;
    use crate::telemetry::metrics::Metrics;
    use crate::telemetry::otlp::answer::target;
    use crate::telemetry::otlp::client::Client;
    use crate::telemetry::otlp::collectors::answering;
    use crate::telemetry::otlp_metrics::Signal;

    #[derive(Default)]
    struct Cells {
        counter: Counter,
        gauge: Counter,
        histogram: Histogram,
    }

    impl Cells {
        fn families(&self) -> Vec<Family> {
            vec![
                Family::of(Kind::Counter, "read_bytes_total", "Read.", &self.counter),
                Family::of(Kind::Gauge, "sessions", "Open.", &self.gauge),
                Family::of(Kind::Histogram, "wait_seconds", "Waited.", &self.histogram),
            ]
        }
    }

    fn read(message: &[u8]) -> Vec<form::Metric> {
        let request = ExportMetricsServiceRequest::decode(message).unwrap();
        let mut resources = request.resource_metrics.into_iter();
        let scope = resources.next().unwrap().scope_metrics.remove(0);
        scope.metrics
    }

    /// The counter, the gauge, and how often and how long was waited, each with its temporality.
    fn told(points: &Points, families: &[Family]) -> [(i64, i32); 3] {
        let (message, count) = points.request(families, 9);
        assert_eq!(count, 3);
        let whole = |point: &form::NumberDataPoint| match point.value {
            Some(Number::AsInt(value)) => value,
            ref other => panic!("{other:?}"),
        };
        let of = |metric: &form::Metric| match metric.data.as_ref().unwrap() {
            Data::Sum(sum) => (whole(&sum.data_points[0]), sum.aggregation_temporality),
            Data::Gauge(gauge) => (whole(&gauge.data_points[0]), 0),
            Data::Histogram(histogram) => {
                let point = &histogram.data_points[0];
                assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
                assert_eq!(point.explicit_bounds.len() + 1, point.bucket_counts.len());
                (
                    i64::try_from(point.count).unwrap(),
                    histogram.aggregation_temporality,
                )
            }
            other => panic!("{other:?}"),
        };
        let metrics = read(&message);
        assert_eq!(metrics[0].unit, "By");
        std::array::from_fn(|at| of(&metrics[at]))
    }

    #[test]
    fn growth_is_told_against_what_the_collector_took() {
        const DELTA: i32 = 1;
        const CUMULATIVE: i32 = 2;
        for (temporality, counters, histograms) in [
            (Temporality::Cumulative, CUMULATIVE, CUMULATIVE),
            (Temporality::Delta, DELTA, DELTA),
            (Temporality::LowMemory, CUMULATIVE, DELTA),
        ] {
            let cells = Cells::default();
            let mut points = Points::new(Resource::builder_empty().build(), temporality);
            let mut now = 0;
            let mut count = |by: u64| {
                now += by;
                cells.counter.add(by);
                cells.gauge.set(by);
                for _ in 0..by {
                    cells.histogram.count(Duration::from_millis(1));
                }
                now
            };
            count(5);
            let families = cells.families();
            let first = [(5, counters), (5, 0), (5, histograms)];
            assert_eq!(told(&points, &families), first);
            points.taken(&families, 3);
            // Not taken: it is told once more, with what came after it.
            count(2);
            let _lost = points.request(&cells.families(), 4);
            let sum = count(1);
            let of = |t| {
                if t == DELTA {
                    3
                } else {
                    i64::try_from(sum).unwrap()
                }
            };
            let third = [
                (of(counters), counters),
                (1, 0),
                (of(histograms), histograms),
            ];
            assert_eq!(told(&points, &cells.families()), third);
        }
    }

    #[test]
    fn what_was_never_counted_of_a_sparse_family_is_not_told() {
        let cells = Cells::default();
        let families: Vec<_> = cells.families().into_iter().map(Family::sparse).collect();
        let points = Points::new(Resource::builder_empty().build(), Temporality::Cumulative);
        let (message, count) = points.request(&families[..2], 9);
        assert_eq!((count, read(&message).len()), (0, 0));
    }

    #[tokio::test]
    async fn a_node_that_ends_during_a_rest_reads_once_more_and_not_twice() {
        let later = "HTTP/1.1 503 x\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n";
        let (port, counts) = answering(later.to_owned()).await;
        let url = format!("http://127.0.0.1:{port}");
        let client = Client::new(Target { url, ..target() }, "");
        let (stop, stops) = watch::channel(false);
        let deadline = Duration::from_secs(1);
        let metrics = Metrics::new(1);
        let courier = Courier::new(Signal::Metrics, client, deadline, &metrics, stops.clone());
        let points = Points::new(Resource::builder_empty().build(), Temporality::Cumulative);
        let pace = (Duration::from_millis(1), Duration::from_millis(50));
        let read = || vec![Family::of(Kind::Gauge, "sessions", "", &Counter::default())];
        let running = tokio::spawn(run(Arc::new(courier), points, pace, Box::new(read), stops));
        while counts.requests.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The next reading is due, and waits for the end of the rest.
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.send_replace(true);
        running.await.unwrap();
        assert_eq!(counts.requests.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn nodes_read_one_by_one_and_each_within_its_interval() {
        let interval = Duration::from_secs(60);
        let phases = (0..100).map(|number| phase(&format!("node-{number}"), interval));
        let phases: std::collections::BTreeSet<_> = phases.collect();
        assert!(phases.len() > 80, "{}", phases.len());
        let first = *phases.first().unwrap();
        assert!(first > Duration::ZERO && *phases.last().unwrap() <= interval);
        // They fill it.
        assert!(*phases.last().unwrap() - first > interval / 2);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_reading_end_before_it_began() {
        let mut points = Points::new(Resource::builder_empty().build(), Temporality::Delta);
        points.told_at = u64::MAX;
        assert_eq!(points.now(), u64::MAX);
    }
}
