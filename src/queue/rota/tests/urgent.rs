//! What is critical in a backlog of many seconds: how many calls it waits for, and that the rest goes on.

use super::*;

/// How long a call takes: Redis is some way off.
const CALL: Duration = Duration::from_millis(50);
/// Calls at once.
const CALLS: usize = 2;
/// The most calls that may begin before the one that has it, of which the first may be a general one;
/// while the partition is in a call, as many more as begin until that ends.
const FEW: u32 = 1 + CALLS as u32;

/// A consumer in a queue that nobody fills but the test.
struct World {
    rota: Rota,
    now: Instant,
    /// Critical entries and others of each partition.
    waiting: Vec<[u64; 2]>,
    /// When something critical becomes due there.
    later: BTreeMap<u32, Instant>,
    running: Vec<(Instant, Pass)>,
    call_of: fn(u32) -> Option<CallOf>,
    /// Which partitions each call had.
    calls: Vec<Vec<u32>>,
}

impl World {
    fn new(waiting: Vec<[u64; 2]>) -> Self {
        let mut rota = Rota::default();
        let now = Instant::now();
        let count = u32::try_from(waiting.len()).unwrap();
        rota.note(&held(0..count), now);
        Self {
            rota,
            now,
            waiting,
            later: BTreeMap::new(),
            running: Vec::new(),
            call_of: |_| Some(A),
            calls: Vec::new(),
        }
    }

    /// Calls begin while there is room, then the first of them ends.
    fn step(&mut self) {
        while self.running.len() < CALLS
            && let Some(pass) = self.rota.take(self.now, self.call_of, |_| true)
        {
            self.calls.push(partitions(&pass));
            self.running.push((self.now + CALL, pass));
        }
        let (at, pass) = self.running.remove(0);
        self.now = at;
        let mut room = FETCH_MAX as u64;
        for of in &pass.held {
            let partition = of.partition;
            if self.later.get(&partition).is_some_and(|due| *due <= at) {
                self.later.remove(&partition);
                self.waiting[partition as usize][0] += 1;
            }
            for count in &mut self.waiting[partition as usize] {
                let moved = room.min(*count).min(FETCH_OF_STREAM_MAX as u64);
                (*count, room) = (*count - moved, room - moved);
            }
            let [critical, low] = self.waiting[partition as usize];
            let due = [critical, 0, 0, low];
            let depths = Depths {
                due,
                ..Depths::default()
            };
            self.rota.found(partition, &depths);
            let seen = Seen::Looked {
                has_come: true,
                left: critical + low,
                next_due: self.later.get(&partition).map(|due| *due - at),
            };
            self.rota.ended(*of, seen, at, 0.0);
        }
    }

    /// Steps until something is so; returns how many calls began before the one with this partition.
    fn calls_until(&mut self, partition: u32) -> u32 {
        let before = self.calls.len();
        loop {
            let since = &self.calls[before..];
            if let Some(at) = since.iter().position(|call| call.contains(&partition)) {
                return u32::try_from(at).unwrap();
            }
            assert!(since.len() < 5_000, "{partition} is not looked at");
            self.step();
        }
    }
}

/// 256 partitions, each of which has enough for many calls; they have been looked at once.
fn backlog() -> World {
    let mut world = World::new(vec![[0, 4_000]; 256]);
    while world.calls.len() < 300 {
        world.step();
    }
    world
}

#[test]
fn what_is_critical_waits_for_few_calls_in_a_backlog_of_many_seconds() {
    let mut world = backlog();
    let turn = world.calls_until(world.calls[world.calls.len() - 1][0]);
    let wait = CALL * turn / CALLS as u32;
    assert!(wait > Duration::from_secs(1), "by its turn: {wait:?}");
    // What says nothing of itself may be critical; nodes of the release before ring so.
    for ring in [Ring::Critical, Ring::Unsaid] {
        for number in 0..200 {
            let partition = number * 37 % 256;
            world.waiting[partition as usize][0] += 1;
            world.rota.ring(partition, ring, world.now);
            let waited = world.calls_until(partition);
            assert!(waited <= FEW, "{partition}: {waited} calls");
        }
    }
}

#[test]
fn what_rings_while_its_partition_is_in_a_call_is_in_one_of_the_next() {
    let mut world = backlog();
    for _ in 0..100 {
        let busy = world.running[0].1.held[0].partition;
        world.waiting[busy as usize][0] += 1;
        world.rota.ring(busy, Ring::Critical, world.now);
        let waited = world.calls_until(busy);
        assert!(waited <= FEW, "{busy}: {waited} calls");
    }
}

#[test]
fn what_becomes_due_waits_for_few_calls_too() {
    let mut world = backlog();
    for number in 0..20 {
        let partition = number * 37 % 256;
        world.rota.ring(partition, Ring::Critical, world.now);
        let due = world.now + Duration::from_secs(2);
        world.later.insert(partition, due);
        while world.now < due {
            world.step();
        }
        let waited = world.calls_until(partition);
        assert!(waited <= FEW, "{partition}: {waited} calls");
        while world.later.contains_key(&partition) {
            world.step();
        }
    }
}

