//! Every deadline of a session, on two clocks that the tests set.

use super::*;
use crate::config::{Config, Drain};
use crate::session::rig::{Clocks, START_S, config, machine, token};
use fanfare_protocol::command::{Command, Connect, Subscribe};
use fanfare_protocol::ids::App;
use proptest::prelude::*;
use serde_json::json;

const S: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// A machine and its clocks; `at` is the time since the upgrade.
struct Timed {
    machine: Machine,
    clocks: Clocks,
}

impl Timed {
    fn unauthenticated(change: impl FnOnce(&mut Config)) -> Self {
        let clocks = Clocks::new();
        let config = config(|c| {
            c.auth.anonymous = true;
            change(c);
        });
        let machine = machine(&config, clocks.start());
        Self { machine, clocks }
    }

    /// An anonymous session, open at once.
    fn open(change: impl FnOnce(&mut Config)) -> Self {
        let mut timed = Self::unauthenticated(change);
        timed.machine.opening(timed.clocks.start());
        timed.machine.opened();
        timed
    }

    /// A session with a token that ends so many seconds after the start, and without pings.
    fn with_token(expires_in_s: u64) -> Self {
        let mut timed = Self::unauthenticated(|c| {
            c.session.ping = None;
            c.session.idle = 100_000 * S;
        });
        let token = token("ada", json!({"exp": START_S + expires_in_s}));
        let connect = Command::Connect(Connect {
            token: Some(token),
            ..Connect::default()
        });
        let now = timed.clocks.start();
        assert!(timed.machine.command(connect, now).is_ok());
        timed.machine.opened();
        timed
    }

    fn due(&mut self, at: Duration) -> Vec<Due> {
        self.machine.due(self.clocks.after(at))
    }

    fn next(&self, at: Duration) -> Duration {
        let start = self.clocks.start().instant;
        self.machine.next_due(self.clocks.after(at)) - start
    }

    fn seen(&mut self, at: Duration) {
        self.machine.seen(self.clocks.after(at));
    }
}

/// The departure of a node that leaves now.
fn departure(delay: Duration, window: Duration, now: Now) -> DrainSchedule {
    let drain = Drain {
        window,
        delay,
        sessions_per_s: None,
        commands: S,
    };
    DrainSchedule::new(&drain, 1, now.instant)
}

fn end(reason: CloseReason) -> Vec<Due> {
    vec![Due::End(reason)]
}

#[test]
fn a_session_that_does_not_authenticate_in_time_ends_with_4004() {
    let mut timed = Timed::unauthenticated(|_| {});
    assert_eq!(timed.next(Duration::ZERO), 10 * S);
    assert_eq!(timed.due(10 * S - MS), []);
    assert_eq!(timed.due(10 * S), end(CloseReason::AuthTimeout));
}

#[test]
fn opening_has_a_deadline_of_its_own_because_only_the_broker_can_delay_it() {
    let mut timed = Timed::unauthenticated(|_| {});
    timed.machine.opening(timed.clocks.after(9 * S));
    assert_eq!(timed.next(9 * S), 19 * S);
    assert_eq!(timed.due(19 * S - MS), []);
    assert_eq!(timed.due(19 * S), end(CloseReason::Unavailable));
    let mut opened = Timed::open(|_| {});
    assert_eq!(opened.due(19 * S), []);
}

#[test]
fn pings_come_every_25_seconds_and_silence_of_60_ends_with_4200() {
    let mut timed = Timed::open(|_| {});
    let mut pinged = Vec::new();
    for second in 0..60 {
        let due = timed.due(second * S);
        assert!(due.is_empty() || due == [Due::Ping], "{due:?}");
        pinged.extend((!due.is_empty()).then_some(second));
    }
    assert_eq!(pinged, [25, 50]);
    assert_eq!(timed.next(55 * S), 60 * S);
    assert_eq!(timed.due(60 * S), end(CloseReason::PingTimeout));
    // Anything that arrives is a sign of life; pings go on.
    timed.seen(59 * S);
    assert_eq!(timed.due(60 * S), []);
    assert_eq!(timed.due(75 * S), [Due::Ping]);
    assert_eq!(timed.due(119 * S), end(CloseReason::PingTimeout));
}

