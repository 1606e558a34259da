//! The rules of the lanes, one test each: shares, promotion, conflation, and what is kept idle.
//!
//! In: a few messages by hand. Out: the order in which they leave.

use super::lane_pool::SPARE_ITEMS_MAX;
use super::*;

/// A short name for each frame that left whole: topic and position.
fn sent(outbox: &mut Outbox, spares: &mut LanePool) -> Vec<String> {
    let (mut taken, mut room) = (Vec::new(), usize::MAX);
    let written = outbox.write(spares, |slices| socket(&mut room, &mut taken, slices));
    assert!(!written.expect("it takes all").blocked);
    let mut events = Vec::new();
    while let Some((event, length)) = frame(&taken) {
        taken.drain(..length);
        let place = event["position"].as_str().or(event["from"].as_str());
        let what = event["topic"]
            .as_str()
            .map_or(event["id"].to_string(), str::to_owned);
        events.push(match place {
            Some(place) => format!("{what}@{}", place.trim_end_matches("-0")),
            None => what,
        });
    }
    events
}

#[test]
fn a_higher_priority_overtakes_other_topics_and_takes_its_own_topic_along() {
    let (mut outbox, mut spares) = (Outbox::new(JSON), LanePool::default());
    let mut lines = lines();
    let mut push = |n: usize, priority| {
        let message = lines[n].publish(priority, None, 10);
        outbox.push_message(lines[n].key, message, &mut spares);
    };
    push(0, Priority::Normal);
    push(1, Priority::Low);
    push(2, Priority::High);
    push(1, Priority::Low);
    push(1, Priority::Critical);
    push(1, Priority::Low);
    // Other topics of its lane came before it.
    push(3, Priority::Critical);
    let sent = sent(&mut outbox, &mut spares);
    let expected = ["t1@1", "t1@2", "t1@3", "t1@4", "t3@1", "t2@1", "t0@1"];
    assert_eq!(sent, expected);
}

#[test]
fn what_moves_up_queues_behind_what_waits_there() {
    let (mut outbox, mut spares) = (Outbox::new(JSON), LanePool::default());
    let mut lines = lines();
    for (n, priority) in [
        (0, Priority::Low),
        (1, Priority::Critical),
        (0, Priority::Critical),
    ] {
        let message = lines[n].publish(priority, None, 10);
        outbox.push_message(lines[n].key, message, &mut spares);
    }
    let sent = sent(&mut outbox, &mut spares);
    assert_eq!(sent, ["t1@1", "t0@1", "t0@2"]);
}

#[test]
fn a_notice_alone_overtakes_nothing_that_is_urgent_and_what_follows_takes_it_along() {
    let low_follows = ["t2@1", "t0@7", "t0@1", "t1@1"];
    let critical_follows = ["t0@7", "t0@1", "t2@1", "t1@1"];
    for (follows, expected) in [
        (Priority::Low, low_follows),
        (Priority::Critical, critical_follows),
    ] {
        let (mut outbox, mut spares) = (Outbox::new(JSON), LanePool::default());
        let mut lines = lines();
        let told = notice(&lines[0].name, 7);
        outbox.push_notice(lines[0].key, told, &mut spares);
        for (n, priority) in [(1, Priority::Low), (2, Priority::High), (0, follows)] {
            let message = lines[n].publish(priority, None, 10);
            outbox.push_message(lines[n].key, message, &mut spares);
        }
        assert_eq!(sent(&mut outbox, &mut spares), expected);
    }
}

/// Two became one, and one went with its topic: what nobody reads is not counted.
#[test]
fn gaps_are_counted_when_they_leave() {
    let (mut outbox, mut spares) = (Outbox::new(JSON), LanePool::default());
    let mut lines = lines();
    for n in [0, 1] {
        for is_dropped in [true, false, true] {
            let message = lines[n].publish(Priority::Low, None, 10);
            if is_dropped {
                outbox.push_dropped(lines[n].key, &message, &mut spares);
            } else {
                outbox.push_message(lines[n].key, message, &mut spares);
            }
        }
    }
    outbox.forget(lines[1].key);
    let high = lines[2].publish(Priority::High, None, 10);
    let tight = Bound {
        messages_max: 3,
        ..BOUND
    };
    let shed = outbox.make_room(lines[2].key, &high, tight, &mut spares, |_| false);
    assert_eq!(shed.dropped, 1);
    let (mut room, mut taken) = (usize::MAX, Vec::new());
    let written = outbox.write(&mut spares, |s| socket(&mut room, &mut taken, s));
    let written = written.expect("it takes all");
    assert_eq!((written.frames, written.gaps), (1, 1));
}

