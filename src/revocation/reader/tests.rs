//! What a node makes of pages of a store that loses, lacks or is wrong.

use super::*;
use crate::revocation::{Mark, PRINTS, print_of};

fn row(name: &str, at: u64) -> Row {
    Row {
        name: name.into(),
        mark: Mark {
            issued_before: at,
            until_ms: 1_000,
        },
        at,
    }
}

/// What a store with these rows answers.
fn page(held: &[Row], since: u64) -> Page {
    let sum = held.iter().map(|row| print_of(&row.name, row.mark));
    let later = held.iter().filter(|row| row.at > since).take(PAGE);
    Page {
        now_ms: 10,
        count: held.len() as u64,
        sum: sum.fold(0, |sum, print| (sum + print) % PRINTS),
        ..Page::of(later.cloned().collect())
    }
}

struct Rig {
    reader: Reader,
    table: Table,
    news: News,
}

impl Rig {
    fn new() -> Self {
        Self {
            reader: Reader::default(),
            table: Table::default(),
            news: News::default(),
        }
    }

    fn take(&mut self, page: &Page) -> Next {
        self.reader.take(page, &mut self.table, &mut self.news)
    }
}

#[test]
fn only_what_changed_is_read_while_nothing_is_lost() {
    let mut rig = Rig::new();
    let mut held = vec![row("a default", 5)];
    assert_eq!(rig.reader.begin(), 0);
    assert_eq!(rig.take(&page(&held, 0)), Next::Settled);
    assert_eq!(rig.reader.read_to(), Some(5));
    held.push(row("u default ada", 9));
    assert_eq!(rig.reader.begin(), 5);
    assert_eq!(rig.take(&page(&held, 5)), Next::Settled);
    assert_eq!((rig.reader.read_to(), rig.table.len()), (Some(9), 2));
}

#[test]
fn full_pages_are_followed_to_the_end() {
    let mut rig = Rig::new();
    let name = |at: u64| format!("u default user-{at}");
    let held: Vec<_> = (1..=2_500).map(|at| row(&name(at), at)).collect();
    let mut next = Next::Ask(rig.reader.begin());
    let mut asked = Vec::new();
    while let Next::Ask(since) = next {
        asked.push(since);
        next = rig.take(&page(&held, since));
    }
    assert_eq!((next, asked), (Next::Settled, vec![0, 1_000, 2_000]));
    assert_eq!(rig.reader.read_to(), Some(2_500));
}

#[test]
fn what_a_failover_lost_is_written_back_once() {
    let mut rig = Rig::new();
    let held = [row("a default", 5), row("u default ada", 9)];
    rig.reader.begin();
    rig.take(&page(&held, 0));
    // The last change is lost, and another one has a lower number than it had.
    let mut held = vec![held[0].clone(), row("u default bob", 7)];
    rig.reader.begin();
    assert_eq!(rig.take(&page(&held, 9)), Next::Ask(0));
    assert_eq!(rig.reader.read_to(), None, "nothing is promised meanwhile");
    let Next::WriteBack(lacking) = rig.take(&page(&held, 0)) else {
        panic!("the store lacks something");
    };
    assert_eq!(lacking, [row("u default ada", 9)]);
    assert_eq!(rig.reader.written_back(true), Next::Ask(7));
    held.push(Row {
        at: 12,
        ..lacking[0].clone()
    });
    assert_eq!(rig.take(&page(&held, 7)), Next::Settled);
    assert_eq!((rig.reader.read_to(), rig.table.len()), (Some(12), 3));
}

#[test]
fn a_store_whose_sum_is_wrong_is_mended_once_a_reading_and_read_again() {
    let mut rig = Rig::new();
    let held = [row("a default", 5), row("u default ada", 9)];
    let wrong = |since| Page {
        sum: 1,
        ..page(&held, since)
    };
    assert_eq!(rig.reader.begin(), 0);
    assert_eq!(rig.take(&wrong(0)), Next::Ask(0));
    let mend = Next::Mend {
        seen: (2, 1),
        unreadable: Vec::new(),
    };
    assert_eq!(rig.take(&wrong(0)), mend);
    assert_eq!(rig.reader.mended(&mut rig.table), Next::Ask(0));
    assert_eq!(rig.take(&wrong(0)), Next::Settled, "once");
    assert_eq!(rig.reader.read_to(), None);
    for _ in 0..RESTS {
        rig.reader.begin();
        rig.take(&wrong(9));
    }
    rig.reader.mended(&mut rig.table);
    assert_eq!(rig.take(&page(&held, 0)), Next::Settled);
    assert_eq!(rig.reader.read_to(), Some(9));
}

