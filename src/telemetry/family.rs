//! One description of all that is counted, for every form in which it is told.
//!
//! In: cells (counters, histograms, tables of them by closed sets of words). Out: a list of [`Family`],
//! each with its name, kind, help, unit and samples, which `text.rs` writes and any other encoder can
//! walk. Made when somebody asks, and kept by nobody. Bounds: a table has a cell for each word of its
//! labels and never grows, so that no traffic makes a series that was not there at start.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::Arc;

use super::counter::{Counter, Seconds};
use super::histogram::{Histogram, Spread};

/// How values of a family behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations by their length.
    Histogram,
}

impl Kind {
    /// As it is written.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A label and its value. Only what is known at start and never changes is not a fixed word: the
/// release, the commit, the number of a worker.
pub type LabelPair = (&'static str, Cow<'static, str>);

/// What a sample says.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number of things.
    Whole(u64),
    /// A measure.
    Real(f64),
    /// A histogram.
    Spread(Spread),
}

/// One series of a family.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// In the order of the tables.
    pub labels: Vec<LabelPair>,
    /// Now.
    pub value: Value,
}

/// All series of one name.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// With its unit, and `_total` where it only grows.
    pub name: &'static str,
    /// For people: one sentence or two.
    pub help: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// Its series, each with other labels.
    pub samples: Vec<Sample>,
    /// What was never counted is not told: of many pairs of labels few occur.
    pub is_sparse: bool,
}

impl Family {
    /// A family over cells.
    #[must_use]
    pub fn of(kind: Kind, name: &'static str, help: &'static str, cells: &impl Cells) -> Self {
        let mut samples = Vec::new();
        cells.read(&[], &mut samples);
        Self {
            name,
            help,
            kind,
            samples,
            is_sparse: false,
        }
    }

    /// The same, telling only what was counted.
    #[must_use]
    pub fn sparse(self) -> Self {
        Self {
            is_sparse: true,
            ..self
        }
    }

    /// The samples that are told.
    pub fn told(&self) -> impl Iterator<Item = &Sample> {
        let is_none = |value: &Value| matches!(value, Value::Whole(0) | Value::Real(0.0));
        let is_told = move |s: &&Sample| !self.is_sparse || !is_none(&s.value);
        self.samples.iter().filter(is_told)
    }

    /// A gauge over one value; `None` where it is not known: then there is no such family.
    #[must_use]
    pub fn known(name: &'static str, help: &'static str, value: Option<Value>) -> Option<Self> {
        Some(Self {
            name,
            help,
            kind: Kind::Gauge,
            samples: vec![Sample {
                labels: Vec::new(),
                value: value?,
            }],
            is_sparse: false,
        })
    }

    /// The base unit that its name says.
    #[must_use]
    pub fn unit(&self) -> Option<&'static str> {
        let bare = self.bare_name();
        let mut units = ["seconds", "bytes"].into_iter();
        units.find(|unit| bare.strip_suffix(*unit).is_some_and(|b| b.ends_with('_')))
    }

    /// Its name without the end that says that it only grows.
    #[must_use]
    pub fn bare_name(&self) -> &'static str {
        match self.kind {
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            _ => self.name,
        }
    }

    /// Adds the samples of the same family of another owner, one by one.
    pub fn add(&mut self, other: &Self) {
        for (sample, more) in self.samples.iter_mut().zip(&other.samples) {
            match (&mut sample.value, &more.value) {
                (Value::Whole(sum), Value::Whole(more)) => *sum = sum.wrapping_add(*more),
                (Value::Real(sum), Value::Real(more)) => *sum += more,
                (Value::Spread(sum), Value::Spread(more)) => sum.add(more),
                _ => debug_assert!(false, "owners of one family describe it alike"),
            }
        }
    }
}

/// What can be read into samples.
pub trait Cells {
    /// Appends a sample for each of its cells, with these labels before its own.
    fn read(&self, labels: &[LabelPair], into: &mut Vec<Sample>);
}

fn sample(labels: &[LabelPair], value: Value) -> Sample {
    Sample {
        labels: labels.to_vec(),
        value,
    }
}

impl Cells for Counter {
    fn read(&self, labels: &[LabelPair], into: &mut Vec<Sample>) {
        into.push(sample(labels, Value::Whole(self.get())));
    }
}

