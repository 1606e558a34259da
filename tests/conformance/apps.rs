//! The store of apps: what is put, removed and read, and its bounds.

use bytes::Bytes;
use fanfare::apps::store::{BYTES_MAX, Before, Index, Mark, Page, Put, REMOVALS_MAX, Store};
use fanfare::broker::Broker;

use crate::rig::Rig;

fn store(rig: &Rig) -> Store {
    match &*rig.broker {
        Broker::Redis(redis) => Store::redis(redis.bulk(), redis.keys()),
        Broker::Memory(_) => Store::memory(),
    }
}

async fn put(store: &Store, name: &str, json: &str) -> Put {
    let put = store.put(name, json.as_bytes(), Before::default());
    put.await.expect("an answer")
}

/// The same, which is stored.
async fn stored(store: &Store, name: &str, json: &str) -> Mark {
    match put(store, name, json).await {
        Put::Stored(mark) => mark,
        other => panic!("{name}: {other:?}"),
    }
}

async fn remove(store: &Store, name: &str) -> bool {
    store.remove(name, false).await.expect("an answer")
}

async fn index(store: &Store) -> Index {
    match store.read(None).await.expect("an answer") {
        Page::All(index) => index,
        other => panic!("{other:?}"),
    }
}

async fn is_same(store: &Store, known: &Index) -> bool {
    let known = Some((&*known.number, known.rows.len()));
    store.read(known).await.expect("an answer") == Page::Same
}

/// What is said of all apps, and their JSON by name.
async fn all(store: &Store) -> (Index, Vec<(String, String)>) {
    let index = index(store).await;
    let names: Vec<_> = index.rows.iter().map(|row| row.name.clone()).collect();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let mut rows = Vec::new();
    for some in names.chunks(64) {
        let read = store.rows(some).await.expect("an answer");
        for (name, json) in some.iter().zip(read) {
            rows.push((text(name), text(&json.expect("it is there"))));
        }
    }
    for (row, (_, json)) in index.rows.iter().zip(&rows) {
        assert_eq!(row.bytes, json.len());
    }
    rows.sort();
    (index, rows)
}

pub(crate) async fn apps_are_read_again_only_where_one_has_changed(rig: Rig) {
    let store = store(&rig);
    assert!(index(&store).await.rows.is_empty());
    let first = stored(&store, "shop", "{}").await;
    assert!(first.life > 0 && first.life == first.number, "{first:?}");
    let (known, rows) = all(&store).await;
    assert_eq!(rows, [("shop".into(), "{}".into())]);
    assert_eq!(known.rows[0].mark, first);
    assert!(is_same(&store, &known).await);
    assert_eq!(put(&store, "shop", "{}").await, Put::Same(first));
    assert!(is_same(&store, &known).await);
    let second = stored(&store, "shop", "{\"a\":1}").await;
    assert_eq!(second.life, first.life, "it is the same app");
    assert!(second.number > first.number);
    let third = stored(&store, "b", "\u{fc}\u{0}").await;
    assert!(third.life > second.number);
    assert!(!is_same(&store, &known).await);
    let (known, rows) = all(&store).await;
    let wanted = [
        ("b".into(), "\u{fc}\u{0}".into()),
        ("shop".into(), "{\"a\":1}".into()),
    ];
    assert_eq!(rows, wanted);
    assert!(is_same(&store, &known).await);
    let mut marks: Vec<_> = known.rows.iter().map(|row| row.mark).collect();
    marks.sort_by_key(|mark| mark.life);
    assert_eq!(marks, [second, third]);
    let missing = store.rows(&[b"none".to_vec(), b"shop".to_vec()]).await;
    let json = Bytes::from_static(b"{\"a\":1}");
    assert_eq!(missing.expect("an answer"), [None, Some(json)]);
}

pub(crate) async fn an_app_that_is_removed_is_gone_and_has_another_life_later(rig: Rig) {
    let store = store(&rig);
    assert!(!remove(&store, "shop").await);
    let first = stored(&store, "shop", "{}").await;
    stored(&store, "b", "{}").await;
    let known = index(&store).await;
    assert!(remove(&store, "shop").await);
    assert!(!remove(&store, "shop").await);
    assert!(!is_same(&store, &known).await);
    let (after, rows) = all(&store).await;
    assert_eq!(rows, [("b".into(), "{}".into())]);
    // Whoever has read up to there knows that it was removed.
    let is_told = after
        .removed
        .iter()
        .any(|(name, number)| name == b"shop" && *number > known.read_to());
    assert!(is_told || after.forgot > known.read_to(), "{after:?}");
    // Also whoever has not read that makes another app.
    let before = Before {
        life: Some(first.life),
        read_to: known.read_to(),
    };
    let again = match store.put("shop", b"{}", before).await.expect("an answer") {
        Put::Stored(mark) => mark,
        other => panic!("{other:?}"),
    };
    assert!(again.life > first.number, "{again:?} after {first:?}");
    assert!(remove(&store, "shop").await);
    let back = store.put_back("shop", b"{}", before).await;
    assert_eq!(back.expect("an answer"), Put::Removed);
    assert!(remove(&store, "b").await);
    assert!(index(&store).await.rows.is_empty());
}

pub(crate) async fn more_apps_or_bytes_than_may_be_are_not_stored(rig: Rig) {
    let store = store(&rig);
    let large = "x".repeat(BYTES_MAX / 4);
    for name in ["a", "b", "c"] {
        stored(&store, name, &large).await;
    }
    let bytes = 4 * (large.len() as u64 + 1);
    assert_eq!(put(&store, "d", &large).await, Put::TooLarge(bytes));
    stored(&store, "c", "{}").await;
    stored(&store, "d", &large).await;
    for name in ["a", "b"] {
        stored(&store, name, "{}").await;
    }
    for n in 4..1_000 {
        stored(&store, &format!("a{n}"), "{}").await;
    }
    assert_eq!(put(&store, "one-more", "{}").await, Put::TooMany(1_000));
    stored(&store, "a4", "{\"b\":1}").await;
    let (_, rows) = all(&store).await;
    assert_eq!(rows.len(), 1_000);
}

pub(crate) async fn of_removals_the_newest_are_remembered(rig: Rig) {
    let store = store(&rig);
    let mut numbers = Vec::new();
    for n in 0..REMOVALS_MAX + 2 {
        let name = format!("a{n}");
        numbers.push(stored(&store, &name, "{}").await.number);
        assert!(remove(&store, &name).await);
    }
    let index = index(&store).await;
    assert!(
        index.removed.len() <= REMOVALS_MAX,
        "{}",
        index.removed.len()
    );
    // Of each removal it is known that there was one.
    for (n, number) in numbers.into_iter().enumerate() {
        let name = format!("a{n}").into_bytes();
        let is_there = index.removed.iter().any(|(removed, _)| *removed == name);
        assert!(is_there || index.forgot > number, "{n}");
    }
}
