//! The broker, the feed and the dispatcher around one link, moved by a seed.
//!
//! In: a seed and the weather. Out: a report of what happened, or the checker's verdict. Every step
//! is one event chosen at random: a publication, an arrival, a question reaching the broker, an
//! answer arriving, a break, a failover. An answer shows the stream as it stood at some moment
//! between question and arrival. Bound: [`STEPS_MAX`] steps to come to rest.

use std::collections::VecDeque;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::{Question, RECENT_MAX, Step};
use super::checker::Checker;
use super::judge::Judge;
use crate::broker::ids::position_after;
use crate::broker::model::Stream;
use crate::broker::{Entry, SincePage};
use crate::config::Retention;
use fanfare_protocol::ids::Position;

const START_MS: u64 = 1_732_190_000_000;
/// A run that has not come to rest by then never will.
const STEPS_MAX: usize = 20_000;
/// So many entries later one may come for the second time.
const DOUBLED_WITHIN: usize = 8;
/// Three of these are more than a link may hold.
static LARGE: [u8; 400_000] = [b'1'; 400_000];

/// What a suite's runs go through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    pub(super) history: bool,
    /// A loss is followed by a break, as the broker promises; else only the last check finds it.
    pub(super) breaks: bool,
    pub(super) failovers: bool,
    /// Entries overtake each other on the feed. On a topic without history what is overtaken is
    /// told as lost.
    pub(super) reorders: bool,
    /// Nothing goes wrong: then nothing is asked and no gap told.
    pub(super) calm: bool,
    /// Also in a calm some come twice.
    pub(super) doubles: bool,
    /// Ids count on by one while the clock is behind.
    pub(super) counts_on: bool,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            history: true,
            breaks: true,
            failovers: false,
            reorders: true,
            calm: false,
            doubles: false,
            counts_on: false,
        }
    }
}

/// What happened in a run, or in many.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) delivered: u64,
    pub(super) duplicates: u64,
    pub(super) overflows: u64,
    pub(super) gaps: u64,
    pub(super) failover_gaps: u64,
    pub(super) questions: u64,
    pub(super) unanswered: u64,
    pub(super) lost_on_the_feed: u64,
    pub(super) failovers: u64,
}

impl Report {
    pub(super) fn add(&mut self, other: &Self) {
        self.delivered += other.delivered;
        self.duplicates += other.duplicates;
        self.overflows += other.overflows;
        self.gaps += other.gaps;
        self.failover_gaps += other.failover_gaps;
        self.questions += other.questions;
        self.unanswered += other.unanswered;
        self.lost_on_the_feed += other.lost_on_the_feed;
        self.failovers += other.failovers;
    }
}

#[derive(Debug)]
enum OnFeed {
    Entry(Entry),
    Break,
}

#[derive(Debug, Clone, Copy)]
enum Asked {
    Sequencer(Question),
    Last,
}

#[derive(Debug)]
enum Answer {
    Since(Position, SincePage),
    Newest(Vec<Entry>),
    Last(Position),
    /// The broker did not answer.
    None(Asked),
}

/// How bad this run is, in chances of 1.
#[derive(Debug)]
struct Chances {
    /// Rare: the feed is mostly empty. Often: it is far behind.
    publish: f64,
    /// How fast feed, questions and answers move, beside each other.
    pace: [u32; 3],
    lose: f64,
    double: f64,
    reorder: f64,
    silence: f64,
    large: f64,
    fail_over: f64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct World {
    rng: StdRng,
    weather: Weather,
    chances: Chances,
    stream: Stream,
    judge: Judge,
    checker: Checker,
    report: Report,
    moment: u64,
    feed: VecDeque<OnFeed>,
    /// The newest that were put on the feed.
    sent: VecDeque<Entry>,
    asked: VecDeque<Asked>,
    answers: VecDeque<Answer>,
    /// Something was lost on the feed, and no break has followed yet.
    break_due: bool,
    /// After a failover, until the subscription stands again.
    deaf: bool,
}

impl World {
    pub(super) fn new(
        seed: u64,
        weather: Weather,
        judge: impl FnOnce(Position, Retention) -> Judge,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let retention = Retention {
            entries_max: match weather.history {
                false => 0,
                true if weather.calm || rng.random_bool(0.5) => 1_000,
                true => rng.random_range(1..20),
            },
            age_ms: rng.random_range(20..500),
        };
        let pace = [(); 3].map(|()| rng.random_range(1..20));
        let mut upto = |most: f64| rng.random_range(0.0..most);
        let chances = Chances {
            publish: 0.05 + upto(0.45),
            pace,
            lose: upto(0.3),
            double: upto(0.3),
            reorder: upto(0.3),
            silence: upto(0.3),
            large: upto(0.2),
            fail_over: if weather.failovers { 0.1 } else { 0.0 },
        };
        let mut stream = Stream::new(retention, START_MS);
        for _ in 0..rng.random_range(0..3) {
            stream.publish(rng.random(), Bytes::new());
            stream.now_ms += 1;
        }
        let start = stream.last().unwrap_or_default();
        let mut checker = Checker::new(start, weather.history, weather.failovers);
        for position in stream.ids() {
            // Before the link began: nobody is owed these.
            checker.began_after(*position);
        }
        Self {
            rng,
            weather,
            chances,
            stream,
            judge: judge(start, retention),
            checker,
            report: Report::default(),
            moment: 1,
            feed: VecDeque::new(),
            sent: VecDeque::new(),
            asked: VecDeque::new(),
            answers: VecDeque::new(),
            break_due: false,
            deaf: false,
        }
    }