impl<C: Cells> Cells for Arc<C> {
    fn read(&self, labels: &[LabelPair], into: &mut Vec<Sample>) {
        C::read(self, labels, into);
    }
}

impl Cells for Seconds {
    fn read(&self, labels: &[LabelPair], into: &mut Vec<Sample>) {
        into.push(sample(labels, Value::Real(self.get().as_secs_f64())));
    }
}

impl<const COUNT: usize> Cells for Histogram<COUNT> {
    fn read(&self, labels: &[LabelPair], into: &mut Vec<Sample>) {
        into.push(sample(labels, Value::Spread(self.spread())));
    }
}

/// A closed set of words that a label may have.
pub trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Every value, in the order in which it is told.
    const ALL: &'static [Self];

    /// As it is written.
    fn word(self) -> &'static str;

    /// Where it stands in [`Self::ALL`].
    fn place(self) -> usize;
}

/// A cell for each value of a label. A table of tables has several labels.
#[derive(Debug)]
pub struct Table<L, C> {
    cells: Box<[C]>,
    label: PhantomData<fn() -> L>,
}

impl<L: Label, C: Default> Default for Table<L, C> {
    fn default() -> Self {
        Self {
            cells: L::ALL.iter().map(|_| C::default()).collect(),
            label: PhantomData,
        }
    }
}

impl<L: Label, C> Table<L, C> {
    /// The cell of a value.
    #[must_use]
    pub fn of(&self, label: L) -> &C {
        &self.cells[label.place()]
    }

    /// All of them.
    pub fn cells(&self) -> impl Iterator<Item = &C> {
        self.cells.iter()
    }
}

impl<L: Label, C: Cells> Cells for Table<L, C> {
    fn read(&self, labels: &[LabelPair], into: &mut Vec<Sample>) {
        let mut labels = labels.to_vec();
        for (label, cell) in L::ALL.iter().zip(&self.cells) {
            labels.push((L::NAME, label.word().into()));
            cell.read(&labels, into);
            labels.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Fruit {
        Apple,
        Pear,
    }

    impl Label for Fruit {
        const NAME: &'static str = "fruit";
        const ALL: &'static [Self] = &[Self::Apple, Self::Pear];

        fn word(self) -> &'static str {
            ["apple", "pear"][self as usize]
        }

        fn place(self) -> usize {
            self as usize
        }
    }

    #[test]
    fn a_table_of_tables_has_a_sample_for_each_pair_and_owners_are_added_up() {
        let table: Table<Fruit, Table<Fruit, Counter>> = Table::default();
        table.of(Fruit::Apple).of(Fruit::Pear).add(3);
        let mut family = Family::of(Kind::Counter, "eaten_total", "Eaten.", &table);
        family.add(&family.clone());
        let told: Vec<_> = family
            .samples
            .iter()
            .map(|s| (&s.labels, &s.value))
            .collect();
        let pair =
            |a: &'static str, b: &'static str| vec![("fruit", a.into()), ("fruit", b.into())];
        assert_eq!(
            told,
            [
                (&pair("apple", "apple"), &Value::Whole(0)),
                (&pair("apple", "pear"), &Value::Whole(6)),
                (&pair("pear", "apple"), &Value::Whole(0)),
                (&pair("pear", "pear"), &Value::Whole(0)),
            ]
        );
    }

    #[test]
    fn a_sparse_family_tells_what_was_counted() {
        let table: Table<Fruit, Counter> = Table::default();
        let count = |table| {
            let family = Family::of(Kind::Counter, "eaten_total", "Eaten.", table);
            [family.told().count(), family.sparse().told().count()]
        };
        assert_eq!(count(&table), [2, 0]);
        table.of(Fruit::Pear).add(1);
        assert_eq!(count(&table), [2, 1]);
    }

    #[test]
    fn the_unit_is_what_the_name_ends_in() {
        let unit = |kind, name| Family::of(kind, name, "", &Counter::default()).unit();
        assert_eq!(unit(Kind::Counter, "cpu_seconds_total"), Some("seconds"));
        assert_eq!(unit(Kind::Gauge, "memory_bytes"), Some("bytes"));
        assert_eq!(unit(Kind::Gauge, "megabytes"), None);
        assert_eq!(unit(Kind::Gauge, "sessions"), None);
    }
}