#[test]
fn a_frame_that_is_partly_written_is_finished_before_an_answer() {
    let (mut outbox, mut spares) = (Outbox::new(JSON), LanePool::default());
    let mut lines = lines();
    let low = lines[0].publish(Priority::Low, None, 100);
    outbox.push_message(lines[0].key, low, &mut spares);
    let mut taken = Vec::new();
    let mut room = 50;
    let written = outbox.write(&mut spares, |s| socket(&mut room, &mut taken, s));
    assert!(written.expect("it took a part").blocked);
    let critical = lines[1].publish(Priority::Critical, None, 10);
    outbox.push_message(lines[1].key, critical, &mut spares);
    outbox.push_reply(reply(7), &mut spares);
    room = usize::MAX;
    let written = outbox.write(&mut spares, |s| socket(&mut room, &mut taken, s));
    assert_eq!(written.expect("it took the rest").frames, 3);
    let mut order = Vec::new();
    while let Some((event, length)) = frame(&taken) {
        taken.drain(..length);
        order.push(event["topic"].as_str().unwrap_or("ok").to_owned());
    }
    assert_eq!(order, ["t0", "ok", "t1"]);
}

/// Bytes of each topic's frames that left while each of `lines` always had something waiting.
fn shares(bytes: [usize; 3], chunk: usize) -> [f64; 3] {
    let (mut outbox, mut spares) = (Outbox::new(JSON), LanePool::default());
    let mut lines = lines();
    let priorities = [Priority::Critical, Priority::Normal, Priority::Low];
    let mut waiting = [0; 3];
    let mut sent_bytes = [0; 3];
    let mut taken = Vec::new();
    for _ in 0..1_000_000 / chunk {
        for n in 0..3 {
            // More than a write takes.
            while waiting[n] < 2 * (chunk + bytes[n]) {
                let message = lines[n].publish(priorities[n], None, bytes[n]);
                waiting[n] += message.frame(JSON).len();
                outbox.push_message(lines[n].key, message, &mut spares);
            }
        }
        let mut room = chunk;
        let written = outbox.write(&mut spares, |s| socket(&mut room, &mut taken, s));
        assert!(written.expect("it takes or blocks").blocked);
        while let Some((event, length)) = frame(&taken) {
            taken.drain(..length);
            let n = (0..3)
                .find(|n| event["topic"] == format!("t{n}"))
                .expect("one of them");
            waiting[n] -= length;
            sent_bytes[n] += length;
        }
    }
    let all: usize = sent_bytes.iter().sum();
    sent_bytes.map(|bytes| bytes as f64 / all as f64)
}

#[test]
fn lower_lanes_get_an_eighth_of_the_bytes_while_higher_ones_always_have_more() {
    // The lowest gets an eighth of the eighth.
    let expected = [7.0 / 8.0, 7.0 / 64.0, 1.0 / 64.0];
    let lengths = [[100, 100, 100], [700, 20, 60], [20, 900, 400]];
    for (bytes, chunk) in lengths.into_iter().flat_map(|l| [(l, 700), (l, 20_000)]) {
        let shares = shares(bytes, chunk);
        for (share, expected) in shares.iter().zip(expected) {
            let ratio = share / expected;
            assert!(
                (0.8..1.25).contains(&ratio),
                "{shares:?} of {bytes:?}, {chunk} a write"
            );
        }
    }
}

