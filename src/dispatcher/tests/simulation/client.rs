//! One session at its worker, and its client.
//!
//! In: its next small step. Out: questions to the broker, and at the end a verdict about what the
//! client has read. It subscribes as a session does: joins, waits until the topic is live, with
//! `since` asks the broker where that begins, then answers its client and is let through, all in
//! one step. Marks among the frames say where each stay begins, and after which number, and where it
//! ends. Promised is: from there every number once and in order; with history no gap, because all is
//! kept; without, gaps over exactly what is missing; and in fair weather none at all.

use serde::Deserialize;
use tokio::sync::oneshot::Receiver;

use super::world::{Line, TOPICS};
use crate::broker::SincePage;
use crate::seeds::Verdict;
use crate::worker::Join;
use crate::worker::by_hand::ByHand;
use crate::worker::catchup::{Pull, ReadPage};
use crate::worker::hub::SessionKey;
use fanfare_protocol::ids::Position;

/// The mark at the end of a stay.
const LEFT: u64 = 1;
/// Marks from here on begin a stay after the publication whose number is added.
const BEGUN: u64 = 1_000;
const MARKS_PER_TOPIC: u64 = 1_000_000;

/// How a session stands in a topic.
#[derive(Debug, Default)]
enum Stay {
    #[default]
    Out,
    /// Not live yet; then it wants to begin live, or after this number.
    Joining(Option<Receiver<()>>, Option<usize>),
    /// The broker is asked where that is, by the question of this number.
    Asking(u64),
    In,
}

/// What the session wants to know.
#[derive(Debug)]
pub(super) enum Wanted {
    Start(Start),
    Page(Pull),
}

/// Where a reader begins who left a topic after a number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) topic: usize,
    pub(super) since: usize,
    question: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) worker: usize,
    pub(super) key: SessionKey,
    stays: [Stay; TOPICS],
    /// Questions for a beginning so far.
    count: u64,
    rests: Vec<Pull>,
    bytes: Vec<u8>,
}

impl Client {
    pub(super) fn new(worker: usize, key: SessionKey) -> Self {
        Self {
            worker,
            key,
            stays: Default::default(),
            count: 0,
            rests: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Subscribes live or after a number, or leaves where it is in.
    pub(super) fn come_or_go(
        &mut self,
        worker: &ByHand,
        topic: usize,
        line: &Line,
        since: Option<usize>,
    ) {
        self.stays[topic] = match self.stays[topic] {
            Stay::Out => match worker
                .worker
                .join(self.key, &line.topic, line.has_history())
            {
                Join::Live => Stay::Joining(None, since),
                Join::Waiting(answer) => Stay::Joining(Some(answer), since),
            },
            ref stay => {
                let was_in = matches!(stay, Stay::In);
                worker.worker.leave(self.key, &line.topic);
                if was_in {
                    worker.mark(self.key, topic as u64 * MARKS_PER_TOPIC + LEFT);
                }
                Stay::Out
            }
        };
    }

    /// Begins where the topic is live, or asks where.
    pub(super) fn begin(&mut self, worker: &ByHand, topic: usize, line: &Line) -> Option<Wanted> {
        let Stay::Joining(answer, since) = &mut self.stays[topic] else {
            return None;
        };
        if answer.as_mut().is_some_and(|a| a.try_recv().is_err()) {
            return None;
        }
        if let Some(since) = *since {
            self.count += 1;
            let question = self.count;
            self.stays[topic] = Stay::Asking(question);
            return Some(Wanted::Start(Start {
                topic,
                since,
                question,
            }));
        }
        let begins = worker.worker.begin_live(self.key, &line.topic);
        self.begun(worker, topic, line, begins.expect("it joined"));
        None
    }

    /// The broker has said where it begins that left after `since`.
    pub(super) fn started(
        &mut self,
        worker: &ByHand,
        start: Start,
        line: &Line,
        page: &SincePage,
    ) -> Verdict {
        let Start {
            topic,
            since,
            question,
        } = start;
        if !matches!(self.stays[topic], Stay::Asking(asked) if asked == question) {
            // It left meanwhile.
            return Ok(());
        }
        let begins = worker.worker.begin_after(self.key, &line.topic, page.start);
        self.begun(worker, topic, line, begins);
        if line.has_history() && begins != line.positions[since] {
            return Err(format!("resumed at {begins} and not after {since}"));
        }
        Ok(())
    }

    /// The client is told, and what follows comes behind that.
    fn begun(&mut self, worker: &ByHand, topic: usize, line: &Line, begins: Position) {
        self.stays[topic] = Stay::In;
        let number = line.number(begins).expect("every position has a number") as u64;
        worker.mark(self.key, topic as u64 * MARKS_PER_TOPIC + BEGUN + number);
    }

    /// The page that the session should read now.
    pub(super) fn catch_up(&mut self, worker: &ByHand, now_ms: u64) -> Option<Wanted> {
        worker.worker.catch_up(self.key, now_ms).map(Wanted::Page)
    }

    /// A page that could not be read, or brings nothing, is asked for again later.
    pub(super) fn page(&mut self, worker: &ByHand, pull: Pull, page: Option<&SincePage>) {
        let goes_on = page.is_some_and(|page| {
            let bytes_max = worker.worker.page_bytes_max();
            let page = ReadPage::new(&pull.topic, page.clone(), bytes_max);
            worker.worker.page(self.key, &pull, &page, 0)
        });
        if !goes_on {
            self.rests.push(pull);
        }
    }

    pub(super) fn ask_again(&mut self, worker: &ByHand) {
        if let Some(pull) = self.rests.pop() {
            worker.worker.pull_again(self.key, &pull);
        }
    }

    pub(super) fn read(&mut self, worker: &ByHand, bytes_max: usize) {
        worker.read(self.key, bytes_max, &mut self.bytes);
    }

    pub(super) fn is_quiet(&self, worker: &ByHand) -> bool {
        let is_settled = |stay: &Stay| matches!(stay, Stay::Out | Stay::In);
        self.rests.is_empty()
            && !worker.is_catching_up(self.key)
            && worker.worker.is_flushed(self.key)
            && self.stays.iter().all(is_settled)
    }

    /// Everything has arrived: what is missing now is missing for good.
    pub(super) fn judge(&self, lines: &[Line; TOPICS], is_fair: bool, told: &mut Told) -> Verdict {
        let mut reached: [Option<usize>; TOPICS] = [None; TOPICS];
        let read: Vec<_> = frames(&self.bytes).collect();
        let whole = || read.iter().map(|f| String::from_utf8_lossy(f));
        for frame in &read {
            let event: Frame = serde_json::from_slice(frame).map_err(|e| e.to_string())?;
            let verdict = event.judge(&mut reached, lines, is_fair, told);
            verdict.map_err(|what| format!("{what}\n{:#?}", whole().collect::<Vec<_>>()))?;
        }
        for (line, reached) in lines.iter().zip(reached) {
            let newest = line.positions.len() - 1;
            if reached.is_some_and(|reached| reached != newest) {
                let what = format!("{} ends at {reached:?}, not at {newest}", line.topic);
                return Err(format!("{what}\n{:#?}", whole().collect::<Vec<_>>()));
            }
        }
        Ok(())
    }
}

/// What clients were told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) messages: u64,
    pub(super) gaps: u64,
    pub(super) stays: u64,
}

#[derive(Debug, Deserialize)]
struct Frame<'a> {
    id: Option<u64>,
    topic: Option<&'a str>,
    data: Option<usize>,
    from: Option<Position>,
    to: Option<Position>,
}

