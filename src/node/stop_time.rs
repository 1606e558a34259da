//! How long the node may take from the signal to its end: every deadline of its stop, added up.
//!
//! In: the configuration. Out: one time, which `config show` prints as `stop.longest_s`. What starts and
//! ends nodes must wait for longer, or cuts off sessions that were still to be told. Pure. The steps are
//! those of `leaving`, in their order; each deadline is the one that is used there.

use std::time::{Duration, Instant};

use super::GIVE_BACK;
use crate::api::serve::shutdown_patience;
use crate::config::Config;
use crate::session::drain_schedule::DrainSchedule;
use crate::telemetry::{lines, otlp};

/// How many steps giving back has, each with the same deadline.
const GIVEN_BACK_COUNT: u32 = 5;
/// The broker ends in two steps: what is queued is sent, then connections end. Each has the time in which
/// commands end.
const BROKER_END_TIMES: u32 = 2;

/// How long the connections to Redis may take for their end.
pub(super) fn end_of_broker(config: &Config) -> Duration {
    config.redis.commands_end() * BROKER_END_TIMES
}

/// How long a session that is closed may take for its end: what it waits for at the broker, and the answer
/// to its close frame.
pub(super) fn last_of_session(config: &Config) -> Duration {
    config.drain.commands + config.session.close_timeout
}

/// With as many sessions as the node may have, of which none answers, and a Redis that does not answer
/// either.
#[must_use]
pub fn longest(config: &Config) -> Duration {
    let sessions = config.server.sessions_max() as u64;
    let now = Instant::now();
    let told = DrainSchedule::new(&config.drain, sessions, now).ends() - now;
    let last = last_of_session(config);
    let broker = match config.redis.url {
        Some(_) => end_of_broker(config),
        None => Duration::ZERO,
    };
    let steps = [
        // Sessions are told and closed, then those that are left, with their workers.
        told + last,
        last,
        GIVE_BACK * GIVEN_BACK_COUNT,
        shutdown_patience(&config.redis),
        broker,
        otlp::FLUSH,
        // The runtime of the control side, and the last lines of the log.
        GIVE_BACK,
        lines::FLUSH,
    ];
    steps.iter().sum()
}

/// The same in whole seconds, none too few.
#[must_use]
pub fn longest_s(config: &Config) -> u64 {
    let longest = longest(config);
    longest.as_secs() + u64::from(longest.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Secret, load};

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn every_deadline_is_in_it() {
        let mut config = load::defaults();
        config.server.connections_max = 10_000;
        config.drain.sessions_per_s = Some(1_000);
        // Told over 15 s, closed 7.5 s later, 10 s for the last of a session and again for those that
        // are left, 5 × 2 s to give back, 10 s for the API, 3 s for the collector, 2 s and 1 s.
        let alone = 68_500 * S / 1_000;
        assert_eq!(longest(&config), alone);
        assert_eq!(longest_s(&config), 69);
        // Commands to Redis may take 2 s, those on their way as long, and a second more.
        config.redis.url = Some(Secret("redis://r".to_owned()));
        assert_eq!(longest(&config), alone + 2 * 5 * S);
        config.drain.delay = 7 * S;
        assert_eq!(longest(&config), alone + 17 * S);
    }

    #[test]
    fn more_sessions_take_longer_and_a_node_without_sessions_does_not_wait_for_any() {
        let mut config = load::defaults();
        config.drain.sessions_per_s = Some(100);
        config.server.connections_max = 10_000;
        let many = longest(&config);
        config.server.connections_max = 5_000;
        assert_eq!(many - longest(&config), 50 * S);
        config.server.listen = None;
        assert_eq!(
            many - longest(&config),
            85 * S,
            "half of the window is left"
        );
    }
}