/// What a lane has saved up for one that then emptied is not spent later.
#[test]
fn a_lower_lane_saves_nothing_up_while_it_is_empty() {
    let (mut outbox, mut spares) = (Outbox::new(JSON), LanePool::default());
    let mut lines = lines();
    // A long message makes the higher lane save for it, and is then left.
    let long = lines[0].publish(Priority::Low, None, 5_000);
    outbox.push_message(lines[0].key, long, &mut spares);
    for _ in 0..50 {
        let message = lines[1].publish(Priority::Critical, None, 400);
        outbox.push_message(lines[1].key, message, &mut spares);
    }
    let (mut room, mut taken) = (15_000, Vec::new());
    let written = outbox.write(&mut spares, |s| socket(&mut room, &mut taken, s));
    assert!(written.expect("it took a part").blocked);
    outbox.forget(lines[0].key);
    room = usize::MAX;
    let written = outbox.write(&mut spares, |s| socket(&mut room, &mut taken, s));
    written.expect("it took the rest");
    assert!(outbox.is_empty());
    for (n, priority) in [(2, Priority::Low), (1, Priority::Critical)] {
        for _ in 0..3 {
            let message = lines[n].publish(priority, None, 400);
            outbox.push_message(lines[n].key, message, &mut spares);
        }
    }
    let sent = sent(&mut outbox, &mut spares);
    assert!(sent[..3].iter().all(|m| m.starts_with("t1")), "{sent:?}");
}

#[test]
fn a_newer_message_stands_for_one_of_its_own_topic_and_key_only_and_only_at_the_bound() {
    let (mut outbox, mut spares) = (Outbox::new(JSON), LanePool::default());
    let mut lines = lines();
    for (n, key) in [
        (3, Some(1)),
        (4, Some(1)),
        (3, Some(2)),
        (3, None),
        (3, Some(1)),
    ] {
        let message = lines[n].publish(Priority::Normal, key, 10);
        outbox.push_message(lines[n].key, message, &mut spares);
    }
    assert_eq!(outbox.messages().messages, 5, "nothing before the bound");
    let newest = lines[3].publish(Priority::Normal, Some(2), 10);
    let key = lines[3].key;
    let shed = outbox.make_room(key, &newest, BOUND, &mut spares, |_| false);
    assert_eq!((shed.conflated, shed.dropped), (2, 0));
    let sent = sent(&mut outbox, &mut spares);
    assert_eq!(sent, ["t4@1", "t3@3", "t3@4"]);
}

/// A ticker with about as many instruments as an outbox has places: each price stands for an older
/// one, and the bound is reached all the time.
#[test]
fn a_full_outbox_of_keys_is_searched_once_for_many_deliveries() {
    for (keys, bytes, bytes_max) in [(1_023, 10, 1 << 20), (1_024, 10, 1 << 20), (900, 1_000, 0)] {
        let (mut outbox, mut spares) = (Outbox::new(JSON), LanePool::default());
        let mut lines = lines();
        let line = &mut lines[3];
        let mut waiting = Waiting::default();
        let longest = line.publish(Priority::Normal, Some(keys - 1), bytes);
        // Later frames are longer by some digits of their positions.
        (0..keys).for_each(|_| waiting.add(longest.frame(JSON).len() + 10));
        let bound = Bound {
            messages_max: 1_024,
            bytes_max: waiting.bytes.max(bytes_max),
        };
        let (mut searches, mut lost) = (0, 0);
        for key in (0..keys).cycle().take(10 * usize::from(keys)) {
            let message = line.publish(Priority::Normal, Some(key), bytes);
            if !outbox.has_room_for(&message, bound) {
                searches += 1;
                let shed = outbox.make_room(line.key, &message, bound, &mut spares, |_| false);
                assert!(shed.fits);
                lost += shed.dropped;
            }
            outbox.push_message(line.key, message, &mut spares);
        }
        assert_eq!(lost, 0, "{keys} keys: the newest of each is kept");
        let deliveries_each = 9 * usize::from(keys) / searches;
        assert!(deliveries_each >= 50, "{keys} keys: {deliveries_each}");
    }
}

