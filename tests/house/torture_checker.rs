//! The checker of the fault harness, judged itself: hand-written histories, each with one thing
//! wrong, and clean ones that look like it.
//! The harness is only worth what its checker finds; `--sabotage` shows the same on whole runs.
#![allow(dead_code, reason = "the harness uses more of these modules")]

#[path = "../torture/app.rs"]
mod app;
#[path = "torture_apps.rs"]
mod apps;
#[path = "../torture/checker.rs"]
mod checker;
#[path = "../torture/history.rs"]
mod history;
#[path = "torture_queue.rs"]
mod queue;
#[path = "../torture/queue_checker.rs"]
mod queue_checker;
#[path = "../torture/recovery.rs"]
mod recovery;
#[path = "../torture/retained.rs"]
mod retained;
#[path = "../torture/stream.rs"]
mod stream;

use std::time::Duration;

use app::App;
use checker::{Allowed, Verdict, Wrong};
use fanfare_protocol::ids::Position;
use history::{Event, History, Id, Outcome, Topic, TopicIndex, Window};

/// A topic of both clients.
const SHARED: TopicIndex = 0;
const INBOX: TopicIndex = 1;

const STRICT: Allowed = Allowed {
    redis_may_lose: false,
    also_accepted: true,
    deaf_for: Duration::from_secs(10),
};
const LOSSY: Allowed = Allowed {
    redis_may_lose: true,
    ..STRICT
};
const CONFIRMED: Allowed = Allowed {
    also_accepted: false,
    ..LOSSY
};

/// Writes histories: one step of its clock for each entry.
struct Pen {
    history: History,
    now: Duration,
}

impl Pen {
    fn new() -> Self {
        let topic = |name: &str, clients: &[u32]| Topic {
            app: App::Default,
            name: name.into(),
            clients: clients.to_vec(),
        };
        let mut pen = Self {
            history: History {
                topics: vec![topic("shared", &[0, 1]), topic("@one", &[1])],
                ..History::default()
            },
            now: Duration::ZERO,
        };
        for (client, topic) in [(0, SHARED), (1, SHARED), (1, INBOX)] {
            pen.joined(client, topic, 0, true, 0);
        }
        pen
    }

    fn push(&mut self, event: Event) -> &mut Self {
        self.now += Duration::from_millis(1);
        self.history.push(self.now, event);
        self
    }

    fn wait(&mut self, seconds: u64) -> &mut Self {
        self.now += Duration::from_secs(seconds);
        self
    }

    fn begun(&mut self, number: u32, topic: TopicIndex) -> &mut Self {
        let id = id(number);
        self.push(Event::Begun { id, topic })
    }

    fn ended(&mut self, number: u32, topic: TopicIndex, outcome: Outcome) -> &mut Self {
        self.push(Event::Ended {
            id: id(number),
            topic,
            outcome,
            lane: None,
        })
    }

    /// Accepted at the position that has the same number.
    fn accepted(&mut self, number: u32, topic: TopicIndex) -> &mut Self {
        let outcome = Outcome::Ok(at(u64::from(number)));
        self.begun(number, topic).ended(number, topic, outcome)
    }

    fn received(&mut self, client: u32, topic: TopicIndex, number: u32) -> &mut Self {
        self.received_at(client, topic, number, u64::from(number))
    }

    fn received_at(
        &mut self,
        client: u32,
        topic: TopicIndex,
        number: u32,
        position: u64,
    ) -> &mut Self {
        self.push(Event::Received {
            client,
            topic,
            id: id(number),
            position: at(position),
        })
    }

    fn joined(
        &mut self,
        client: u32,
        topic: TopicIndex,
        since: u64,
        recovered: bool,
        position: u64,
    ) -> &mut Self {
        self.push(Event::Joined {
            client,
            topic,
            since: at(since),
            recovered,
            position: at(position),
        })
    }

    fn failover_from(&mut self, client: u32, from: u64) -> &mut Self {
        self.push(Event::Gap {
            client,
            topic: SHARED,
            from: Some(at(from)),
            to: None,
            is_failover: true,
        })
    }

    /// What both nodes say that the shared topic holds, each number at its position.
    fn retained(&mut self, numbers: &[u32]) -> &mut Self {
        let entries: Vec<_> = numbers
            .iter()
            .map(|n| (at(u64::from(*n)), id(*n)))
            .collect();
        for node in ["a", "b"] {
            self.push(Event::Retained {
                node: node.into(),
                topic: SHARED,
                entries: entries.clone(),
            });
        }
        self
    }