    pub(super) fn run(mut self) -> Result<Report, String> {
        let publications = self.rng.random_range(5..50);
        let mut published = 0;
        while published < publications {
            if self.rng.random_bool(self.chances.publish) {
                self.publish()?;
                published += 1;
            } else if self.rng.random_bool(0.1) {
                self.misfortune();
            } else {
                self.something_moves()?;
            }
        }
        self.rest()?;
        if !self.weather.breaks || !self.weather.history || self.weather.failovers {
            // The sweep compares once more.
            self.asked.push_back(Asked::Last);
            self.rest()?;
        }
        self.checker.at_rest(&self.stream)?;
        if self.weather.calm && self.report.questions + self.report.gaps > 0 {
            return Err(format!(
                "it asked or told a gap in a calm: {:?}",
                self.report
            ));
        }
        Ok(self.report)
    }

    /// Lets everything arrive that is on its way.
    fn rest(&mut self) -> Result<(), String> {
        if self.break_due || self.deaf {
            self.break_feed();
        }
        for _ in 0..STEPS_MAX {
            if self.feed.is_empty() && self.asked.is_empty() && self.answers.is_empty() {
                return Ok(());
            }
            self.something_moves()?;
        }
        Err(format!("never comes to rest: {self:#?}"))
    }

    fn publish(&mut self) -> Result<(), String> {
        self.moment += 1;
        self.stream.now_ms += self.rng.random_range(0..4);
        let large = !self.weather.calm && self.rng.random_bool(self.chances.large);
        let data = if large { &LARGE[..] } else { b"1" };
        let random = self.random();
        let entry = self.stream.publish(random, Bytes::from_static(data));
        self.checker.published(entry.position, self.moment)?;
        if self.deaf || self.chance(self.chances.lose) {
            self.report.lost_on_the_feed += 1;
            self.break_due = true;
            return Ok(());
        }
        self.sent.truncate(DOUBLED_WITHIN - 1);
        self.sent.push_front(entry.clone());
        self.feed.push_back(OnFeed::Entry(entry));
        if self.weather.doubles || self.chance(self.chances.double) {
            let again = self.rng.random_range(0..self.sent.len());
            self.feed.push_back(OnFeed::Entry(self.sent[again].clone()));
        }
        Ok(())
    }

    /// The random part of the next id. That it makes an id which was lost has a chance of one in a
    /// million, or needs a clock that shows the very millisecond of the last id; runs are judged
    /// without it.
    fn random(&mut self) -> u32 {
        let last = self.stream.last().unwrap_or_default();
        if self.weather.counts_on && self.stream.now_ms < last.ms {
            return 0;
        }
        loop {
            let random = self.rng.random();
            let next = position_after(last, self.stream.now_ms, random);
            if !self.checker.knows(next) {
                return random;
            }
            self.stream.now_ms += u64::from(self.stream.now_ms == last.ms);
        }
    }

    /// A break that was due, a failover, or time that passes.
    fn misfortune(&mut self) {
        if self.chance(self.chances.fail_over) {
            self.fail_over();
        } else if (self.break_due && self.weather.breaks) || self.deaf {
            self.break_feed();
        } else if self.chance(0.1) {
            self.stream.now_ms += self.rng.random_range(0..50);
        }
    }

