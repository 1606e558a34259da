//! A third app, which the API makes, changes, removes and makes again while the run goes on.
//!
//! In: the stage. Out: one session of it after the other, in a topic that has the name of one of the
//! other apps. A change that lets nobody join ends the topic with `unsubscribed`, the next one lets the
//! session come back, and a removal ends it with 4002. What has not followed within [`FOLLOWS_WITHIN`]
//! is broken, and whatever of another app comes through is a leak. Owner: the run's thread. Bound: one
//! session, and one call at a time.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use fanfare_bench::socket::{Scratch, SocketError};
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::app::App;
use super::calls;
use super::history::Event;
use super::run::Run;
use super::speech::{Form, Speech};
use super::stage::{NAMESPACE, Stage};

/// How long it stays as it is.
const HOLDS: Duration = Duration::from_secs(2);
/// Until what was set is in force: an outage of Redis, the next look at what is stored, and what a node
/// needs to come back.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(60);
/// A failover may lose what was set, so it is set again.
const SET_AGAIN: Duration = Duration::from_secs(8);
/// Between two looks, and two attempts.
const REST: Duration = Duration::from_millis(200);
/// Longest wait for an answer, and for a sign of life.
const ANSWER_PATIENCE: Duration = Duration::from_secs(4);
const HEARTBEAT: Duration = Duration::from_secs(2);
const SILENCE_MAX: Duration = Duration::from_secs(6);
/// The end of a session whose app is gone.
const CODE_DISCONNECTED: u16 = 4002;
/// Removals after which at least one session must have got that: any other was cut off by a fault.
const REMOVALS_ENOUGH: u32 = 3;

/// See the module.
pub(crate) struct Third {
    run: Rc<Run>,
    stage: Rc<Stage>,
    scratch: Scratch,
    is_open: Cell<bool>,
    is_joined: Cell<bool>,
    changes: Cell<u32>,
    removals: Cell<u32>,
    /// Sessions that ended with 4002.
    ended: Cell<u32>,
}

impl Third {
    /// One that is not there yet.
    pub(crate) fn new(run: &Rc<Run>, stage: &Rc<Stage>, scratch: &Scratch) -> Rc<Self> {
        Rc::new(Self {
            run: Rc::clone(run),
            stage: Rc::clone(stage),
            scratch: Rc::clone(scratch),
            is_open: Cell::default(),
            is_joined: Cell::default(),
            changes: Cell::default(),
            removals: Cell::default(),
            ended: Cell::default(),
        })
    }

    /// Goes through all of it again and again until the run is over.
    pub(crate) async fn live(self: Rc<Self>) {
        let session = tokio::task::spawn_local(Rc::clone(&self).sessions());
        while !self.run.is_over.get() {
            self.set(Some("anyone"), "joined", || self.is_joined.get())
                .await;
            sleep(HOLDS).await;
            self.set(Some("nobody"), "left its topic", || !self.is_joined.get())
                .await;
            self.set(Some("anyone"), "joined again", || self.is_joined.get())
                .await;
            sleep(HOLDS).await;
            self.set(None, "ended", || !self.is_open.get()).await;
        }
        session.abort();
        let counts = [&self.changes, &self.removals, &self.ended];
        let [changes, removals, ended] = counts.map(Cell::get);
        self.run.say(&format!(
            "the third app was set {changes} times and removed {removals} times; {ended} \
             sessions ended with {CODE_DISCONNECTED}"
        ));
        if removals >= REMOVALS_ENOUGH && ended == 0 {
            let what = format!("no session of an app that was removed got {CODE_DISCONNECTED}");
            self.run.broken(what);
        }
    }

    /// Lets the app have this right to join, or removes it, and waits until the session has followed.
    async fn set(&self, subscribe: Option<&str>, word: &str, has_followed: impl Fn() -> bool) {
        let begun = Instant::now();
        while !self.run.is_over.get() {
            for node in 0..self.stage.nodes_count() {
                if self.call(node, subscribe).await {
                    break;
                }
                sleep(REST).await;
            }
            let set = Instant::now();
            while set.elapsed() < SET_AGAIN {
                if has_followed() {
                    let count = if subscribe.is_some() {
                        &self.changes
                    } else {
                        &self.removals
                    };
                    return count.set(count.get() + 1);
                }
                sleep(REST).await;
            }
            if begun.elapsed() > FOLLOWS_WITHIN {
                let what = format!("a session of the third app has not {word}");
                return self.run.broken(what);
            }
        }
    }

    /// Whether it was done.
    async fn call(&self, node: usize, subscribe: Option<&str>) -> bool {
        let settings = subscribe.map(|subscribe| {
            let namespace = json!({"subscribe": subscribe, "publish": "anyone"});
            json!({"namespaces": {NAMESPACE: namespace}})
        });
        let call = calls::set_app(self.stage.api(node), App::Third, settings.as_ref());
        let answer = timeout(ANSWER_PATIENCE, call).await.ok().flatten();
        let is_gone = |status| settings.is_none() && status == StatusCode::NOT_FOUND;
        match answer {
            Some(answer) if answer.status == StatusCode::BAD_REQUEST => {
                self.run
                    .broken(format!("an app was refused: {}", answer.text()));
                false
            }
            Some(answer) => answer.status == StatusCode::OK || is_gone(answer.status),
            None => false,
        }
    }

    async fn sessions(self: Rc<Self>) {
        for node in (0..self.stage.nodes_count()).cycle() {
            let ended = self.session(node).await;
            self.is_open.set(false);
            self.is_joined.set(false);
            if let Err(SocketError::Closed { code, .. }) = ended
                && code == CODE_DISCONNECTED
            {
                self.ended.set(self.ended.get() + 1);
            }
            sleep(REST).await;
        }
    }

    async fn session(&self, node: usize) -> Result<(), SocketError> {
        let (to, user) = (self.stage.door(node, true), (App::Third, "user-0"));
        let mut speech = Speech::open(to, user, Form::Json, false, &self.scratch).await?;
        let (mut events, mut asks) = (Vec::new(), tokio::time::interval(HEARTBEAT / 4));
        speech.send(&json!({"type": "connect", "id": 1})).await?;
        let subscribe = json!({"type": "subscribe", "id": 2, "topic": format!("{NAMESPACE}:0")});
        speech.rest(&mut events).await?;
        let mut heard = Instant::now();
        loop {
            let mut ended = Ok(());
            tokio::select! {
                read = speech.read(&mut events) => {
                    ended = read;
                    heard = Instant::now();
                }
                _ = asks.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        return Err(SocketError::TimedOut);
                    }
                    // What is refused is asked for again; where it is joined, this is a sign of life.
                    if self.is_open.get() {
                        speech.send(&subscribe).await?;
                    }
                }
            }
            for event in events.drain(..) {
                self.hear(&event);
            }
            ended?;
        }
    }

    fn hear(&self, event: &Value) {
        match event["type"].as_str().unwrap_or_default() {
            "welcome" => self.is_open.set(true),
            "ok" if event["id"] == 2 => self.is_joined.set(true),
            "unsubscribed" => self.is_joined.set(false),
            // Nobody publishes in this app.
            "message" => {
                let what = format!("a session of the third app got {event}");
                self.run.push(Event::BetweenApps { what });
            }
            _ => {}
        }
    }
}
