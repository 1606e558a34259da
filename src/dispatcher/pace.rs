//! How fast each master is asked: what waits for it, and a window that adapts to its answers.
//!
//! In: topics to be asked about, whether their master can be asked, how long answers took. Out: which
//! topic's turn it is. Pure: time is an argument. Owned by the dispatcher. Bounds: one place a topic
//! (places that a topic has left are passed over when their turn comes); [`WINDOW_MAX`] questions at
//! one master, [`PAGES_MAX`] of them for pages. While the master is away nothing is asked and what
//! waits costs nothing.
//!
//! Somebody waits for joins, so these go first. Then topics of messages, inboxes among them, go
//! before topics of changes of members: after a break there may be many more of those, and a missed
//! message is worse than a late list. One question of [`MEMBERS_EVERY`] is about members all the same,
//! as long as any waits. Within each of these, places go in order.
//!
//! The window begins at [`WINDOW_START`], with each break of the feed anew: then all nodes ask at
//! once. Each quick answer makes it one wider, which doubles it with every round trip; a slow or
//! missing one halves it, at most once for all that was asked before.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fanfare_protocol::ids::{Topic, TopicKind};

/// Questions at a master at first.
pub(super) const WINDOW_START: usize = 32;
/// Most questions at a master. At a round trip of a millisecond that is a million a second.
pub(super) const WINDOW_MAX: usize = 1_024;
/// Most questions for pages at a master: each may bring some MiB.
pub(super) const PAGES_MAX: usize = 8;
/// An answer within this time says that there is room for more.
pub(super) const QUICK: Duration = Duration::from_millis(50);
/// One that took so long says that there is too much.
pub(super) const SLOW: Duration = Duration::from_millis(200);
/// By up to so much later a node asks after a break than another one.
pub(super) const JITTER: Duration = Duration::from_millis(250);

/// Of so many questions one is about changes of members, where both wait.
pub(super) const MEMBERS_EVERY: usize = 8;

/// What a topic waits for; the first goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// Somebody waits for the topic to be live.
    Join,
    /// What came is held until the stream was read.
    Repair,
    /// Whether anything is missing.
    Compare,
}

/// What a topic brings; the first mostly goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Brings {
    /// Publications, of inboxes as well.
    Messages,
    /// Changes of another topic's members.
    Members,
}

impl Brings {
    fn of(topic: &Topic) -> Self {
        match topic.kind() {
            TopicKind::Presence => Self::Members,
            _ => Self::Messages,
        }
    }
}

/// What waits of one kind, by its need.
type Waiting = [VecDeque<Place>; 3];

/// A topic's place; void when the topic's ticket is another one by now.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) topic: Topic,
    pub(super) ticket: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    open: usize,
    /// What was asked before says nothing of the present size.
    halved_at: Option<Instant>,
}

/// How a question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Answered,
    /// Nobody knows whether it was executed: mostly no answer came in time.
    Unanswered,
    /// It was not even sent, or it was refused.
    Refused,
}

impl Window {
    fn new() -> Self {
        Self {
            size: WINDOW_START,
            open: 0,
            halved_at: None,
        }
    }

    fn has_room(&self) -> bool {
        self.open < self.size
    }

    /// Begins anew; what is open stays so.
    fn begin(&mut self, now: Instant) {
        self.size = self.size.min(WINDOW_START);
        self.halved_at = Some(now);
    }

    fn ended(&mut self, asked_at: Instant, now: Instant, ended: Ended) {
        self.open = self.open.saturating_sub(1);
        let took = now.saturating_duration_since(asked_at);
        let is_of_now = self.halved_at.is_none_or(|at| asked_at >= at);
        match ended {
            Ended::Answered if took < QUICK => self.size = (self.size + 1).min(WINDOW_MAX),
            Ended::Answered if took < SLOW => {}
            Ended::Answered | Ended::Unanswered if is_of_now => {
                self.size = (self.size / 2).max(1);
                self.halved_at = Some(now);
            }
            Ended::Answered | Ended::Unanswered | Ended::Refused => {}
        }
    }
}

