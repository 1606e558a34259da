//! The store of apps: what is put, removed and read, and its bounds.

use fanfare::apps::store::{BYTES_MAX, Page, Put, Store};
use fanfare::broker::Broker;

use crate::rig::Rig;

fn store(rig: &Rig) -> Store {
    match &*rig.broker {
        Broker::Redis(redis) => Store::redis(redis.bulk(), redis.keys()),
        Broker::Memory(_) => Store::memory(),
    }
}

async fn put(store: &Store, name: &str, json: &str) -> Put {
    store.put(name, json).await.expect("an answer")
}

async fn remove(store: &Store, name: &str) -> bool {
    store.remove(name).await.expect("an answer")
}

async fn read(store: &Store, known: Option<&str>) -> Page {
    store.read(known).await.expect("an answer")
}

/// The number of the last change, and all apps by name.
async fn all(store: &Store) -> (String, Vec<(String, String)>) {
    let Page::All { number, rows } = read(store, None).await else {
        panic!("there are apps");
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let rows = rows
        .into_iter()
        .map(|(name, json)| (text(name), text(json)));
    let mut rows: Vec<_> = rows.collect();
    rows.sort();
    (number.into(), rows)
}

pub(crate) async fn apps_are_read_again_only_where_one_has_changed(rig: Rig) {
    let store = store(&rig);
    assert_eq!(read(&store, None).await, Page::Nothing);
    assert_eq!(put(&store, "shop", "{}").await, Put::Stored);
    let (first, rows) = all(&store).await;
    assert_eq!(rows, [("shop".into(), "{}".into())]);
    assert_eq!(read(&store, Some(&first)).await, Page::Same);
    assert_eq!(put(&store, "shop", "{}").await, Put::Same);
    assert_eq!(read(&store, Some(&first)).await, Page::Same);
    assert_eq!(put(&store, "shop", "{\"a\":1}").await, Put::Stored);
    assert_eq!(put(&store, "b", "\u{fc}\u{0}").await, Put::Stored);
    let (second, rows) = all(&store).await;
    assert_ne!(second, first);
    let wanted = [
        ("b".into(), "\u{fc}\u{0}".into()),
        ("shop".into(), "{\"a\":1}".into()),
    ];
    assert_eq!(rows, wanted);
    assert!(matches!(read(&store, Some(&first)).await, Page::All { .. }));
    assert_eq!(read(&store, Some(&second)).await, Page::Same);
}

pub(crate) async fn an_app_that_is_removed_is_gone_and_the_rest_stays(rig: Rig) {
    let store = store(&rig);
    assert!(!remove(&store, "shop").await);
    assert_eq!(read(&store, None).await, Page::Nothing);
    put(&store, "shop", "{}").await;
    put(&store, "b", "{}").await;
    let (before, _) = all(&store).await;
    assert!(remove(&store, "shop").await);
    assert!(!remove(&store, "shop").await);
    let (after, rows) = all(&store).await;
    assert_ne!(after, before);
    assert_eq!(rows, [("b".into(), "{}".into())]);
    assert!(remove(&store, "b").await);
    // Nobody takes this for a store that has lost all.
    let (_, rows) = all(&store).await;
    assert!(rows.is_empty());
}

pub(crate) async fn more_apps_or_bytes_than_may_be_are_not_stored(rig: Rig) {
    let store = store(&rig);
    let large = "x".repeat(BYTES_MAX / 4);
    for name in ["a", "b", "c"] {
        assert_eq!(put(&store, name, &large).await, Put::Stored);
    }
    let bytes = 4 * (large.len() as u64 + 1);
    assert_eq!(put(&store, "d", &large).await, Put::TooLarge(bytes));
    assert_eq!(put(&store, "c", "{}").await, Put::Stored);
    assert_eq!(put(&store, "d", &large).await, Put::Stored);
    for name in ["a", "b"] {
        put(&store, name, "{}").await;
    }
    for n in 4..1_000 {
        assert_eq!(
            put(&store, &format!("a{n}"), "{}").await,
            Put::Stored,
            "{n}"
        );
    }
    assert_eq!(put(&store, "one-more", "{}").await, Put::TooMany(1_000));
    assert_eq!(
        put(&store, "a4", "{\"b\":1}").await,
        Put::Stored,
        "one that is there"
    );
    let (_, rows) = all(&store).await;
    assert_eq!(rows.len(), 1_000);
}
