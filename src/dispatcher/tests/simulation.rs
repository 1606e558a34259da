//! Sessions that subscribe, resume and leave while messages come live, are repaired and are read
//! again: the dispatcher, its links, the feed's subscriptions and two workers, by a seed.
//!
//! In: a seed. Out: nothing, or the first thing that a client would have noticed. [`feed`] is Redis
//! as the feed sees it, with the real bookkeeping of subscriptions; [`world`] moves everything one
//! small step at a time, in any order; [`client`] does what a session does, and judges at the end
//! what its client has read. The weather of a seed loses, doubles and reorders what comes, breaks
//! the connection, leaves questions unanswered, fills queues and outboxes, or does nothing of that:
//! then not a single gap may be told.

mod client;
mod feed;
mod weather;
mod world;

use std::rc::Rc;

use tokio::net::{TcpListener, TcpStream};

use crate::seeds;
use crate::worker::stream;
pub(super) use client::frames;
use weather::Met;
use world::World;

/// A rule that is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    /// The last id is read only when the subscription is confirmed.
    Confirmation,
    /// Live messages at or below what a page brought are skipped.
    Skipping,
    /// A session goes live only when its pages have reached what the worker has seen.
    Reaching,
    /// At most one question about a topic is open.
    OneQuestion,
}

/// A socket for all sessions: nothing is written to it, but each has one.
async fn socket() -> Rc<stream::Stream> {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (socket, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    accepted.expect("a connection");
    Rc::new(socket.expect("a connection").into())
}

#[tokio::test]
async fn every_session_reads_all_from_where_it_began_once_and_in_order() {
    let socket = socket().await;
    let mut met = Met::default();
    let run = |seed| World::new(seed, &socket, None).run(&mut met);
    if seeds::each(seeds::COUNT, run) {
        // The weather was bad enough to mean something, and good enough in some runs.
        for (what, count) in met.counts() {
            assert!(count > 1_000, "{what}: {count} times only; {met:?}");
        }
    }
}

#[tokio::test]
async fn the_simulation_notices_when_a_rule_is_missing() {
    let socket = socket().await;
    for without in [
        Without::Confirmation,
        Without::Skipping,
        Without::Reaching,
        Without::OneQuestion,
    ] {
        let failed = seeds::first_failure(|seed| {
            World::new(seed, &socket, Some(without)).run(&mut Met::default())
        });
        assert!(failed.is_some(), "{without:?} is not missed");
    }
}