#[test]
fn the_rest_has_a_quarter_of_the_calls_of_each_master_while_critical_ones_come_without_end() {
    let masters: [fn(u32) -> Option<CallOf>; 2] = [
        |_| Some(A),
        // One with many and one with few, and each partition a call of its own.
        |partition| {
            let feed = FeedNumber(1 + partition % 2);
            let alone = Some(partition);
            Some(CallOf { feed, alone })
        },
    ];
    for call_of in masters {
        let mut world = World::new(vec![[0, 1_000_000]; 64]);
        world.call_of = call_of;
        let (mut last, mut longest) = ([0; 64], 0);
        let mut critical_calls = 0;
        for number in 1..=4_000 {
            for partition in 0..32 {
                world.waiting[partition][0] = 1_000;
            }
            let seen = world.calls.len();
            world.step();
            for call in &world.calls[seen..] {
                critical_calls += usize::from(call[0] < 32);
                for partition in call {
                    longest = longest.max(number - last[*partition as usize]);
                    last[*partition as usize] = number;
                }
            }
        }
        // A quarter of the calls goes to all 64 in turn.
        assert!(longest <= 4 * 64 + 8, "{longest} calls");
        assert!(last.iter().all(|at| *at > 3_700), "{last:?}");
        let share = critical_calls * 100 / world.calls.len();
        assert!(
            share >= 75,
            "{share} % of the calls are for what is critical"
        );
    }
}

#[test]
fn what_is_known_to_be_critical_goes_before_what_may_be() {
    let now = Instant::now();
    let mut rota = rested(0..100, now);
    // As after a break, when each bell may have been missed.
    (0..100).for_each(|partition| rota.ring(partition, Ring::Unsaid, now));
    rota.ring(77, Ring::Critical, now + CALL);
    rota.ring(78, Ring::Lower, now);
    let pass = all(&mut rota, now + CALL).unwrap();
    assert_eq!(partitions(&pass)[..3], [77, 0, 1]);
}

#[test]
fn a_ring_for_something_critical_is_kept_until_its_partition_was_looked_at() {
    let now = Instant::now();
    let mut rota = rested(0..9, now);
    (0..9).for_each(|partition| rota.ring(partition, Ring::Lower, now));
    rota.ring(5, Ring::Critical, now + CALL);
    rota.ring(5, Ring::Lower, now + CALL);
    // The answer to a question that was asked before it rang.
    rota.found(5, &Depths::default());
    let first = |rota: &mut Rota, now| {
        let pass = all(rota, now).unwrap();
        let first = pass.held[0];
        (first, pass)
    };
    let (held, pass) = first(&mut rota, now + CALL);
    assert_eq!(held.partition, 5);
    end(&mut rota, &pass, Seen::Failed, now + CALL);
    let (held, _) = first(&mut rota, now + CALL + RETRY_MIN);
    assert_eq!(held.partition, 5, "it failed");
    rota.ended(held, left(true, 1), now + CALL + RETRY_MIN, 0.0);
    let (held, _) = first(&mut rota, now + CALL + RETRY_MIN);
    assert_ne!(held.partition, 5, "nothing critical was left");
}

#[test]
fn a_call_has_as_many_critical_partitions_as_fill_it() {
    let now = Instant::now();
    let mut rota = Rota::default();
    rota.note(&held(0..64), now);
    let passes: Vec<_> = std::iter::from_fn(|| all(&mut rota, now)).collect();
    for pass in &passes {
        for held in &pass.held {
            let critical = if held.partition < 48 { 0 } else { 20 };
            let due = [critical, 0, 0, 58];
            let depths = Depths {
                due,
                ..Depths::default()
            };
            rota.found(held.partition, &depths);
        }
        end(&mut rota, pass, left(true, 78), now);
    }
    // The two calls before were for what nobody knew.
    let calls = [(); 6].map(|()| partitions(&all(&mut rota, now).unwrap()));
    for at in [0, 2, 3, 4] {
        let call = &calls[at];
        assert_eq!(call.len(), 4, "20, and a quarter of 25 of the rest");
        assert!(call.iter().all(|partition| *partition >= 48), "{calls:?}");
    }
    let general = [&calls[1], &calls[5]];
    let waited = [&[0, 1, 2, 3], &[4, 5, 6, 7]];
    assert_eq!(general, waited, "who has waited longest");
}

#[test]
fn what_is_critical_waits_for_few_calls_in_a_flood_of_critical_ones_elsewhere() {
    let mut waiting = vec![[12_000, 0]; 40];
    waiting.extend([[0, 0]; 24]);
    let mut world = World::new(waiting);
    while world.calls.len() < 40 {
        world.step();
    }
    let since = &world.calls[20..];
    assert!(
        since.iter().all(|call| call.len() == 4),
        "of each 25: {since:?}"
    );
    for number in 0..24 {
        let partition = 40 + number;
        world.waiting[partition as usize][0] += 1;
        world.rota.ring(partition, Ring::Critical, world.now);
        let waited = world.calls_until(partition);
        assert!(waited <= FEW, "{partition}: {waited} calls");
    }
}