/// The way to one master.
#[derive(Debug)]
pub(super) struct Lane {
    window: Window,
    pages_open: usize,
    /// By what the topics bring.
    waiting: [Waiting; 2],
    /// Questions about messages since the last one about members.
    messages_in_a_row: usize,
    /// Whether the master can be asked.
    pub(super) is_up: bool,
    /// Not before this are topics compared or repaired.
    not_before: Option<Instant>,
}

impl Lane {
    pub(super) fn new(is_up: bool) -> Self {
        Self {
            window: Window::new(),
            pages_open: 0,
            waiting: Default::default(),
            messages_in_a_row: 0,
            is_up,
            not_before: None,
        }
    }

    pub(super) fn wait(&mut self, need: Need, place: Place) {
        let waiting = &mut self.waiting[Brings::of(&place.topic) as usize];
        waiting[need as usize].push_back(place);
    }

    /// The feed broke: everything is to be asked, here and on other nodes.
    pub(super) fn broke(&mut self, now: Instant) {
        self.window.begin(now);
        let rest = JITTER.mul_f64(rand::random());
        self.not_before = Some(now + rest);
    }

    /// The next place, if something may be asked now.
    pub(super) fn next(&mut self, now: Instant) -> Option<Place> {
        if !self.is_up || !self.window.has_room() {
            return None;
        }
        let is_early = self.not_before.is_some_and(|at| now < at);
        let may_page = !is_early && self.pages_open < PAGES_MAX;
        let in_turn = if self.messages_in_a_row + 1 < MEMBERS_EVERY {
            [Brings::Messages, Brings::Members]
        } else {
            [Brings::Members, Brings::Messages]
        };
        let joins = in_turn.map(|brings| (brings, Need::Join));
        let others = in_turn
            .into_iter()
            .flat_map(|brings| [(brings, Need::Repair), (brings, Need::Compare)]);
        joins
            .into_iter()
            .chain(others)
            .filter(|(_, need)| match need {
                Need::Join => true,
                Need::Repair => may_page,
                Need::Compare => !is_early,
            })
            .find_map(|(brings, need)| self.waiting[brings as usize][need as usize].pop_front())
    }

    /// A question about this topic is at the master now.
    pub(super) fn opened(&mut self, topic: &Topic, is_page: bool) {
        self.window.open += 1;
        self.pages_open += usize::from(is_page);
        self.messages_in_a_row = match Brings::of(topic) {
            Brings::Messages => self.messages_in_a_row.saturating_add(1),
            Brings::Members => 0,
        };
    }

    /// It is no more.
    pub(super) fn ended(&mut self, asked_at: Instant, now: Instant, is_page: bool, ended: Ended) {
        self.window.ended(asked_at, now, ended);
        self.pages_open = self.pages_open.saturating_sub(usize::from(is_page));
    }

    /// Takes out all places, for a master that is used no more.
    pub(super) fn drain(&mut self) -> Vec<Place> {
        let waiting = self.waiting.iter_mut().flatten();
        waiting.flat_map(std::mem::take).collect()
    }