#[test]
fn without_pings_silence_of_the_idle_limit_ends_with_4201() {
    let mut timed = Timed::open(|c| {
        c.session.ping = None;
        c.session.idle = 100 * S;
    });
    assert_eq!(timed.due(99 * S), []);
    assert_eq!(timed.next(99 * S), 100 * S);
    assert_eq!(timed.due(100 * S), end(CloseReason::IdleTimeout));
    timed.seen(50 * S);
    assert_eq!(timed.due(100 * S), []);
    assert_eq!(timed.due(150 * S), end(CloseReason::IdleTimeout));
}

#[test]
fn what_the_node_slept_through_is_neither_silence_nor_slowness() {
    let mut timed = Timed::open(|_| {});
    let clocks = timed.clocks;
    assert!(timed.machine.unread(true, 0, clocks.after(5 * S)));
    timed.machine.awake_since(clocks.after(100 * S).instant);
    assert_eq!(timed.due(100 * S), [Due::Ping]);
    assert_eq!(timed.due(130 * S - MS), [Due::Ping]);
    assert_eq!(timed.due(130 * S), end(CloseReason::SlowConsumer));
    assert!(!timed.machine.unread(false, 0, clocks.after(130 * S)));
    assert_eq!(timed.due(160 * S), end(CloseReason::PingTimeout));
}

#[test]
fn unread_replies_over_their_bound_for_30_seconds_end_with_4103() {
    let mut timed = Timed::open(|_| {});
    let clocks = timed.clocks;
    assert!(!timed.machine.unread(false, 0, clocks.start()));
    let starts = timed.machine.unread(true, 0, clocks.after(5 * S));
    assert!(starts, "the deadline must be scheduled");
    let goes_on = !timed.machine.unread(true, 0, clocks.after(20 * S));
    assert!(goes_on, "it counts from the first");
    assert_eq!(timed.next(25 * S), 25 * S, "the ping is first");
    assert_eq!(timed.due(35 * S - MS), [Due::Ping]);
    assert_eq!(timed.due(35 * S), end(CloseReason::SlowConsumer));
    // Read in between: a new clock.
    assert!(!timed.machine.unread(false, 0, clocks.after(34 * S)));
    assert!(timed.machine.unread(true, 0, clocks.after(34 * S)));
    assert_eq!(timed.due(35 * S), []);
    assert_eq!(timed.next(35 * S), 60 * S - MS, "25 s after the ping");
}

#[test]
fn a_reader_on_a_thin_line_that_takes_a_whole_bound_in_time_goes_on() {
    let mut timed = Timed::open(|_| {});
    let clocks = timed.clocks;
    assert!(timed.machine.unread(true, 1_000, clocks.start()));
    let less = 1_000 + 64 * 1024 - 1;
    assert!(!timed.machine.unread(true, less, clocks.after(20 * S)));
    assert!(timed.machine.unread(true, less + 1, clocks.after(20 * S)));
    timed.seen(20 * S);
    assert_eq!(timed.due(50 * S - MS), [Due::Ping]);
    assert_eq!(timed.due(50 * S), end(CloseReason::SlowConsumer));
}

#[test]
fn a_token_is_announced_60_seconds_before_its_end_and_ends_the_session_10_after_it() {
    let mut timed = Timed::with_token(300);
    assert_eq!(timed.next(Duration::ZERO), 240 * S);
    assert_eq!(timed.due(240 * S - MS), []);
    assert_eq!(timed.due(240 * S), [Due::Expiring(None, START_S + 300)]);
    assert_eq!(timed.due(241 * S), [], "told once");
    assert_eq!(timed.next(241 * S), 310 * S);
    assert_eq!(timed.due(310 * S - MS), []);
    assert_eq!(timed.due(310 * S), end(CloseReason::TokenExpired));
}

#[test]
fn a_token_that_ends_within_a_minute_is_announced_at_once() {
    let mut timed = Timed::with_token(30);
    assert_eq!(timed.next(Duration::ZERO), Duration::ZERO);
    assert_eq!(
        timed.due(Duration::ZERO),
        [Due::Expiring(None, START_S + 30)]
    );
    assert_eq!(timed.due(40 * S), end(CloseReason::TokenExpired));
}