impl Frame<'_> {
    fn judge(
        &self,
        reached: &mut [Option<usize>; TOPICS],
        lines: &[Line; TOPICS],
        is_fair: bool,
        told: &mut Told,
    ) -> Verdict {
        if let Some(id) = self.id {
            let topic = usize::try_from(id / MARKS_PER_TOPIC).expect("few topics");
            let begun = (id % MARKS_PER_TOPIC).checked_sub(BEGUN);
            told.stays += u64::from(begun.is_some());
            reached[topic] = begun.and_then(|number| usize::try_from(number).ok());
            return Ok(());
        }
        let topic = lines
            .iter()
            .position(|l| Some(l.topic.name()) == self.topic);
        let topic = topic.ok_or(format!("{self:?} of no topic"))?;
        let line = &lines[topic];
        let reached = reached[topic].as_mut();
        let reached = reached.ok_or(format!("{self:?} outside of a stay"))?;
        if let Some(number) = self.data {
            told.messages += 1;
            if number != *reached + 1 {
                return Err(format!("{number} follows {reached}"));
            }
            *reached = number;
            return Ok(());
        }
        told.gaps += 1;
        let place = |position: Option<Position>| position.and_then(|p| line.number(p));
        let (Some(from), Some(to)) = (place(self.from), place(self.to)) else {
            return Err(format!("{self:?} is nowhere"));
        };
        if line.has_history() || is_fair {
            return Err(format!("{self:?} was told, and nothing is gone"));
        }
        if from > *reached || to <= *reached {
            return Err(format!("{self:?} ({from} to {to}) was told at {reached}"));
        }
        *reached = to;
        Ok(())
    }
}

/// The payloads of whole unmasked text frames, one after the other.
pub(in crate::dispatcher::tests) fn frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let [0x81, length, rest @ ..] = bytes else {
            assert!(bytes.is_empty(), "no whole text frame");
            return None;
        };
        let (length, rest) = match (length, rest) {
            (126, [high, low, rest @ ..]) => (u16::from_be_bytes([*high, *low]).into(), rest),
            (short, rest) => (usize::from(*short), rest),
        };
        let (payload, rest) = rest.split_at(length);
        bytes = rest;
        Some(payload)
    })
}
