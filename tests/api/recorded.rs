//! What the API's node has recorded of itself before a test asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fanfare::telemetry::history::History;
use fanfare::telemetry::history::measure::{Measure, Point, Range};
use fanfare_protocol::error::ErrorCode;

/// Three seconds, which have just ended.
pub(crate) fn history() -> Arc<History> {
    let begun_at = Instant::now()
        .checked_sub(Duration::from_secs(3))
        .expect("the machine has run for so long");
    let (history, mut recorder) = History::begin(begun_at);
    for second in 0..3_u64 {
        let mut point = Point::empty(1_000 * second, 1_000 * (second + 1));
        point.set(Measure::Sessions, Range::of(second as f64, 1.0));
        if second == 1 {
            point.set(Measure::RequestMs, Range::of(2.5, 40.0));
            point.set_errors(ErrorCode::Unavailable, 7);
        }
        recorder.record(&point);
    }
    history
}
