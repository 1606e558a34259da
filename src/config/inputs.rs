//! What a configuration is made of, and what is said of a value that cannot be used.
//!
//! In: the command line and the process. Out: [`Inputs`] for [`crate::config::load`] and for those
//! who read one source of it.

use std::path::PathBuf;

use crate::config::TokenKey;
use crate::config::faults::Faults;
use crate::config::forms::Unfit;
use crate::config::key::Key;
use crate::config::machine::Machine;
use crate::config::values::Values;

/// The longest part of a refused value that a fault repeats, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// What to do about a token key that cannot be used.
pub(super) const UNUSABLE_REMEDY: &str = "give another one; docs/configuration.md names the forms";

/// Everything that a configuration is made of.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// `--config`. Before `FANFARE_CONFIG`.
    pub file: Option<PathBuf>,
    /// All variables of the process.
    pub environment: Vec<(String, String)>,
    /// The flags that set a key.
    pub flags: Vec<Flag>,
    /// `--env`. Before `FANFARE_ENV`.
    pub env: Option<String>,
    /// `--size`. Before `FANFARE_SIZE`.
    pub size: Option<String>,
    /// `--dev`.
    pub dev: bool,
    /// The machine that the node runs on.
    pub machine: Machine,
    /// Says why a token key cannot be used. The configuration knows where its material lies; what
    /// it must be is known where tokens are verified.
    pub try_key: TryKey,
}

/// See [`Inputs::try_key`].
pub type TryKey = fn(&TokenKey) -> Result<(), String>;

/// A flag that was given.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The flag, for example `--listen`.
    pub name: &'static str,
    /// The path of the key that it sets, for example `server.listen`.
    pub path: &'static str,
    /// What it was given.
    pub value: String,
}

/// Notes that a source gave a value which is not of the key's kind.
pub(super) fn refuse(
    (key, path): (&Key, String),
    unfit: Unfit,
    shown: &str,
    place: &str,
    values: &mut Values,
    faults: &mut Faults,
) {
    match unfit {
        Unfit::Because(wrong) => {
            let what = format!("{} cannot be used: {}", values.shown(&path), wrong.what);
            faults.push(place, what, wrong.remedy);
        }
        // An address with a login may have come to the wrong key.
        Unfit::Form if key.kind.hide().is_some() || shown.contains('@') => {
            let what = format!(
                "{} cannot be this value, which is hidden",
                values.shown(&path)
            );
            faults.push(place, what, format!("give {}", key.kind.wanted()));
        }
        Unfit::Form => {
            let begin: String = shown.chars().take(SHOWN_CHARS_MAX).collect();
            let more = if begin.len() < shown.len() { "…" } else { "" };
            let what = format!("{} cannot be {begin}{more}", values.shown(&path));
            faults.push(place, what, format!("give {}", key.kind.wanted()));
        }
    }
    values.refuse(path);
}