    fn check(&self, allowed: Allowed) -> Verdict {
        checker::check(&self.history, allowed)
    }

    /// Exactly this is wrong, and nothing else.
    #[track_caller]
    fn finds(&self, allowed: Allowed, wrongs: &[(Wrong, u64)]) -> Verdict {
        let verdict = self.check(allowed);
        let found: Vec<_> = verdict.wrongs.iter().map(|(w, n)| (*w, *n)).collect();
        assert_eq!(found, wrongs, "{:#?}", verdict.examples);
        verdict
    }
}

fn id(number: u32) -> Id {
    let publisher = 7;
    Id { publisher, number }
}

fn at(ms: u64) -> Position {
    Position { ms, seq: 0 }
}

/// Three messages that both clients got.
fn three() -> Pen {
    let mut pen = Pen::new();
    for number in 1..=3 {
        pen.accepted(number, SHARED);
        pen.received(0, SHARED, number).received(1, SHARED, number);
    }
    pen
}

#[test]
fn a_clean_history_with_resumes_and_doubtful_publications_is_clean() {
    let mut pen = three();
    // Doubtful, and it did happen; doubtful, and it did not; refused.
    pen.begun(4, SHARED).ended(4, SHARED, Outcome::Unknown);
    pen.begun(5, SHARED).ended(5, SHARED, Outcome::Unknown);
    pen.begun(6, SHARED).ended(6, SHARED, Outcome::Fail);
    pen.joined(0, SHARED, 3, true, 3);
    pen.received(0, SHARED, 4).received(1, SHARED, 4);
    let verdict = pen.retained(&[1, 2, 3, 4]).finds(STRICT, &[]);
    assert_eq!(
        (verdict.accepted, verdict.unknown, verdict.failed),
        (3, 2, 1)
    );
    assert_eq!((verdict.due, verdict.delivered), (8, 8));
    assert_eq!((verdict.resumes, verdict.recovered), (1, 1));
}

#[test]
fn what_was_accepted_and_is_gone_from_redis_is_lost() {
    let mut pen = Pen::new();
    pen.accepted(1, SHARED).retained(&[]);
    pen.finds(STRICT, &[(Wrong::Lost, 1)]);
    // Where Redis may lose, it is counted, and nobody who never saw it can be told.
    let verdict = pen.finds(LOSSY, &[]);
    assert_eq!((verdict.redis_lost, verdict.never_seen), (1, 2));
    // What replicas had to confirm may not be lost even there.
    pen.finds(CONFIRMED, &[(Wrong::Lost, 1)]);
}

#[test]
fn the_last_message_that_a_client_never_got_is_lost() {
    let mut pen = three();
    pen.accepted(4, SHARED).received(1, SHARED, 4);
    pen.retained(&[1, 2, 3, 4])
        .finds(STRICT, &[(Wrong::Lost, 1)]);
}

#[test]
fn a_message_in_the_middle_that_a_client_never_got_is_a_silent_gap() {
    let mut pen = Pen::new();
    for number in 1..=3 {
        pen.accepted(number, SHARED).received(1, SHARED, number);
    }
    pen.received(0, SHARED, 1).received(0, SHARED, 3);
    pen.retained(&[1, 2, 3])
        .finds(STRICT, &[(Wrong::SilentGap, 1)]);
}

#[test]
fn a_message_that_comes_twice_is_doubled_also_over_a_resume() {
    let mut pen = three();
    pen.joined(0, SHARED, 3, true, 3).received(0, SHARED, 3);
    pen.retained(&[1, 2, 3])
        .finds(STRICT, &[(Wrong::Doubled, 1)]);
}

#[test]
fn a_publication_that_stands_twice_in_the_topic_is_doubled() {
    let mut pen = three();
    pen.received_at(0, SHARED, 3, 4)
        .received_at(1, SHARED, 3, 4);
    let mut entries: Vec<_> = (1..=3).map(|n| (at(u64::from(n)), id(n))).collect();
    entries.push((at(4), id(3)));
    pen.push(Event::Retained {
        node: "a".into(),
        topic: SHARED,
        entries,
    });
    // In the topic, and with both clients.
    pen.finds(STRICT, &[(Wrong::Doubled, 3)]);
}

