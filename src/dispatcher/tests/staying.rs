//! Leaving a topic and coming right back: what belongs to the earlier stay must not be taken for
//! the later one's.
//!
//! In: a dispatcher that nobody runs, so that the test decides when a confirmation or an answer
//! comes. Out: what the worker's queue carries.

use tokio::sync::mpsc::Receiver;

use super::*;
use crate::dispatcher::pace::JITTER;

struct Still {
    broker: Arc<Broker>,
    dispatcher: Dispatcher,
    queue: Receiver<Inbound>,
    metrics: Arc<Metrics>,
    bare: Topic,
    /// The worker's wishes so far.
    wishes: u64,
    /// Kept open; nothing comes from it, because the broker's task is not run.
    _feed: Feed,
}

impl Still {
    fn new() -> Self {
        let metrics = Arc::new(Metrics::new(1));
        let (memory, feed) = MemoryBroker::new(Clock::System, Arc::clone(&metrics));
        let broker = Arc::new(Broker::Memory(memory));
        let (handle, queue) = WorkerHandle::new(Arc::default());
        let dispatcher = Dispatcher::new(
            Arc::clone(&broker),
            config(),
            Arc::clone(&metrics),
            Arc::new(WorkerInterest::default()),
            vec![handle],
            Arc::default(),
        );
        Self {
            broker,
            dispatcher,
            queue,
            metrics,
            bare: topic("bare:room"),
            wishes: 0,
            _feed: feed,
        }
    }

    /// The worker wishes for the topic. Returns what will confirm the wish.
    fn join(&mut self) -> FeedEvent {
        self.wishes += 1;
        let wish = WishNumber(self.wishes);
        self.dispatcher.wish(0, self.bare.clone(), Some(wish));
        let stay = self.dispatcher.topics[&self.bare].stay;
        FeedEvent::Subscribed(vec![(self.bare.clone(), stay)])
    }

    fn leave(&mut self) {
        self.dispatcher.wish(0, self.bare.clone(), None);
    }

    /// Lets the broker answer what is asked, without handing the answer over.
    async fn answer(&mut self) -> Option<Answer> {
        // Nobody waits until a break is over.
        self.dispatcher.now += JITTER;
        self.dispatcher.ask();
        self.dispatcher.asking.next().await
    }

    /// Hands over this answer and all that follow from it.
    async fn take(&mut self, answer: Option<Answer>) {
        let mut next = answer;
        while let Some(answer) = next {
            self.dispatcher.answered(answer);
            next = self.answer().await;
        }
    }

    async fn confirmed(&mut self, event: FeedEvent) {
        self.dispatcher.feed_event(event);
        let answer = self.answer().await;
        self.take(answer).await;
    }

    async fn publish(&self) -> Position {
        publish(&self.broker, &config(), &self.bare).await
    }

    /// An entry of the feed, made upon this one.
    fn arrives(&mut self, prev: Position, position: Position) {
        let entry = Entry {
            prev,
            position,
            body: crate::broker::Body::Publication(Arc::new(publication())),
        };
        let topic = self.bare.clone();
        let trace = None;
        let event = FeedEvent::Delivery {
            topic,
            entry,
            trace,
        };
        self.dispatcher.feed_event(event);
    }

    /// The worker is joined here and then gets the next publication, without a gap.
    async fn stands_at(&mut self, position: Position) {
        let joined = Inbound::Joined {
            topic: self.bare.clone(),
            position,
            wish: WishNumber(self.wishes),
        };
        let told = self.queue.try_recv().expect("the join is answered");
        assert_eq!(format!("{told:?}"), format!("{joined:?}"));
        let next = self.publish().await;
        self.arrives(position, next);
        match self.queue.try_recv() {
            Ok(Inbound::Deliver(outgoing)) => assert_eq!(outgoing.position, next),
            other => panic!("expected {next}, got {other:?}"),
        }
        assert_eq!(self.metrics.control.gaps.get(), 0);
        assert_eq!(self.metrics.control.repairs.get(), 0);
    }
}

#[tokio::test]
async fn the_last_id_that_an_earlier_stay_asked_for_does_not_begin_the_later_one() {
    let mut still = Still::new();
    let confirmation = still.join();
    still.dispatcher.feed_event(confirmation);
    let old = still.answer().await;
    still.leave();
    let missed = still.publish().await;
    let confirmation = still.join();
    still.take(old).await;
    assert!(still.queue.try_recv().is_err(), "nobody is joined yet");
    still.confirmed(confirmation).await;
    still.stands_at(missed).await;
}

#[tokio::test]
async fn a_confirmation_of_an_earlier_stay_does_not_begin_the_later_one() {
    let mut still = Still::new();
    let old = still.join();
    still.leave();
    let confirmation = still.join();
    still.confirmed(old).await;
    assert!(still.queue.try_recv().is_err(), "nobody is joined yet");
    // The feed was silent on the topic between the two wishes.
    let missed = still.publish().await;
    still.confirmed(confirmation).await;
    still.stands_at(missed).await;
}

#[tokio::test]
async fn a_break_does_not_begin_a_stay_that_is_not_confirmed() {
    let mut still = Still::new();
    let confirmation = still.join();
    still
        .confirmed(FeedEvent::Break(FeedNumber::default()))
        .await;
    assert!(still.queue.try_recv().is_err(), "nobody is joined yet");
    let missed = still.publish().await;
    still.confirmed(confirmation).await;
    // What the break may have lost is asked for, and nothing is found missing.
    assert_eq!(still.metrics.control.repairs.get(), 1);
    assert_eq!(still.metrics.control.gaps.get(), 0);
    let told = still.queue.try_recv().expect("the join is answered");
    assert!(matches!(told, Inbound::Joined { position, .. } if position == missed));
}

#[tokio::test]
async fn an_answer_to_a_doubt_of_an_earlier_stay_does_not_settle_the_later_ones() {
    let mut still = Still::new();
    let confirmation = still.join();
    still.confirmed(confirmation).await;
    still.queue.try_recv().expect("joined");
    let doubt = |still: &mut Still| {
        let topic = still.bare.clone();
        still
            .dispatcher
            .step(&topic, |link, steps| link.check(steps));
    };
    doubt(&mut still);
    let old = still.answer().await;
    still.leave();
    let confirmation = still.join();
    still.confirmed(confirmation).await;
    still.queue.try_recv().expect("joined");
    doubt(&mut still);
    still.dispatcher.answered(old.expect("an answer"));
    let link = &still.dispatcher.topics[&still.bare].link;
    assert!(link.is_repairing(), "its own question is open");
}
