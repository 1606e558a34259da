//! Why no server of Redis may be asked for a key at the moment, in words for both sides.
//!
//! In: what those found who look for masters and compare what nodes agree on. Out: a [`Nowhere`]:
//! one sentence for operators, with the deployment and the cause, and one for callers, which names
//! neither, but Redis' own word and what to do where there is one. Pure; one value a deployment.

use std::fmt;
use std::sync::Arc;

use super::RedisError;
use super::refusal::Refusal;

/// What is the case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The deployment was not compared yet with what the cluster agreed on.
    Uncompared,
    /// It was, and differs: this node ends.
    Differing,
    /// Nobody has said yet where its masters are.
    Masterless,
    /// Its masters are known, and none of them serves the slot.
    Unserved,
}

/// Every kind, for tests of who tells them.
#[cfg(test)]
pub(crate) const KINDS: [Kind; 4] = [
    Kind::Uncompared,
    Kind::Differing,
    Kind::Masterless,
    Kind::Unserved,
];

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nowhere {
    /// What is the case.
    pub kind: Kind,
    /// What the deployment is called.
    deployment: Arc<str>,
    /// The cause, for operators.
    why: Option<Arc<str>>,
    /// In which word Redis refused what would have ended it.
    pub refusal: Option<&'static Refusal>,
}

impl Nowhere {
    /// Without a cause that is known.
    #[must_use]
    pub fn new(kind: Kind, deployment: &str) -> Self {
        Self {
            kind,
            deployment: deployment.into(),
            why: None,
            refusal: None,
        }
    }

    /// The same for this reason; `refusal`: it is Redis' own word.
    #[must_use]
    pub fn because(self, why: &str, refusal: Option<&'static Refusal>) -> Self {
        let why = Some(why.into());
        Self {
            why,
            refusal,
            ..self
        }
    }

    /// A deployment that could not be compared. Where its masters are not known, that says more.
    #[must_use]
    pub fn uncompared(deployment: &str, error: &RedisError) -> Self {
        match error {
            RedisError::Nowhere(nowhere) if nowhere.kind == Kind::Masterless => nowhere.clone(),
            other => {
                let uncompared = Self::new(Kind::Uncompared, deployment);
                uncompared.because(&other.to_string(), other.refusal())
            }
        }
    }

    /// The same for callers.
    #[must_use]
    pub fn told(&self) -> String {
        let what = match self.kind {
            Kind::Uncompared => "this node has not compared yet what its cluster agreed on",
            Kind::Differing => "this node differs from what its cluster agreed on, and ends",
            Kind::Masterless => "no master of Redis is known yet",
            Kind::Unserved => "no master of Redis serves the slot of the topic",
        };
        match self.refusal {
            Some(refusal) => format!("{what}, because {refusal}"),
            None => what.to_owned(),
        }
    }
}

impl fmt::Display for Nowhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.deployment;
        match self.kind {
            Kind::Uncompared => write!(
                f,
                "Redis {name} is not compared yet with what the cluster agreed on"
            ),
            Kind::Differing => {
                write!(f, "Redis {name} differs from what this node is configured")
            }
            Kind::Masterless => write!(f, "the masters of Redis {name} are not known"),
            Kind::Unserved => write!(f, "no master of Redis {name} serves the slot of the key"),
        }?;
        match &self.why {
            Some(why) => write!(f, ": {why}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::refusal::REFUSALS;

    #[test]
    fn each_kind_tells_callers_the_word_and_operators_the_place() {
        for kind in KINDS {
            let nowhere = Nowhere::new(kind, "east");
            assert!(!nowhere.told().contains("because"));
            for refusal in REFUSALS {
                let why = "10.0.0.1:6379 says so";
                let nowhere = nowhere.clone().because(why, Some(refusal));
                let told = nowhere.told();
                assert!(told.contains(&refusal.to_string()), "{told}");
                assert!(
                    !told.contains("10.0.0.1") && !told.contains("east"),
                    "{told}"
                );
                let text = nowhere.to_string();
                assert!(text.contains(why) && text.contains("east"), "{text}");
            }
        }
    }

    #[test]
    fn a_comparison_that_failed_for_want_of_a_master_is_told_as_that() {
        let masterless = Nowhere::new(Kind::Masterless, "east").because("silence", None);
        let error = RedisError::Nowhere(masterless.clone());
        assert_eq!(Nowhere::uncompared("east", &error), masterless);
        let unserved = RedisError::Nowhere(Nowhere::new(Kind::Unserved, "east"));
        let uncompared = Nowhere::uncompared("east", &unserved);
        assert_eq!(uncompared.kind, Kind::Uncompared);
        assert!(uncompared.to_string().contains("serves the slot"));
    }
}
