//! All entries that a node knows, and the judgement by them: pure.
//!
//! In: rows of the store, merged by maximum; what the store forgot. Out: whether a token is refused;
//! whether the table is what the store says that it has; which entries the store lacks. Bound: what
//! the store holds, and what it lost of that: [`super::ENTRIES_MAX`] entries and a failover's loss.

use rustc_hash::FxHashMap;

use super::{Mark, PRINTS, Row, all_name, print_of, token_name, user_name};
use fanfare_protocol::ids::{App, User};

/// Bytes of an entry beside its name: the row, its place in the map, and what the allocator adds.
pub const ENTRY_BYTES: usize = 128;

#[derive(Debug, Clone, Copy)]
struct Entry {
    mark: Mark,
    at: u64,
    /// The whole reading in which the store had this very mark.
    seen: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Table {
    entries: FxHashMap<Box<str>, Entry>,
    names_bytes: usize,
    sum: u64,
    /// The number of the present or last reading of everything.
    whole: u32,
}

/// What a token says that can be revoked.
#[derive(Debug, Clone, Copy)]
pub struct Bearer<'a> {
    /// Its app.
    pub app: &'a App,
    /// Its user.
    pub user: &'a User,
    /// Its `jti`.
    pub id: Option<&'a str>,
    /// Its `iat`, in unix seconds; 0 where it does not say.
    pub issued: u64,
}

impl Table {
    /// Whether a token is refused.
    #[must_use]
    pub fn refuses(&self, bearer: Bearer<'_>) -> bool {
        if self.entries.is_empty() {
            return false;
        }
        let Bearer {
            app,
            user,
            id,
            issued,
        } = bearer;
        let names = [Some(user_name(app, user)), Some(all_name(app))];
        let names = names.into_iter().flatten();
        let mut names = names.chain(id.map(|id| token_name(app, id)));
        names.any(|name| {
            let entry = self.entries.get(&name);
            entry.is_some_and(|entry| issued < entry.mark.issued_before)
        })
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// About how many bytes they take up.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.names_bytes + self.entries.len() * ENTRY_BYTES
    }

    /// The number of an entry's last change, where it is at least as strong as this.
    #[must_use]
    pub fn changed_at(&self, name: &str, issued_before: u64) -> Option<u64> {
        let entry = self.entries.get(name);
        let strong = entry.filter(|entry| entry.mark.issued_before >= issued_before);
        strong.map(|entry| entry.at)
    }

    /// Takes a row of the store. Returns whether more tokens are refused by it than before.
    pub fn take(&mut self, row: &Row) -> bool {
        let before = self.entries.get(&row.name).copied();
        let mark = before.map_or(row.mark, |entry| entry.mark.and(row.mark));
        let entry = Entry {
            mark,
            at: row.at,
            seen: if mark == row.mark { self.whole } else { 0 },
        };
        self.sum = (self.sum + print_of(&row.name, mark)) % PRINTS;
        if let Some(before) = before {
            self.sum = (self.sum + PRINTS - print_of(&row.name, before.mark)) % PRINTS;
        } else {
            self.names_bytes += row.name.len();
        }
        self.entries.insert(row.name.clone(), entry);
        before.is_none_or(|before| before.mark.issued_before < mark.issued_before)
    }

    /// Forgets what the store has forgotten: all that ended up to this time.
    pub fn expire(&mut self, until_ms: u64) {
        self.forget(|entry| entry.mark.until_ms <= until_ms);
    }

    fn forget(&mut self, is_over: impl Fn(&Entry) -> bool) {
        let (sum, bytes) = (&mut self.sum, &mut self.names_bytes);
        self.entries.retain(|name, entry| {
            let stays = !is_over(entry);
            if !stays {
                *sum = (*sum + PRINTS - print_of(name, entry.mark)) % PRINTS;
                *bytes -= name.len();
            }
            stays
        });
    }

    /// Whether it is what the store has.
    #[must_use]
    pub fn agrees(&self, count: u64, sum: u64) -> bool {
        self.entries.len() as u64 == count && self.sum == sum
    }

    /// Everything will be read: what comes from now on is what the store has.
    pub fn begin_whole(&mut self) {
        self.whole += 1;
    }

