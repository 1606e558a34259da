//! The handle: when tokens are taken, and what another node's word counts for.

use super::*;
use crate::revocation::adding::{Added, Adding, Asked};
use crate::revocation::memory::Held;
use crate::revocation::store_rig::add;
use crate::revocation::user_name;
use fanfare_protocol::ids::{App, User};

fn bearer<'a>(app: &'a App, user: &'a User) -> Bearer<'a> {
    Bearer {
        app,
        user,
        id: None,
        issued: 0,
    }
}

fn read(known: &Revocations, reader: &mut Reader, held: &Held) {
    let mut since = reader.begin();
    while let Next::Ask(next) = known.take(&held.read(since, 1), reader) {
        since = next;
    }
    known.settled(Instant::now(), reader);
}

#[test]
fn no_token_is_taken_before_the_first_reading_and_long_after_the_last() {
    let (app, user) = (App::default_app(), User::new("ada").unwrap());
    assert_eq!(
        Revocations::default().judge(bearer(&app, &user)),
        Judgement::Valid
    );
    let known = Revocations::clustered(Duration::from_millis(500));
    assert_eq!(known.judge(bearer(&app, &user)), Judgement::Unread);
    assert!(known.is_new() && !Revocations::default().is_new());
    let reader = Reader::default();
    known.joined();
    known.settled(Instant::now(), &reader);
    assert!(!known.is_new());
    assert_eq!(known.judge(bearer(&app, &user)), Judgement::Valid);
    let late = Revocations::clustered(Duration::from_millis(500));
    late.settled(Instant::now() - Duration::from_millis(401), &reader);
    assert_eq!(late.judge(bearer(&app, &user)), Judgement::Unread);
    assert_eq!(
        late.unread(),
        Some("revocations could not be read for too long, so no token is taken")
    );
    let long = Revocations::clustered(Duration::from_secs(60));
    long.settled(Instant::now() - STALE_AFTER_MAX, &reader);
    assert!(long.unread().is_some());
}

#[test]
fn what_was_read_before_the_node_became_a_member_does_not_count() {
    let (app, user) = (App::default_app(), User::new("ada").unwrap());
    let known = Revocations::clustered(Duration::from_secs(5));
    let reader = Reader::default();
    let before = Instant::now() - Duration::from_millis(1);
    known.settled(before, &reader);
    known.joined();
    assert_eq!(known.judge(bearer(&app, &user)), Judgement::Unread);
    assert!(known.is_new(), "it is not ready either");
    // That reading was under way when it joined.
    known.settled(before, &reader);
    assert_eq!(known.judge(bearer(&app, &user)), Judgement::Unread);
    known.settled(Instant::now(), &reader);
    assert_eq!(known.judge(bearer(&app, &user)), Judgement::Valid);
    // It lost its lease and has another one.
    known.joined();
    assert_eq!(known.judge(bearer(&app, &user)), Judgement::Unread);
    assert!(!known.is_new(), "sessions stay");
}

#[test]
fn what_is_revoked_is_refused_though_nothing_could_be_read_since() {
    let (app, user) = (App::default_app(), User::new("ada").unwrap());
    let (known, mut held, mut reader) = (
        Revocations::clustered(Duration::from_millis(500)),
        Held::default(),
        Reader::default(),
    );
    let name = user_name(&app, &user);
    held.add(&adding(&name), 1_000, 0);
    read(&known, &mut reader, &held);
    known.settled(Instant::now() - Duration::from_secs(9), &reader);
    assert_eq!(known.judge(bearer(&app, &user)), Judgement::Revoked);
    assert_eq!(known.size().0, 1);
    assert!(!known.take_news().is_empty() && known.take_news().is_empty());
}

fn adding(name: &str) -> Adding {
    Adding {
        asked: vec![Asked {
            name: name.into(),
            issued_before: None,
            until_ms: None,
        }],
        kept_ms: 10_000,
        most: 10,
        ..Adding::default()
    }
}

#[test]
fn what_another_node_read_counts_only_where_it_is_of_the_same_history() {
    let (known, mut held, mut reader) = (
        Revocations::clustered(Duration::from_secs(5)),
        Held::default(),
        Reader::default(),
    );
    assert_eq!(
        held.add(&adding("u default ada"), 1_000, 0),
        Added::Stored(2)
    );
    read(&known, &mut reader, &held);
    let (names, first) = (["u default ada".into()], known.read_to());
    assert!(known.covers(first, &names, 2));
    assert!(
        !known.covers(first, &names, 3),
        "a stronger one was not read yet"
    );
    assert!(!known.covers(first - 1, &names, 2), "it was not added yet");
    assert!(
        !known.covers(first + 1, &names, 2),
        "nobody knows that change"
    );
    assert!(!known.covers(first, &["u default bob".into()], 2));
    held.add(&adding("u default bob"), 1_000, 0);
    read(&known, &mut reader, &held);
    assert!(known.covers(known.read_to(), &names, 2) && known.covers(first, &names, 2));
    assert!(!known.covers(first, &["u default bob".into()], 2));
    // The store has lost all of it.
    let lost = Held::default();
    let Next::Ask(0) = known.take(&lost.read(reader.begin(), 1), &mut reader) else {
        panic!("the store lacks something");
    };
    assert!(!known.covers(first, &names, 2));
}

#[test]
fn what_sessions_send_is_held_once_while_nothing_was_read_for_too_long() {
    let known = Revocations::clustered(Duration::from_secs(60));
    let (mut held, mut reader) = (Held::default(), Reader::default());
    let now = Instant::now();
    assert_eq!(known.holds(now), Some(now), "nothing was read yet");
    assert_eq!(known.holds(now + HELD_MAX / 2), Some(now));
    assert_eq!(
        known.holds(now + HELD_MAX),
        None,
        "not for as long as it cannot read"
    );
    add(&mut held, "u default ada", 1);
    read(&known, &mut reader, &held);
    assert_eq!(known.holds(Instant::now()), None);
    // It was dead to the others, and they promised without it.
    known.joined();
    let now = Instant::now();
    assert_eq!(known.holds(now), Some(now));
    read(&known, &mut reader, &held);
    assert_eq!(known.holds(Instant::now()), None);
    let opened_at = Instant::now();
    known.await_told(Some(opened_at));
    assert_eq!(known.holds(Instant::now()), Some(opened_at));
    read(&known, &mut reader, &held);
    assert_eq!(
        known.holds(Instant::now()),
        None,
        "that was read, though not told yet"
    );
    known.await_told(None);
    assert_eq!(
        Revocations::default().holds(now),
        None,
        "there is nobody else"
    );
}