#[test]
fn a_refresh_moves_both_the_announcement_and_the_end() {
    let mut timed = Timed::with_token(300);
    assert_eq!(timed.due(250 * S), [Due::Expiring(None, START_S + 300)]);
    let token = token("ada", json!({"exp": START_S + 600}));
    let now = timed.clocks.after(260 * S);
    assert!(
        timed
            .machine
            .command(Command::Refresh { token }, now)
            .is_ok()
    );
    assert_eq!(timed.next(260 * S), 540 * S);
    assert_eq!(timed.due(310 * S), []);
    assert_eq!(timed.due(540 * S), [Due::Expiring(None, START_S + 600)]);
    assert_eq!(timed.due(610 * S - MS), []);
    assert_eq!(timed.due(610 * S), end(CloseReason::TokenExpired));
}

#[test]
fn a_drain_is_told_once_and_closes_by_the_end_of_the_window() {
    let mut timed = Timed::open(|_| {});
    let window = 20 * S;
    let now = timed.clocks.after(S);
    timed
        .machine
        .drain(&departure(Duration::ZERO, window, now), 0.4);
    // A second notice changes nothing.
    let later = timed.clocks.after(2 * S);
    timed
        .machine
        .drain(&departure(Duration::ZERO, window, later), 0.1);
    assert_eq!(timed.next(S), 5 * S);
    assert_eq!(timed.due(5 * S - MS), []);
    let [Due::Drain(reconnect_after_ms)] = timed.due(5 * S)[..] else {
        panic!("not told");
    };
    assert_eq!(timed.due(6 * S), []);
    let close_at = timed.next(6 * S);
    assert!(close_at <= S + window);
    let reconnect_at = 5 * S + Duration::from_millis(reconnect_after_ms);
    assert!(reconnect_at < close_at, "who obeys is gone by then");
    assert_eq!(timed.due(close_at - MS), []);
    assert_eq!(timed.due(close_at), end(CloseReason::Draining));
}

#[test]
fn a_session_above_the_share_is_told_at_once_and_closed_a_while_later() {
    let mut timed = Timed::open(|c| c.drain.window = 20 * S);
    timed.machine.shed(timed.clocks.after(S));
    assert_eq!(timed.next(S), S);
    assert_eq!(timed.due(S), [Due::Drain(2_500)]);
    assert_eq!(timed.next(S), 6 * S);
    // The node begins to leave, too: who is on the way out stays so.
    let leaving = departure(Duration::ZERO, 60 * S, timed.clocks.after(2 * S));
    timed.machine.drain(&leaving, 1.0);
    assert_eq!(timed.due(6 * S - MS), []);
    assert_eq!(timed.due(6 * S), end(CloseReason::Rebalanced));
}

#[test]
fn a_drain_without_a_window_tells_and_closes_at_once() {
    let mut timed = Timed::open(|_| {});
    let zero = Duration::ZERO;
    let now = timed.clocks.start();
    timed.machine.drain(&departure(zero, zero, now), 0.5);
    assert_eq!(timed.next(zero), zero);
    let both = [Due::Drain(0), Due::End(CloseReason::Draining)];
    assert_eq!(timed.due(zero), both);
}

