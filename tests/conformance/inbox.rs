//! The acknowledged position of an inbox: the cursor.

use fanfare::broker::{Acked, FeedEvent, InboxSummary};
use fanfare::config::Retention;
use fanfare_protocol::ids::{Position, SessionId, Topic};

use crate::rig::{HISTORY, Rig, message, publication, topic};

const SESSION: SessionId = SessionId(7);

fn inbox() -> Topic {
    topic("@anna")
}

async fn ack(rig: &Rig, position: Position) -> Acked {
    let answer = rig.broker.ack(&inbox(), position, SESSION, HISTORY).await;
    answer.expect("the broker is up")
}

async fn summary(rig: &Rig) -> InboxSummary {
    let answer = rig.broker.inbox(&inbox(), HISTORY).await;
    answer.expect("the broker is up")
}

pub(crate) async fn an_untouched_inbox_is_empty(rig: Rig) {
    assert_eq!(summary(&rig).await, InboxSummary::default());
    // Zero stands before everything, so there it is no news, and anything else is ahead.
    assert_eq!(
        ack(&rig, Position::ZERO).await,
        Acked::Cursor(Position::ZERO)
    );
    let ahead = Position { ms: 1, seq: 0 };
    assert_eq!(ack(&rig, ahead).await, Acked::AboveNewest);
    assert_eq!(summary(&rig).await, InboxSummary::default());
}

pub(crate) async fn the_cursor_moves_only_forward(rig: Rig) {
    let at = rig.publish_count(&inbox(), HISTORY, 4).await;
    assert_eq!(summary(&rig).await.cursor, None);
    assert_eq!(ack(&rig, at[2]).await, Acked::Cursor(at[2]));
    for lower in [at[0], at[2], Position::ZERO] {
        assert_eq!(ack(&rig, lower).await, Acked::Cursor(at[2]));
        assert_eq!(summary(&rig).await.cursor, Some(at[2]));
    }
    assert_eq!(ack(&rig, at[3]).await, Acked::Cursor(at[3]));
    assert_eq!(summary(&rig).await.cursor, Some(at[3]));
}

pub(crate) async fn a_position_above_the_newest_is_refused(rig: Rig) {
    let at = rig.publish_count(&inbox(), HISTORY, 2).await;
    ack(&rig, at[0]).await;
    let ahead = Position {
        seq: at[1].seq + 1,
        ..at[1]
    };
    let far_ahead = Position {
        ms: u64::MAX,
        seq: u64::MAX,
    };
    for above in [ahead, far_ahead] {
        assert_eq!(ack(&rig, above).await, Acked::AboveNewest);
        assert_eq!(summary(&rig).await.cursor, Some(at[0]));
    }
}

pub(crate) async fn a_cursor_that_moved_is_told_once(mut rig: Rig) {
    let inbox = inbox();
    let unheard = rig.publish(&inbox, HISTORY, "1").await;
    ack(&rig, unheard).await;
    rig.hear(&inbox).await;
    let position = rig.publish(&inbox, HISTORY, "2").await;
    let above = Position {
        seq: position.seq + 1,
        ..position
    };
    for answered in [unheard, above, position, position, unheard] {
        ack(&rig, answered).await;
    }
    rig.publish(&inbox, HISTORY, "3").await;
    assert_eq!(message(&rig.delivery().await.1), &publication("2"));
    let told = FeedEvent::Acked {
        topic: inbox,
        position,
        session: SESSION,
    };
    assert_eq!(rig.next().await, told);
    assert_eq!(message(&rig.delivery().await.1), &publication("3"));
}

pub(crate) async fn new_messages_stand_in_a_later_millisecond_than_the_cursor(rig: Rig) {
    // A promoted replica may have the cursor but not the message; its ids must not begin below.
    for _ in 0..50 {
        let before = rig.publish(&inbox(), HISTORY, "1").await;
        ack(&rig, before).await;
        let after = rig.publish(&inbox(), HISTORY, "2").await;
        assert!(
            after.ms > before.ms,
            "{after} comes after the cursor {before}"
        );
        let next = rig.publish(&inbox(), HISTORY, "3").await;
        assert!(next > after);
    }
}

pub(crate) async fn pending_is_what_lies_above_the_cursor(rig: Rig) {
    let three = Retention {
        entries_max: 3,
        ..HISTORY
    };
    let at = rig.publish_count(&inbox(), three, 5).await;
    let expected = |cursor, pending| InboxSummary {
        cursor,
        last: at[4],
        pending,
    };
    assert_eq!(summary(&rig).await, expected(None, 3));
    ack(&rig, at[0]).await;
    assert_eq!(summary(&rig).await, expected(Some(at[0]), 3));
    ack(&rig, at[3]).await;
    assert_eq!(summary(&rig).await, expected(Some(at[3]), 1));
    ack(&rig, at[4]).await;
    assert_eq!(summary(&rig).await, expected(Some(at[4]), 0));
}

pub(crate) async fn pending_is_counted_up_to_a_thousand(rig: Rig) {
    let at = rig.publish_count(&inbox(), HISTORY, 1_005).await;
    assert_eq!(summary(&rig).await.pending, 1_000);
    ack(&rig, at[4]).await;
    assert_eq!(summary(&rig).await.pending, 1_000);
    ack(&rig, at[5]).await;
    assert_eq!(summary(&rig).await.pending, 999);
}
