//! What is known of stored apps, reading by reading.

use super::super::store::Row;
use super::*;
use crate::config::load::defaults;

fn filed(apps: &[&str]) -> Filed {
    let config = defaults();
    let of_default = Arc::new(AppSettings::of_default(&config));
    let names = apps.iter().chain(&["default"]);
    let settings = names.map(|name| (app(name), Arc::clone(&of_default)));
    Filed {
        settings: settings.collect(),
        inherited: config.inherited,
    }
}

fn app(name: &str) -> App {
    App::new(name).unwrap()
}

/// A node's knowledge, and how far it has read.
struct Rig {
    known: Known,
    since: ReadTo,
}

/// A stored app: name, JSON, life and number of the last change.
type Stored<'a> = (&'a [u8], &'a str, u64, u64);

fn row<'a>(name: &'a str, json: &'a str, life: u64, number: u64) -> Stored<'a> {
    (name.as_bytes(), json, life, number)
}

impl Rig {
    fn new(of_file: &[&str]) -> Self {
        Self {
            known: Known::new(filed(of_file), |_| Ok(())),
            since: ReadTo::default(),
        }
    }

    /// Reads a store with these apps. What was asked for, and what is told.
    fn read(&mut self, stored: &[Stored<'_>], change: impl FnOnce(&mut Index)) -> (usize, News) {
        let rows = stored.iter().map(|(name, json, life, number)| Row {
            name: name.to_vec(),
            bytes: json.len(),
            mark: Mark {
                life: *life,
                number: *number,
            },
        });
        let last = stored.iter().map(|(.., number)| *number).max();
        let mut index = Index {
            number: last.unwrap_or(1).max(self.since.number).to_string().into(),
            rows: rows.collect(),
            ..Index::default()
        };
        change(&mut index);
        let found = self.known.compare(&index, self.since, false);
        let mut news = self.known.take(&found);
        for (app, mark, _) in &found.wanted {
            let of_it = stored
                .iter()
                .find(|(name, ..)| *name == app.as_str().as_bytes());
            let json = Bytes::copy_from_slice(of_it.unwrap().1.as_bytes());
            let judged = self.known.judge().judge(&json);
            news.merge(self.known.put(app, &json, *mark, judged));
        }
        self.since = ReadTo {
            number: index.read_to(),
            others: index.others,
        };
        (found.wanted.len(), news)
    }

    fn take(&mut self, stored: &[Stored<'_>]) -> News {
        self.read(stored, |_| {}).1
    }

    /// The history of an app that is in force, and its life.
    fn kept(&self, name: &str) -> Option<(u32, Option<u64>)> {
        let merged = self.known.merged();
        let settings = merged.get(&app(name))?;
        let history = settings.namespaces["default"].history_entries_max;
        Some((history, settings.life))
    }

    fn refused_count(&self) -> usize {
        self.known.refused().count()
    }
}

/// The removals of an index.
fn removed(names: &[&str]) -> impl FnOnce(&mut Index) {
    let names: Vec<_> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
    move |index| index.removed = names.into_iter().map(|name| (name, 9)).collect()
}

const HISTORY_5: &str = r#"{"namespaces":{"default":{"history_entries_max":5}}}"#;
const HISTORY_6: &str = r#"{"namespaces":{"default":{"history_entries_max":6}}}"#;
const FAULTY: &str = r#"{"namespaces":{"default":{"history_entries_max":"x"}}}"#;

#[test]
fn what_is_stored_is_in_force_and_only_what_is_new_is_read() {
    let mut rig = Rig::new(&[]);
    let (shop, b) = (row("shop", HISTORY_5, 1, 1), row("b", "{}", 2, 2));
    let (wanted, news) = rig.read(&[shop, b], |_| {});
    assert_eq!(
        (wanted, &*news.changed),
        (2, &["shop", "b"].map(String::from)[..])
    );
    assert_eq!(rig.kept("shop"), Some((5, Some(1))));
    assert_eq!(rig.known.merged().len(), 3, "and default");
    assert_eq!(rig.read(&[shop, b], |_| {}), (0, News::default()));
    let shop = row("shop", HISTORY_6, 1, 3);
    let (wanted, news) = rig.read(&[shop], removed(&["b"]));
    assert_eq!(wanted, 1);
    assert_eq!(
        (&*news.changed, &*news.removed),
        (&["shop".to_owned()][..], &["b".to_owned()][..])
    );
    assert_eq!(rig.kept("shop"), Some((6, Some(1))));
    assert_eq!(rig.kept("b"), None);
}

#[test]
fn what_is_missing_and_was_not_removed_is_lost_and_stays_and_is_told_once() {
    let mut rig = Rig::new(&[]);
    let all = [
        row("shop", HISTORY_5, 1, 1),
        row("b", "{}", 2, 2),
        row("c", "{}", 3, 3),
    ];
    rig.take(&all);
    assert_eq!(rig.known.rows_count(), 3);
    // Redis has lost all, and somebody has put one of them again.
    let again = row("b", "{}", 2, 4);
    let news = rig.take(&[again]);
    assert_eq!(news.lost, ["c", "shop"]);
    assert!(news.removed.is_empty(), "{news:?}");
    assert_eq!(rig.kept("shop"), Some((5, Some(1))));
    assert_eq!(rig.known.rows_count(), 1);
    assert!(rig.take(&[again]).lost.is_empty(), "told before");
    // One is put back, and the other removed.
    rig.known.is_back(&app("shop"), Mark { life: 1, number: 5 });
    let shop = row("shop", HISTORY_5, 1, 5);
    let (wanted, news) = rig.read(&[again, shop], removed(&["c"]));
    assert_eq!((wanted, &*news.removed), (0, &["c".to_owned()][..]));
    assert_eq!(rig.known.lost().count(), 0);
}

#[test]
fn what_is_missing_was_removed_where_the_store_has_forgotten_or_others_have_changed_it() {
    let all = [
        row("shop", HISTORY_5, 1, 1),
        row("b", "{}", 2, 2),
        row("c", "{}", 3, 3),
    ];
    let read = |change: fn(&mut Index)| {
        let mut rig = Rig::new(&[]);
        rig.take(&all);
        let (wanted, news) = rig.read(&all[..1], change);
        (wanted, news.removed.len(), news.lost.len())
    };
    assert_eq!(read(|index| index.forgot = 4), (0, 2, 0));
    assert_eq!(
        read(|index| index.forgot = 3),
        (0, 0, 2),
        "forgotten before"
    );
    // Of a change by a node of the release before nothing is told but that there was one.
    assert_eq!(read(|index| index.others = 1), (1, 0, 2));
    assert_eq!(read(|index| index.others = 2), (1, 2, 0));
}

#[test]
fn an_app_of_another_life_is_another_also_with_equal_settings_or_with_faults() {
    let mut rig = Rig::new(&[]);
    rig.take(&[row("shop", HISTORY_5, 1, 1)]);
    let before = rig.known.merged();
    let news = rig.take(&[row("shop", HISTORY_5, 2, 2)]);
    assert_eq!(news.changed, ["shop"]);
    let now = rig.known.merged();
    let (before, now) = (&before[&app("shop")], &now[&app("shop")]);
    assert!(now.is_other_than(before) && before.is_other_than(now));
    assert!(!now.is_other_than(&now.clone()));
    // Of the one before nothing stays in force.
    let news = rig.take(&[row("shop", FAULTY, 3, 3)]);
    assert_eq!(
        (&*news.removed, news.refused.len()),
        (&["shop".to_owned()][..], 1)
    );
    assert_eq!(rig.kept("shop"), None);
    // A store that has lost what it says of lives has not lost the app.
    rig.take(&[row("shop", HISTORY_5, 4, 4)]);
    rig.take(&[row("shop", HISTORY_6, 0, 0)]);
    assert_eq!(rig.kept("shop"), Some((6, Some(4))));
}

#[test]
fn an_app_of_the_release_before_has_life_0_and_is_another_when_it_is_made_anew() {
    let mut rig = Rig::new(&[]);
    rig.take(&[row("shop", HISTORY_5, 0, 0)]);
    assert_eq!(rig.kept("shop"), Some((5, Some(0))));
    let before = rig.known.merged();
    rig.take(&[row("shop", HISTORY_5, 7, 7)]);
    let now = rig.known.merged();
    assert!(now[&app("shop")].is_other_than(&before[&app("shop")]));
    // What moves to the file or back is the same.
    assert!(!now[&app("shop")].is_other_than(&filed(&[]).settings[&app("default")]));
}

#[test]
fn a_row_with_faults_leaves_the_app_as_it_was_and_is_told_once() {
    let mut rig = Rig::new(&[]);
    rig.take(&[row("shop", HISTORY_5, 1, 1)]);
    let faulty = [
        row("shop", FAULTY, 1, 2),
        row("new", "{", 3, 3),
        row("Not An App", "{}", 0, 0),
        row("default", "{}", 0, 0),
        (&b"\xff"[..], "", 0, 0),
    ];
    let news = rig.take(&faulty);
    let told: BTreeSet<_> = news.refused.iter().map(|(name, _)| name.as_str()).collect();
    let names = ["shop", "new", "Not An App", "default", "\u{fffd}"];
    assert_eq!(told, BTreeSet::from(names));
    let (_, of_shop) = news
        .refused
        .iter()
        .find(|(name, _)| name == "shop")
        .unwrap();
    assert!(of_shop[0].starts_with("namespaces.default.history_entries_max: "));
    assert!(!news.is_change(), "{news:?}");
    assert_eq!(rig.kept("shop"), Some((5, Some(1))));
    assert_eq!(rig.kept("new"), None);
    assert_eq!(rig.refused_count(), 5);
    assert_eq!(rig.take(&faulty), News::default(), "told before");
    // Nor are they told again after a change of another app, nor when all are read anew.
    let mut more = faulty.to_vec();
    more.push(row("other", "{}", 4, 4));
    let (wanted, news) = rig.read(&more, |index| index.others = 1);
    assert_eq!((wanted, news.refused.len()), (3, 0), "{news:?}");
    assert_eq!(news.changed, ["other"]);
    let news = rig
        .read(&[row("shop", HISTORY_6, 1, 5)], removed(&["new", "other"]))
        .1;
    assert_eq!(news.changed, ["shop"]);
    assert_eq!(rig.refused_count(), 0);
}

#[test]
fn the_file_wins_and_what_was_stored_comes_back_when_the_file_drops_it() {
    let mut rig = Rig::new(&["shop"]);
    let news = rig.take(&[row("shop", HISTORY_5, 1, 1)]);
    assert_eq!(news.overridden, ["shop"]);
    assert!(!news.is_change());
    assert_eq!(rig.kept("shop"), Some((1_000, None)));
    assert_eq!(rig.known.refile(filed(&[])), News::default());
    assert_eq!(rig.kept("shop"), Some((5, Some(1))));
    let news = rig.known.refile(filed(&["shop"]));
    assert_eq!(
        news.overridden,
        ["shop"],
        "it is told when the file hides it"
    );
    assert_eq!(rig.known.refile(filed(&["shop"])), News::default());
    assert_eq!(rig.kept("shop"), Some((1_000, None)));
    let news = rig.read(&[], removed(&["shop"])).1;
    assert!(news.removed.is_empty(), "the file still has it");
    assert_eq!(rig.kept("shop"), Some((1_000, None)));
}

#[test]
fn what_another_file_judges_otherwise_is_told_as_a_reading_tells_it() {
    let mut rig = Rig::new(&[]);
    rig.take(&[row("shop", HISTORY_5, 1, 1), row("b", "{}", 2, 2)]);
    assert!(rig.known.judged_before().is_empty());
    rig.known.refile(filed(&[]));
    assert_eq!(rig.known.judged_before(), [app("b"), app("shop")]);
    let json = Bytes::from_static(HISTORY_5.as_bytes());
    let mark = Mark { life: 1, number: 1 };
    let judge = rig.known.judge();
    let news = rig.known.put(
        &app("shop"),
        &json,
        mark,
        judge.judged(Err(vec!["no".into()])),
    );
    assert_eq!(news.refused, [("shop".to_owned(), vec!["no".to_owned()])]);
    assert_eq!(rig.kept("shop"), Some((5, Some(1))), "it stays in force");
    assert_eq!(rig.known.judged_before(), [app("b")]);
    let judge = rig.known.judge();
    let judged = judge.judge(&json);
    let news = rig.known.put(&app("shop"), &json, mark, judged);
    assert_eq!(news, News::default(), "it is as it was");
}

#[test]
fn an_app_that_is_set_has_a_bound_of_namespaces_and_one_that_is_there_has_not() {
    let rig = Rig::new(&[]);
    let json = |count: usize| {
        let names = (1..count).map(|n| (format!("n{n}"), serde_json::json!({})));
        let names: serde_json::Map<_, _> = names.collect();
        serde_json::json!({ "namespaces": names }).to_string()
    };
    let judge = rig.known.judge();
    let most = judge.read_new(json(NAMESPACES_MAX).as_bytes()).unwrap();
    assert_eq!(most.namespaces.len(), NAMESPACES_MAX);
    let faults = judge
        .read_new(json(NAMESPACES_MAX + 1).as_bytes())
        .unwrap_err();
    assert!(
        faults.0[0].what.contains("namespaces has 201"),
        "{faults:?}"
    );
    assert!(judge.read(json(NAMESPACES_MAX + 1).as_bytes()).is_ok());

    // Of all together too; what is there may be set again and made smaller.
    let (mut rig, large) = (rig, Bytes::from(json(4_001)));
    for n in 0..5 {
        let judged = rig.known.judge().judge(&large);
        let mark = Mark { life: 1, number: 1 };
        rig.known.put(&app(&format!("a{n}")), &large, mark, judged);
    }
    assert_eq!(rig.known.has_room(&app("a0"), 4_002), Err(20_006));
    assert_eq!(rig.known.has_room(&app("a0"), 4_001), Ok(()));
    assert_eq!(rig.known.has_room(&app("a0"), 3), Ok(()));
    assert_eq!(rig.known.has_room(&app("new"), 1), Err(20_006));
}