    /// Everything was read. Returns what the store lacks, or has weaker, and forgets what has ended
    /// meanwhile.
    pub fn end_whole(&mut self, now_ms: u64) -> Vec<Row> {
        let whole = self.whole;
        self.forget(|entry| entry.seen != whole && entry.mark.until_ms <= now_ms);
        let lacking = self.entries.iter().filter(|(_, entry)| entry.seen != whole);
        let rows = lacking.map(|(name, entry)| Row {
            name: name.clone(),
            mark: entry.mark,
            at: entry.at,
        });
        rows.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::{Target, name_of};

    fn row(target: Target, issued_before: u64, until_ms: u64, at: u64) -> Row {
        Row {
            name: name_of(&App::default_app(), &target),
            mark: Mark {
                issued_before,
                until_ms,
            },
            at,
        }
    }

    fn user(name: &str) -> User {
        User::new(name).unwrap()
    }

    fn refuses(table: &Table, name: &str, id: Option<&str>, issued: u64) -> bool {
        table.refuses(Bearer {
            app: &App::default_app(),
            user: &user(name),
            id,
            issued,
        })
    }

    #[test]
    fn tokens_are_refused_by_user_by_name_and_all_at_once() {
        let mut table = Table::default();
        assert!(!refuses(&table, "ada", Some("x"), 0));
        assert!(table.take(&row(Target::User(user("ada")), 100, 1, 1)));
        assert!(refuses(&table, "ada", None, 99) && !refuses(&table, "ada", None, 100));
        assert!(refuses(&table, "ada", None, 0), "no `iat` is 0");
        assert!(!refuses(&table, "bob", None, 0));
        table.take(&row(Target::Token("x".into()), 50, 1, 2));
        assert!(refuses(&table, "bob", Some("x"), 49) && !refuses(&table, "bob", Some("x"), 50));
        assert!(!refuses(&table, "bob", Some("y"), 0));
        table.take(&row(Target::All, 10, 1, 3));
        assert!(refuses(&table, "bob", None, 9) && !refuses(&table, "bob", None, 10));
        let other = Bearer {
            app: &App::new("other").unwrap(),
            user: &user("ada"),
            id: Some("x"),
            issued: 0,
        };
        assert!(!table.refuses(other), "another app has its own");
    }

    #[test]
    fn nothing_ever_gets_weaker_and_only_more_is_news() {
        let mut table = Table::default();
        let of = || Target::User(user("ada"));
        assert!(table.take(&row(of(), 100, 500, 1)));
        assert!(!table.take(&row(of(), 90, 400, 2)));
        assert!(!table.take(&row(of(), 100, 600, 3)));
        assert!(refuses(&table, "ada", None, 99));
        assert!(table.take(&row(of(), 101, 400, 4)));
        table.expire(599);
        assert!(refuses(&table, "ada", None, 100));
        table.expire(600);
        assert!(table.is_empty() && table.bytes() == 0 && table.agrees(0, 0));
    }

    #[test]
    fn what_the_store_lacks_or_has_weaker_is_found() {
        let mut table = Table::default();
        let (ada, bob, all) = (
            Target::User(user("ada")),
            Target::User(user("bob")),
            Target::All,
        );
        for kept in [
            row(ada.clone(), 5, 100, 1),
            row(bob.clone(), 6, 100, 2),
            row(all.clone(), 7, 10, 3),
        ] {
            table.take(&kept);
        }
        table.begin_whole();
        table.take(&row(ada.clone(), 4, 100, 1));
        let mut lacking = table.end_whole(10);
        lacking.sort_by(|one, other| one.name.cmp(&other.name));
        let names: Vec<_> = lacking.iter().map(|row| (&*row.name, row.mark)).collect();
        let mark = |issued_before| Mark {
            issued_before,
            until_ms: 100,
        };
        assert_eq!(
            names,
            [("u default ada", mark(5)), ("u default bob", mark(6))],
            "what has ended is not written back"
        );
        table.begin_whole();
        for row in &lacking {
            table.take(row);
        }
        assert!(table.end_whole(10).is_empty());
        let sum = lacking.iter().map(|row| print_of(&row.name, row.mark));
        assert!(table.agrees(2, sum.sum::<u64>() % PRINTS));
    }

    #[test]
    fn the_bytes_of_an_entry_are_what_they_are_said_to_be() {
        let entry = size_of::<(Box<str>, Entry)>();
        // A map is at least seven sixteenths full after it grew, and each name has a header.
        assert!(entry < 49, "{entry}");
        assert!(ENTRY_BYTES >= (entry + 1) * 16 / 7 + 16, "{ENTRY_BYTES}");
    }
}
