//! Which dead letters a call is about.
//!
//! In: fields of a body, or parameters of a query. Out: ids, or a place from which all, or all that
//! died of one cause, are taken. Pure. Bounds: [`LETTERS_MAX`] ids.

use std::collections::BTreeSet;

use super::letters::{LETTERS_MAX, LetterId};
use crate::api::about::About;
use crate::broker::queue::Why;
use fanfare_protocol::error::{ErrorCode, WireError};

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// These, each once, in the order of partitions.
    Ids(Vec<LetterId>),
    /// All that died of this, or of anything, after this place.
    All {
        why: Option<Why>,
        after: Option<LetterId>,
    },
}

impl Selection {
    /// The same for the audit.
    pub(super) fn about(&self) -> About {
        match self {
            Self::Ids(ids) => {
                let ids: Vec<_> = ids.iter().map(LetterId::to_string).collect();
                About::default().with_all("ids", &ids)
            }
            Self::All { why, after } => {
                let about = match why {
                    None => About::default().with("all", &true),
                    Some(why) => About::default().with("why", &why.as_str()),
                };
                match after {
                    None => about,
                    Some(after) => about.with("after", &after.to_string()),
                }
            }
        }
    }
}

/// What a caller gave.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) ids: Option<Vec<String>>,
    pub(super) why: Option<Why>,
    pub(super) all: bool,
    pub(super) after: Option<LetterId>,
}

impl Given {
    /// Which these are.
    ///
    /// # Errors
    /// None, several, or ids that are none.
    pub(super) fn selection(self) -> Result<Selection, WireError> {
        match (self.ids, self.why, self.all) {
            (Some(_), None, false) if self.after.is_some() => Err(WireError::bad_request(
                "`after` goes with `why` or `all`, not with `ids`",
            )),
            (Some(ids), None, false) => ids_of(&ids).map(Selection::Ids),
            (None, Some(why), false) => Ok(Selection::All {
                why: Some(why),
                after: self.after,
            }),
            (None, None, true) => Ok(Selection::All {
                why: None,
                after: self.after,
            }),
            _ => Err(WireError::bad_request(
                "exactly one of `ids`, `why` and `all: true` is needed",
            )),
        }
    }
}

fn ids_of(texts: &[String]) -> Result<Vec<LetterId>, WireError> {
    if texts.is_empty() {
        return Err(WireError::bad_request("the list of ids is empty"));
    }
    if texts.len() > LETTERS_MAX {
        let text = format!("{} ids are more than {LETTERS_MAX}", texts.len());
        return Err(WireError::new(ErrorCode::LimitExceeded, text));
    }
    let read = |text: &String| {
        let shown: String = text.chars().take(64).collect();
        text.parse().map_err(|_| {
            WireError::bad_request(format!(
                "{shown:?} is no id of a dead letter: PARTITION:MILLISECONDS-SEQUENCE, for example \
                 {EXAMPLE}"
            ))
        })
    };
    let ids: BTreeSet<LetterId> = texts.iter().map(read).collect::<Result<_, _>>()?;
    Ok(ids.into_iter().collect())
}

const EXAMPLE: &str = "45:1732190000000-0";

/// What a field or parameter that names a cause must be.
pub(super) const WHY: &str = "one of `bad_entry`, `wrong_partition`, `too_large`, `expired`, `failed`, `crashed` and `unknown_app`";

/// What one that names a place must be.
pub(super) const PLACE: &str = "the id of a dead letter: PARTITION:MILLISECONDS-SEQUENCE";

#[cfg(test)]
mod tests {
    use super::*;

    fn given(ids: &[&str]) -> Given {
        Given {
            ids: Some(ids.iter().map(ToString::to_string).collect()),
            ..Given::default()
        }
    }

    #[test]
    fn ids_are_taken_once_and_in_the_order_of_partitions() {
        let Ok(Selection::Ids(ids)) = given(&["9:1-0", "2:5-0", "9:1-0", "2:4-7"]).selection()
        else {
            panic!("no ids");
        };
        let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
        assert_eq!(ids, ["2:4-7", "2:5-0", "9:1-0"]);
    }

    #[test]
    fn exactly_one_way_to_say_which_is_taken() {
        let after = "2:5-0".parse().ok();
        let refused = [
            Given::default(),
            given(&[]),
            given(&["x"]),
            Given {
                why: Some(Why::Failed),
                ..given(&["2:5-0"])
            },
            Given {
                all: true,
                ..given(&["2:5-0"])
            },
            Given {
                after,
                ..given(&["2:5-0"])
            },
            Given {
                all: true,
                why: Some(Why::Failed),
                ..Given::default()
            },
        ];
        for given in refused {
            let told = format!("{given:?}");
            assert!(given.selection().is_err(), "{told}");
        }
        let all = Given {
            all: true,
            after,
            ..Given::default()
        };
        assert_eq!(all.selection(), Ok(Selection::All { why: None, after }));
        let many: Vec<_> = (0..=LETTERS_MAX).map(|n| format!("0:{n}-0")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let error = given(&many).selection().unwrap_err();
        assert_eq!(error.code, ErrorCode::LimitExceeded);
    }

    #[test]
    fn the_words_name_every_cause() {
        for why in Why::ALL {
            assert!(WHY.contains(&format!("`{}`", why.as_str())), "{why:?}");
        }
    }
}