#[test]
fn a_later_message_before_an_earlier_one_is_reordered() {
    let mut pen = Pen::new();
    for number in 1..=3 {
        pen.accepted(number, SHARED).received(1, SHARED, number);
    }
    for number in [1, 3, 2] {
        pen.received(0, SHARED, number);
    }
    pen.retained(&[1, 2, 3])
        .finds(STRICT, &[(Wrong::Reordered, 1)]);
}

#[test]
fn positions_against_the_order_of_acceptance_are_reordered() {
    let mut pen = Pen::new();
    pen.accepted(2, SHARED).accepted(1, SHARED);
    for client in [0, 1] {
        pen.received(client, SHARED, 1).received(client, SHARED, 2);
    }
    pen.retained(&[1, 2])
        .finds(STRICT, &[(Wrong::Reordered, 1)]);
}

#[test]
fn what_redis_lost_has_no_place_in_the_order() {
    let mut pen = Pen::new();
    // The second was accepted by a master that was none any more.
    pen.accepted(1, SHARED)
        .accepted(9, SHARED)
        .accepted(2, SHARED);
    for client in [0, 1] {
        pen.received(client, SHARED, 1).received(client, SHARED, 2);
    }
    let verdict = pen.retained(&[1, 2]).finds(LOSSY, &[]);
    assert_eq!((verdict.redis_lost, verdict.never_seen), (1, 2));
}

#[test]
fn what_one_session_sent_first_stands_first_although_both_were_under_way() {
    let mut pen = Pen::new();
    let lane = Some(1);
    let ended = |number, position| Event::Ended {
        id: id(number),
        topic: SHARED,
        outcome: Outcome::Ok(at(position)),
        lane,
    };
    pen.begun(1, SHARED).begun(2, SHARED);
    pen.push(ended(1, 2)).push(ended(2, 1));
    for client in [0, 1] {
        pen.received_at(client, SHARED, 2, 1)
            .received_at(client, SHARED, 1, 2);
    }
    pen.push(Event::Retained {
        node: "a".into(),
        topic: SHARED,
        entries: vec![(at(1), id(2)), (at(2), id(1))],
    });
    pen.finds(STRICT, &[(Wrong::Reordered, 1)]);
}

#[test]
fn nodes_that_tell_different_histories_are_found() {
    let mut pen = three();
    pen.retained(&[1, 2, 3]);
    pen.push(Event::Retained {
        node: "c".into(),
        topic: SHARED,
        entries: vec![(at(1), id(1))],
    });
    pen.finds(STRICT, &[(Wrong::Reordered, 1)]);
}

#[test]
fn what_nobody_published_and_what_was_refused_are_phantoms() {
    let mut pen = three();
    pen.received(0, SHARED, 9);
    let mut refused = three();
    refused.begun(4, SHARED).ended(4, SHARED, Outcome::Fail);
    refused.received(0, SHARED, 4).received(1, SHARED, 4);
    pen.retained(&[1, 2, 3]);
    // It is not in the topic either, so a client that had it should have been told.
    pen.finds(STRICT, &[(Wrong::Phantom, 1)]);
    refused.retained(&[1, 2, 3, 4]);
    // In the topic, and with both clients.
    refused.finds(STRICT, &[(Wrong::Phantom, 3)]);
}

#[test]
fn a_gap_that_is_told_although_everything_is_there_is_needless() {
    let mut pen = three();
    pen.failover_from(0, 1)
        .received(0, SHARED, 2)
        .received(0, SHARED, 3);
    pen.joined(1, SHARED, 3, false, 3);
    pen.retained(&[1, 2, 3]);
    pen.finds(STRICT, &[(Wrong::NeedlessGap, 2)]);
    pen.finds(LOSSY, &[(Wrong::NeedlessGap, 2)]);
}

#[test]
fn a_failover_that_is_told_to_those_who_had_what_was_lost_is_clean() {
    let mut pen = three();
    pen.failover_from(0, 2).joined(1, SHARED, 3, false, 0);
    pen.received(1, SHARED, 1).received(1, SHARED, 2);
    pen.accepted(4, SHARED)
        .received(0, SHARED, 4)
        .received(1, SHARED, 4);
    let verdict = pen.retained(&[1, 2, 4]).finds(LOSSY, &[]);
    assert_eq!((verdict.redis_lost, verdict.told_gaps), (1, 2));
}