    /// How many places there are, void ones included.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.iter().flatten().map(VecDeque::len).sum()
    }

    #[cfg(test)]
    pub(super) fn window_size(&self) -> usize {
        self.window.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Lets all that fits be open for so long.
    fn round(window: &mut Window, now: &mut Instant, took: Duration, ended: Ended) {
        let count = window.size - window.open;
        window.open += count;
        let asked_at = *now;
        *now += took;
        for _ in 0..count {
            window.ended(asked_at, *now, ended);
        }
        assert_eq!(window.open, 0);
    }

    #[test]
    fn quick_answers_double_the_window_with_each_round() {
        let (mut window, mut now) = (Window::new(), Instant::now());
        let mut sizes = Vec::new();
        for _ in 0..7 {
            sizes.push(window.size);
            round(&mut window, &mut now, MS, Ended::Answered);
        }
        assert_eq!(sizes, [32, 64, 128, 256, 512, 1_024, 1_024]);
    }

    #[test]
    fn slow_or_missing_answers_halve_it_once_a_round() {
        let (mut window, mut now) = (Window::new(), Instant::now());
        round(&mut window, &mut now, SLOW, Ended::Answered);
        assert_eq!(window.size, 16);
        round(&mut window, &mut now, 10 * SLOW, Ended::Unanswered);
        assert_eq!(window.size, 8);
        for _ in 0..10 {
            round(&mut window, &mut now, SLOW, Ended::Answered);
        }
        assert_eq!(window.size, 1, "one is always asked");
        round(&mut window, &mut now, MS, Ended::Refused);
        round(&mut window, &mut now, 2 * QUICK, Ended::Answered);
        assert_eq!(window.size, 1);
        round(&mut window, &mut now, MS, Ended::Answered);
        assert_eq!(window.size, 2);
    }

    #[test]
    fn a_break_begins_with_a_narrow_window_and_a_rest() {
        let mut now = Instant::now();
        let mut lane = Lane::new(true);
        for _ in 0..4 {
            round(&mut lane.window, &mut now, MS, Ended::Answered);
        }
        lane.broke(now);
        assert_eq!(lane.window_size(), WINDOW_START);
        let app = fanfare_protocol::ids::App::default_app();
        for need in [Need::Compare, Need::Repair, Need::Join] {
            let topic = Topic::everyone(&app);
            let ticket = need as u64;
            lane.wait(need, Place { topic, ticket });
        }
        let ticket = |lane: &mut Lane, now| lane.next(now).map(|place| place.ticket);
        lane.not_before = Some(now + MS);
        assert_eq!(ticket(&mut lane, now), Some(Need::Join as u64));
        assert_eq!(ticket(&mut lane, now), None);
        assert_eq!(ticket(&mut lane, now + MS), Some(Need::Repair as u64));
        lane.is_up = false;
        assert_eq!(ticket(&mut lane, now + MS), None);
        lane.is_up = true;
        assert_eq!(ticket(&mut lane, now + MS), Some(Need::Compare as u64));
        assert_eq!(ticket(&mut lane, now + MS), None);
    }

    #[test]
    fn messages_go_first_and_members_get_their_share() {
        let now = Instant::now();
        let mut lane = Lane::new(true);
        lane.window.size = WINDOW_MAX;
        let app = fanfare_protocol::ids::App::default_app();
        let messages = Topic::everyone(&app);
        let members = messages.presence();
        let wait = |lane: &mut Lane, topic: &Topic, need, ticket| {
            let topic = topic.clone();
            lane.wait(need, Place { topic, ticket });
        };
        for ticket in 0..100 {
            wait(&mut lane, &members, Need::Repair, 1_000 + ticket);
        }
        for ticket in 0..20 {
            wait(&mut lane, &messages, Need::Compare, ticket);
        }
        // Places that were left are not asked about, and cost nobody a turn.
        let mut taken = Vec::new();
        while taken.len() < 24
            && let Some(place) = lane.next(now)
        {
            if (1_000..1_004).contains(&place.ticket) {
                continue;
            }
            lane.opened(&place.topic, false);
            taken.push(place.ticket);
        }
        let rest = [1_006, 1_007];
        let expected = (0..7)
            .chain([1_004])
            .chain(7..14)
            .chain([1_005])
            .chain(14..20)
            .chain(rest);
        assert_eq!(taken, expected.collect::<Vec<_>>());
        // Somebody waits for it.
        wait(&mut lane, &messages, Need::Compare, 20);
        wait(&mut lane, &members, Need::Join, 2_000);
        assert_eq!(lane.next(now).map(|place| place.ticket), Some(2_000));
        assert_eq!(lane.next(now).map(|place| place.ticket), Some(20));
    }

    #[test]
    fn pages_have_a_bound_of_their_own() {
        let now = Instant::now();
        let mut lane = Lane::new(true);
        let app = fanfare_protocol::ids::App::default_app();
        for ticket in 0..=PAGES_MAX as u64 {
            let topic = Topic::everyone(&app);
            lane.wait(Need::Repair, Place { topic, ticket });
        }
        for _ in 0..PAGES_MAX {
            let place = lane.next(now).expect("there is room");
            lane.opened(&place.topic, true);
        }
        assert!(lane.next(now).is_none());
        lane.ended(now, now, true, Ended::Answered);
        assert!(lane.next(now).is_some());
    }
}