/// An outbox whose bound is reached by what nobody may take away, and in which one message of a key
/// waits; and what became of a newer one of so many bytes.
fn beside_an_older_one(bytes: usize) -> (Shed, Vec<String>) {
    let (mut outbox, mut spares) = (Outbox::new(JSON), LanePool::default());
    let mut lines = lines();
    for _ in 1..BOUND.messages_max {
        let urgent = lines[4].publish(Priority::Critical, None, 100);
        outbox.push_message(lines[4].key, urgent, &mut spares);
    }
    let older = lines[3].publish(Priority::Normal, Some(1), 10);
    outbox.push_message(lines[3].key, older, &mut spares);
    let told = notice(&lines[5].name, 7);
    outbox.push_notice(lines[5].key, told, &mut spares);
    let newest = lines[3].publish(Priority::Normal, Some(1), bytes);
    let key = lines[3].key;
    let shed = outbox.make_room(key, &newest, BOUND, &mut spares, |_| false);
    if shed.fits {
        outbox.push_message(key, newest, &mut spares);
    }
    let mut sent = sent(&mut outbox, &mut spares);
    sent.retain(|name| name.starts_with("t3"));
    (shed, sent)
}

#[test]
fn a_message_without_room_takes_the_place_of_its_older_one() {
    let (shed, sent) = beside_an_older_one(20);
    assert_eq!((shed.fits, shed.conflated, shed.dropped), (true, 1, 0));
    assert_eq!(sent, ["t3@2"]);
}

#[test]
fn an_older_message_stays_where_the_newer_one_is_far_too_long() {
    let (shed, sent) = beside_an_older_one(5_000);
    assert_eq!((shed.fits, shed.conflated, shed.dropped), (false, 0, 0));
    assert_eq!(sent, ["t3@1"]);
}

#[test]
fn an_outbox_that_was_busy_and_fell_quiet_holds_no_memory_of_its_own() {
    let (mut outbox, mut spares) = (Outbox::new(JSON), LanePool::default());
    let mut lines = lines();
    let mut fill = |outbox: &mut Outbox, spares: &mut LanePool, count: usize| {
        for n in (0..TOPICS).cycle().take(count) {
            let message = lines[n].publish(Priority::Normal, None, 10);
            outbox.push_message(lines[n].key, message, spares);
        }
    };
    fill(&mut outbox, &mut spares, 1);
    assert!(outbox.lanes.is_none(), "one message waits in place");
    fill(&mut outbox, &mut spares, 20);
    assert!(outbox.lanes.is_some());
    sent(&mut outbox, &mut spares);
    assert!(outbox.lanes.is_none() && outbox.head.is_none());
    assert_eq!(
        spares.lanes.len(),
        1,
        "they are for the next one that needs some"
    );
    // What has grown is given back to the allocator, and not kept.
    fill(&mut outbox, &mut spares, 10 * SPARE_ITEMS_MAX);
    assert_eq!(spares.lanes.len(), 0, "lent");
    sent(&mut outbox, &mut spares);
    assert!(outbox.lanes.is_none() && outbox.head.is_none());
    assert_eq!(spares.lanes.len(), 0);
}

#[test]
fn an_outbox_of_which_everything_was_taken_back_is_empty_and_writes_nothing() {
    let (mut outbox, mut spares) = (Outbox::new(JSON), LanePool::default());
    let mut lines = lines();
    for _ in 0..BOUND.messages_max {
        let low = lines[0].publish(Priority::Low, None, 10);
        outbox.push_message(lines[0].key, low, &mut spares);
    }
    let high = lines[1].publish(Priority::High, None, 10);
    let shed = outbox.make_room(lines[1].key, &high, BOUND, &mut spares, |_| true);
    assert_eq!(shed.taken_back.len(), 1);
    assert!(outbox.is_empty());
    assert_eq!(sent(&mut outbox, &mut spares), [] as [&str; 0]);
}

#[test]
fn spare_lanes_go_when_none_was_needed_for_a_while() {
    let mut spares = LanePool::default();
    let lent = [spares.lend(), spares.lend()];
    lent.into_iter().for_each(|lanes| spares.give_back(lanes));
    for left in [2, 1, 0] {
        spares.shrink();
        assert_eq!(spares.lanes.len(), left);
    }
}
