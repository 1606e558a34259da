//! What is wrong with a configuration, where it is, and what to do about it.
//!
//! In: whatever a source or a check refuses. Out: one line each, all of them at once, so that
//! nobody mends a file by starting the node ten times. No fault carries the value of a secret.

use std::borrow::Cow;
use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `FILE:LINE:COLUMN`, an environment name, a flag, or the key when no source has set it.
    pub place: String,
    /// What is wrong, naming the key.
    pub what: String,
    /// What to do instead.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.what, self.remedy)
    }
}

/// What is wrong with a text and what to give instead, in words that repeat no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong.
    pub what: Cow<'static, str>,
    /// What to do instead.
    pub remedy: Cow<'static, str>,
}

impl Wrong {
    /// The two halves of a fault.
    #[must_use]
    pub fn new(what: impl Into<Cow<'static, str>>, remedy: impl Into<Cow<'static, str>>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// Everything that is wrong, in the order of the sources. Its `Display` is one line a fault.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// Notes one more.
    pub fn push(
        &mut self,
        place: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.0.push(Fault {
            place: place.into(),
            what: what.into(),
            remedy: remedy.into(),
        });
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// The one of `candidates` that looks most like `name`, as a question for a remedy.
#[must_use]
pub fn did_you_mean(name: &str, candidates: impl IntoIterator<Item = String>) -> String {
    let nearest = candidates
        .into_iter()
        .min_by_key(|candidate| strsim::damerau_levenshtein(name, candidate));
    nearest.map_or_else(
        || "nothing can be set here".to_owned(),
        |nearest| format!("did you mean {nearest}?"),
    )
}