#[test]
fn who_had_what_was_lost_and_was_not_told_is_found() {
    let mut pen = three();
    pen.failover_from(0, 2);
    pen.retained(&[1, 2]).finds(LOSSY, &[(Wrong::Untold, 1)]);
    let mut pen = three();
    pen.joined(1, SHARED, 3, false, 0);
    let wrongs = [(Wrong::NeedlessGap, 1), (Wrong::Untold, 1)];
    pen.retained(&[2, 3]).finds(LOSSY, &wrongs);
}

#[test]
fn who_is_shown_and_not_there_and_who_is_there_and_not_shown_are_found() {
    let mut pen = three();
    pen.push(Event::Members {
        node: "a".into(),
        topic: SHARED,
        ghosts: vec!["x".into()],
        missing: vec!["y".into(), "z".into()],
    });
    let (session, topic) = ("x".into(), "t".into());
    pen.push(Event::FalseLeave { session, topic });
    let wrongs = [
        (Wrong::Ghost, 1),
        (Wrong::MissingMember, 2),
        (Wrong::FalseLeave, 1),
    ];
    pen.retained(&[1, 2, 3]).finds(STRICT, &wrongs);
}

/// A window, a message half a second later, and when each client has it.
fn after_a_window(seconds: [u64; 2]) -> Pen {
    let mut pen = three();
    pen.wait(1);
    let now = pen.now;
    pen.push(Event::Window(Window {
        kinds: vec!["node-kill"],
        begun: now,
        healed: now,
        measured_from: now,
    }));
    pen.accepted(4, SHARED);
    let begin = pen.now;
    for (client, seconds) in [0, 1].into_iter().zip(seconds) {
        pen.now = begin + Duration::from_secs(seconds);
        pen.received(client, SHARED, 4);
    }
    pen.retained(&[1, 2, 3, 4]);
    pen
}

#[test]
fn who_gets_nothing_new_for_ten_seconds_after_the_heal_is_deaf() {
    after_a_window([2, 11]).finds(STRICT, &[(Wrong::Deaf, 1)]);
    after_a_window([2, 9]).finds(STRICT, &[]);
}

#[test]
fn recovery_is_the_time_to_the_first_message_published_after_the_fault() {
    let pen = after_a_window([2, 9]);
    let published = checker::publications(&pen.history);
    let recoveries = recovery::recoveries(&pen.history, &published, &[SHARED]);
    let recovery = &recoveries["node-kill"];
    assert_eq!(recovery.windows, 1);
    let seconds = |share| recovery.quantile(share).as_secs();
    assert_eq!((seconds(0.0), seconds(1.0)), (2, 9));
}

#[test]
fn publishing_counts_outside_of_windows_and_settles_for_a_second() {
    let mut pen = after_a_window([0, 0]);
    let outside = |pen: &Pen| {
        let published = checker::publications(&pen.history);
        let publishing = recovery::publishing(&pen.history, &published, &[SHARED]);
        (publishing.outside, publishing.accepted_outside)
    };
    // The three before; the fourth came within the second after the heal.
    assert_eq!(outside(&pen), (3, 3));
    let published = checker::publications(&pen.history);
    let publishing = recovery::publishing(&pen.history, &published, &[SHARED]);
    assert_eq!(publishing.stall.as_secs(), 1);
    pen.wait(2).begun(5, SHARED).ended(5, SHARED, Outcome::Fail);
    assert_eq!(outside(&pen), (4, 3));
    // Accepted, but too late to be an answer.
    pen.begun(6, SHARED).wait(2);
    pen.ended(6, SHARED, Outcome::Ok(at(6)));
    assert_eq!(outside(&pen), (5, 3));
}

#[test]
fn anything_else_that_broke_is_found_and_a_history_is_written_line_by_line() {
    let mut pen = three();
    pen.push(Event::Broken {
        what: "the nemesis fell".into(),
    });
    pen.retained(&[1, 2, 3])
        .finds(STRICT, &[(Wrong::Broken, 1)]);
    let mut text = Vec::new();
    pen.history.write(&mut text).expect("memory takes it");
    let text = String::from_utf8(text).expect("JSON is text");
    assert_eq!(text.lines().count(), 1 + pen.history.entries.len());
    for line in text.lines() {
        serde_json::from_str::<serde_json::Value>(line).expect("each line is JSON");
    }
}
