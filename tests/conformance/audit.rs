//! The audit: what is written stands there, newest first, and the oldest makes room.

use fanfare::broker::audit::{AuditEntry, ENTRIES_MAX, TARGET_BYTES_MAX};
use fanfare_protocol::ids::Position;

use crate::rig::Rig;

fn entry(target: &str) -> AuditEntry {
    AuditEntry {
        time_ms: 1_732_190_000_000,
        client: "billing".into(),
        app: "default".into(),
        operation: "disconnect".into(),
        target: target.into(),
        address: "192.0.2.7".into(),
    }
}

pub(crate) async fn an_entry_is_told_as_it_was_written(rig: Rig) {
    let broker = &rig.broker;
    assert_eq!(broker.audited(None, 10).await, Ok(vec![]));
    let odd = "ä\r\n\0 *1\r\n$4 \u{1b}[31m";
    for target in ["one", odd, ""] {
        broker.audit(entry(target)).await.expect("written");
    }
    let told = broker.audited(None, 10).await.expect("read");
    let entries: Vec<_> = told.iter().map(|one| one.entry.clone()).collect();
    assert_eq!(entries, ["", odd, "one"].map(entry));
    assert!(
        told.windows(2).all(|pair| pair[0].id > pair[1].id),
        "{told:?}"
    );
    let long = "é".repeat(TARGET_BYTES_MAX);
    broker.audit(entry(&long)).await.expect("written");
    let told = broker.audited(None, 1).await.expect("read");
    assert_eq!(told[0].entry.target, "é".repeat(TARGET_BYTES_MAX / 2));
}

pub(crate) async fn pages_of_the_audit_give_each_entry_once(rig: Rig) {
    let broker = &rig.broker;
    for n in 0..25 {
        broker.audit(entry(&n.to_string())).await.expect("written");
    }
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = broker.audited(before, 10).await.expect("read");
        let Some(last) = page.last() else {
            break;
        };
        before = Some(last.id);
        seen.extend(page.into_iter().map(|one| one.entry.target));
    }
    let wanted: Vec<_> = (0..25).rev().map(|n| n.to_string()).collect();
    assert_eq!(seen, wanted);
    assert_eq!(broker.audited(None, 0).await, Ok(vec![]));
    assert_eq!(broker.audited(Some(Position::ZERO), 10).await, Ok(vec![]));
}

pub(crate) async fn the_oldest_entries_make_room(rig: Rig) {
    let broker = &rig.broker;
    let of_another = AuditEntry {
        client: "bill".into(),
        ..entry("of another")
    };
    broker.audit(of_another.clone()).await.expect("written");
    let most = ENTRIES_MAX + 300;
    for begin in (0..most).step_by(100) {
        let writes = (begin..begin + 100).map(|n| broker.audit(entry(&n.to_string())));
        for written in futures_util::future::join_all(writes).await {
            written.expect("written");
        }
    }
    let (mut count, mut before, mut oldest) = (0, None, Vec::new());
    loop {
        let page = broker.audited(before, 1_000).await.expect("read");
        let Some(last) = page.last() else {
            break;
        };
        before = Some(last.id);
        count += page.len();
        oldest = page
            .into_iter()
            .map(|one| one.entry)
            .rev()
            .take(2)
            .collect();
    }
    assert_eq!(count, ENTRIES_MAX);
    // Nobody washes out what another client did: of the busy one alone the oldest are gone.
    assert_eq!(oldest, [of_another, entry("301")]);
}
