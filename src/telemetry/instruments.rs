//! How a struct of counters is declared together with what is said of each.
//!
//! In: fields with kind, name, label and help. Out: the struct, and its families. The names that it uses are
//! those of the file that declares: `Counter`, `Family`, `Kind`, `Sample`, `Value`.

use super::family::Kind;

/// The kind of a word in [`instruments`].
pub(super) fn kind(word: &str) -> Kind {
    match word {
        "counter" => Kind::Counter,
        _ => Kind::Gauge,
    }
}

/// Declares a struct of counters together with what is said of each. Those of one name stand
/// together, each with another word of its label.
macro_rules! instruments {
    ($(#[$doc:meta])* $name:ident {
        $($field:ident: $kind:literal $metric:literal $([$label:literal = $value:literal])? $help:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $name {
            $(#[doc = $help] pub $field: Counter,)*
        }

        impl $name {
            fn families(&self) -> Vec<Family> {
                let mut all: Vec<Family> = Vec::new();
                $(
                    if all.last().is_none_or(|last| last.name != $metric) {
                        all.push(Family {
                            name: $metric,
                            help: $help,
                            kind: $crate::telemetry::instruments::kind($kind),
                            samples: Vec::new(),
                            is_sparse: false,
                        });
                    }
                    let family = all.last_mut().expect("it was pushed above");
                    family.samples.push(Sample {
                        labels: vec![$(($label, $value.into()))?],
                        value: Value::Whole(self.$field.get()),
                    });
                )*
                all
            }
        }
    };
}

pub(super) use instruments;