    fn break_feed(&mut self) {
        self.deaf = false;
        self.break_due = false;
        if self.weather.breaks {
            self.feed.push_back(OnFeed::Break);
        }
    }

    fn fail_over(&mut self) {
        self.report.failovers += 1;
        self.moment += 1;
        let lost = self.rng.random_range(0..6);
        // Also far behind what is left: the old one's clock was ahead.
        let back_ms = match self.rng.random_bool(0.5) {
            true => self.rng.random_range(0..20),
            false => self.rng.random_range(0..60_000),
        };
        self.stream.lose_newest(lost, self.stream.now_ms - back_ms);
        self.sent.clear();
        // What the old one had sent may still be read, from where it got to.
        let read = self.rng.random_range(0..=self.feed.len());
        self.feed.truncate(read);
        self.deaf = true;
    }

    fn something_moves(&mut self) -> Result<(), String> {
        self.moment += 1;
        let [feed, questions, answers] = self.chances.pace;
        match self.rng.random_range(0..feed + questions + answers) {
            n if n < feed => match self.take_from_feed() {
                Some(OnFeed::Entry(entry)) => {
                    self.checker.reached(entry.position);
                    let steps = self.judge.arrived(entry);
                    self.take(steps)
                }
                Some(OnFeed::Break) => {
                    self.asked.push_back(Asked::Last);
                    Ok(())
                }
                None => Ok(()),
            },
            n if n < feed + questions => {
                let at = self.place(self.asked.len());
                if let Some(question) = self.asked.remove(at) {
                    let answer = self.answer(question);
                    self.answers.push_back(answer);
                }
                Ok(())
            }
            _ => {
                let at = self.place(self.answers.len());
                match self.answers.remove(at) {
                    Some(answer) => self.answered(answer),
                    None => Ok(()),
                }
            }
        }
    }

    fn take_from_feed(&mut self) -> Option<OnFeed> {
        let at = if self.weather.reorders {
            self.place(self.feed.len())
        } else {
            0
        };
        self.feed.remove(at)
    }

    /// Which of so many comes first: mostly the oldest.
    fn place(&mut self, count: usize) -> usize {
        if self.chance(self.chances.reorder) {
            self.rng.random_range(0..count.max(1))
        } else {
            0
        }
    }

    fn answer(&mut self, question: Asked) -> Answer {
        if self.chance(self.chances.silence) {
            self.report.unanswered += 1;
            return Answer::None(question);
        }
        match question {
            Asked::Sequencer(question) => {
                self.report.questions += 1;
                match question {
                    Question::Since(since) => {
                        let entries_max = self.rng.random_range(1..8);
                        Answer::Since(since, self.stream.since(since, entries_max))
                    }
                    Question::Newest => Answer::Newest(self.stream.newest(RECENT_MAX)),
                }
            }
            Asked::Last => Answer::Last(self.stream.last().unwrap_or_default()),
        }
    }

    fn answered(&mut self, answer: Answer) -> Result<(), String> {
        let steps = match answer {
            Answer::Since(since, page) => self.judge.answered(since, page),
            Answer::Newest(entries) => self.judge.newest(entries),
            Answer::Last(newest) if newest != self.judge.last() => self.judge.check(),
            Answer::Last(_) => Vec::new(),
            Answer::None(Asked::Last) => {
                self.asked.push_back(Asked::Last);
                Vec::new()
            }
            Answer::None(Asked::Sequencer(question)) => self.judge.unanswered(question),
        };
        self.take(steps)
    }

    fn take(&mut self, steps: Vec<Step>) -> Result<(), String> {
        for step in steps {
            match step {
                Step::Deliver(entry) => {
                    self.report.delivered += 1;
                    self.checker.deliver(&entry, &self.stream)?;
                }
                Step::Gap { from, to, reason } => {
                    self.report.gaps += 1;
                    if reason == fanfare_protocol::event::GapReason::Failover {
                        self.report.failover_gaps += 1;
                    }
                    self.checker
                        .gap(from, to, reason, &self.stream, self.moment)?;
                }
                Step::Ask(question) | Step::AskLater(question) => {
                    self.asked.push_back(Asked::Sequencer(question));
                }
                Step::Duplicate => self.report.duplicates += 1,
                Step::Overflow => {
                    self.report.overflows += 1;
                    self.checker.overflowed();
                }
            }
        }
        Ok(())
    }

    fn chance(&mut self, of_one: f64) -> bool {
        !self.weather.calm && self.rng.random_bool(of_one)
    }
}