proptest! {
    #[test]
    fn every_drain_is_told_before_it_closes_and_closes_within_the_window(
        share in 0.0f64..=1.0,
        delay_ms in 0u32..=5_000,
        window_ms in 0u32..=30_000,
    ) {
        let (delay, window) = (MS * delay_ms, MS * window_ms);
        let mut timed = Timed::open(|_| {});
        let now = timed.clocks.start();
        timed.machine.drain(&departure(delay, window, now), share);
        let mut told = 0;
        let mut at = Duration::ZERO;
        loop {
            at = timed.next(at).max(at);
            prop_assert!(at <= delay + window);
            let due = timed.due(at);
            told += due.iter().filter(|d| matches!(d, Due::Drain(_))).count();
            if due.last() == Some(&Due::End(CloseReason::Draining)) {
                break;
            }
        }
        prop_assert_eq!(told, 1);
    }

    /// Whatever happens, the time to look again never passes something that is due.
    #[test]
    fn nothing_is_due_before_the_time_to_look_again(
        expires_in_s in 1u64..400,
        ping in any::<bool>(),
        steps in prop::collection::vec((1u64..40_000, 0u8..4), 1..60),
    ) {
        let mut timed = Timed::with_token(expires_in_s);
        if ping {
            timed.machine.config = config(|c| c.auth.anonymous = true);
        }
        let mut at = Duration::ZERO;
        for (step_ms, event) in steps {
            let next = timed.next(at);
            if next > at + MS {
                let before = next - MS;
                prop_assert_eq!(timed.due(before), []);
                at = before.min(at + MS * u32::try_from(step_ms).unwrap());
            } else {
                at = next.max(at);
                let due = timed.due(at);
                if matches!(due.last(), Some(Due::End(_))) {
                    return Ok(());
                }
                prop_assert!(!due.is_empty());
            }
            let now = timed.clocks.after(at);
            match event {
                0 => timed.seen(at),
                1 => {
                    timed.machine.unread(true, 0, now);
                }
                2 => {
                    timed.machine.unread(false, 0, now);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn silence_is_judged_only_while_the_client_is_read() {
    let mut timed = Timed::open(|c| c.session.replies_timeout = 1_000 * S);
    timed.machine.hears(false, timed.clocks.after(10 * S));
    let end_of =
        |timed: &mut Timed, at| timed.due(at).into_iter().find(|d| matches!(d, Due::End(_)));
    assert_eq!(end_of(&mut timed, 200 * S), None);
    assert!(timed.next(200 * S) > 200 * S);
    timed.machine.hears(true, timed.clocks.after(210 * S));
    timed.machine.hears(true, timed.clocks.after(230 * S));
    assert_eq!(end_of(&mut timed, 270 * S - MS), None);
    let silent = Some(Due::End(CloseReason::PingTimeout));
    assert_eq!(end_of(&mut timed, 270 * S), silent);
}

#[test]
fn a_token_for_a_topic_is_looked_at_when_it_ends() {
    let mut timed = Timed::with_token(10_000);
    let of_topic = |exp_s| {
        Command::Subscribe(Subscribe {
            topic: "token:t".into(),
            token: Some(token(
                "ada",
                json!({"topic": "token:t", "exp": START_S + exp_s}),
            )),
            ..Subscribe::default()
        })
    };
    let topic = Topic::new(&App::default_app(), "token:t").unwrap();
    let now = timed.clocks.start();
    assert!(timed.machine.command(of_topic(100), now).is_ok());
    assert_eq!(timed.next(Duration::ZERO), 40 * S);
    let told = |expires| Due::Expiring(Some(topic.clone()), START_S + expires);
    assert_eq!(timed.due(40 * S), [told(100)]);
    assert_eq!(timed.due(41 * S), [], "told once");
    assert_eq!(timed.next(41 * S), 110 * S);
    // Renewed, it is told and ends anew.
    let now = timed.clocks.after(105 * S);
    assert!(timed.machine.command(of_topic(300), now).is_ok());
    assert_eq!(timed.due(110 * S), []);
    assert_eq!(timed.due(240 * S), [told(300)]);
    assert_eq!(timed.due(310 * S - MS), []);
    assert_eq!(timed.due(310 * S), [Due::Left(topic.clone(), false)]);
    assert!(!timed.machine.has_joined(&topic));
}

#[test]
fn a_session_that_may_stay_without_its_token_for_a_topic_stays() {
    let mut timed = Timed::with_token(10_000);
    let subscribe = Command::Subscribe(Subscribe {
        topic: "open:t".into(),
        token: Some(token(
            "ada",
            json!({"topic": "open:t", "exp": START_S + 100}),
        )),
        ..Subscribe::default()
    });
    let now = timed.clocks.start();
    assert!(timed.machine.command(subscribe, now).is_ok());
    assert_eq!(timed.due(40 * S).len(), 1);
    assert_eq!(timed.due(110 * S), []);
    assert_eq!(timed.due(200 * S), []);
    let topic = Topic::new(&App::default_app(), "open:t").unwrap();
    assert!(timed.machine.has_joined(&topic));
}