#[test]
fn an_entry_that_cannot_be_read_is_dropped_and_written_back_by_who_knows_it() {
    let mut rig = Rig::new();
    let held = [row("a default", 5), row("u default ada", 9)];
    rig.reader.begin();
    rig.take(&page(&held, 0));
    let broken = |since| Page {
        found: 2,
        up_to: Some(9),
        unreadable: vec![b"u default ada".to_vec()],
        count: 2,
        ..page(&held[..1], since)
    };
    // Somebody who knows nothing reads what can be read.
    let mut new = Rig::new();
    new.reader.begin();
    assert_eq!(new.take(&broken(0)), Next::Ask(0));
    let Next::Mend { unreadable, .. } = new.take(&broken(0)) else {
        panic!("what cannot be read is to be dropped");
    };
    assert_eq!(unreadable, [b"u default ada".to_vec()]);
    assert_eq!(new.reader.mended(&mut new.table), Next::Ask(0));
    assert_eq!(new.take(&page(&held[..1], 0)), Next::Settled);
    assert_eq!((new.reader.read_to(), new.table.len()), (Some(5), 1));
    // And who knows it finds that the store lacks it.
    rig.reader.begin();
    assert_eq!(rig.take(&page(&held[..1], 9)), Next::Ask(0));
    let next = rig.take(&page(&held[..1], 0));
    assert_eq!(next, Next::WriteBack(vec![held[1].clone()]));
}

#[test]
fn a_difference_that_another_node_mends_in_time_is_not_looked_into() {
    let mut rig = Rig::new();
    let mut held = vec![row("a default", 5), row("u default ada", 9)];
    rig.reader.begin();
    rig.take(&page(&held, 0));
    let lost = held.pop().unwrap();
    rig.reader.stagger(2);
    for _ in 0..2 {
        let since = rig.reader.begin();
        assert_eq!(rig.take(&page(&held, since)), Next::Settled);
        assert_eq!(rig.reader.read_to(), None, "nothing is promised meanwhile");
    }
    held.push(Row { at: 12, ..lost });
    let since = rig.reader.begin();
    assert_eq!(rig.take(&page(&held, since)), Next::Settled);
    assert_eq!(rig.reader.read_to(), Some(12));
    // And where nobody does, after two readings.
    held.pop();
    for _ in 0..2 {
        let since = rig.reader.begin();
        assert_eq!(rig.take(&page(&held, since)), Next::Settled);
    }
    let since = rig.reader.begin();
    assert_eq!(rig.take(&page(&held, since)), Next::Ask(0));
}

#[test]
fn what_is_new_is_read_also_while_everything_is() {
    let mut rig = Rig::new();
    let name = |at: u64| format!("u default user-{at}");
    let mut held: Vec<_> = (1..=1_500).map(|at| row(&name(at), at)).collect();
    rig.reader.begin();
    for since in [0, 1_000] {
        rig.take(&page(&held, since));
    }
    assert_eq!(rig.reader.is_looking(), None);
    held.remove(7);
    rig.reader.begin();
    assert_eq!(rig.take(&page(&held, 1_500)), Next::Ask(0));
    assert_eq!(rig.take(&page(&held, 0)), Next::Ask(1_001));
    held.push(row("a default", 1_600));
    assert_eq!(rig.reader.is_looking(), Some(1_500));
    let new = page(&held, 1_500);
    assert!(rig.reader.take_new(&new, &mut rig.table, &mut rig.news));
    assert_eq!(rig.reader.is_looking(), Some(1_600));
    let Next::WriteBack(lacking) = rig.take(&page(&held, 1_001)) else {
        panic!("the store lacks something");
    };
    assert_eq!(lacking, [row(&name(8), 8)], "and nothing that is new");
}

#[test]
fn a_store_that_takes_nothing_back_is_not_read_whole_all_the_time() {
    let mut rig = Rig::new();
    rig.reader.begin();
    rig.take(&page(&[row("a default", 5)], 0));
    let mut wholes = 0;
    for _ in 0..25 {
        let mut next = Next::Ask(rig.reader.begin());
        loop {
            next = match next {
                Next::Ask(since) => rig.take(&page(&[], since)),
                Next::WriteBack(_) => {
                    wholes += 1;
                    rig.reader.written_back(false)
                }
                Next::Mend { .. } => panic!("what the store lacks is no reason to mend it"),
                Next::Settled => break,
            };
        }
        assert_eq!(rig.reader.read_to(), None);
    }
    assert_eq!(wholes, 2, "and more and more seldom");
}
