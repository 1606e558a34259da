//! `api.keys_file`: keys of the API in a file of their own.
//!
//! In: the file that the key names. Out: its keys, or a fault that repeats none of them. Bounds:
//! [`BYTES_MAX`] and [`KEYS_MAX`].

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::config::Secret;
use crate::config::faults::Faults;
use crate::config::forms;
use crate::config::value::Value;
use crate::config::values::Values;

/// The key that names the file.
const PATH: &str = "api.keys_file";

/// Longest file.
pub const BYTES_MAX: u64 = 64 * 1_024;
/// Most keys in it.
pub const KEYS_MAX: usize = 1_000;

const NO_KEY: &str = "has no key";

/// Reads the file, if one is named.
pub(super) fn read(values: &mut Values, faults: &mut Faults) {
    let Some(Value::Text(name)) = values.get(PATH).map(|setting| &setting.value) else {
        return;
    };
    let (name, place) = (name.clone(), values.place(PATH));
    values.watch_files([name.clone().into()]);
    let read = text_of(Path::new(&name)).map_err(|cause| format!("cannot be read: {cause}"));
    match read.and_then(|text| keys(&text)) {
        Ok(keys) => values.add_file_keys(keys),
        Err(why) => {
            let what = format!("{PATH} names {name}, which {why}");
            let remedy = match why == NO_KEY {
                true => "put a key into it; to take out the last one put a new one in its place",
                false => "name a file with one key a line",
            };
            faults.push(place, what, remedy);
            values.refuse(PATH.to_owned());
        }
    }
}

fn text_of(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// The keys of a file's text.
fn keys(text: &str) -> Result<Vec<Secret>, String> {
    if text.len() as u64 > BYTES_MAX {
        return Err(format!("is longer than {BYTES_MAX} bytes"));
    }
    let mut keys = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match forms::API_KEY.read(line) {
            Ok(key) => keys.push(Secret(key)),
            Err(_) => {
                let wanted = "printable ASCII without spaces and commas";
                return Err(format!("has in line {} no key of {wanted}", at + 1));
            }
        }
    }
    match keys.len() {
        0 => Err(NO_KEY.to_owned()),
        1..=KEYS_MAX => Ok(keys),
        count => Err(format!("has {count} keys, more than {KEYS_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_key_and_what_is_none_is_told_without_it() {
        let of = |text: &str| keys(text).map(|keys| keys.len());
        assert_eq!(of("one\n\n# two\n  three  \r\n"), Ok(2));
        assert_eq!(of("# none\n"), Err("has no key".to_owned()));
        let told = of("good\nse cret\n").unwrap_err();
        assert!(told.contains("line 2") && !told.contains("cret"), "{told}");
        let long = "k\n".repeat(KEYS_MAX + 1);
        assert!(of(&long).unwrap_err().contains("1001 keys"));
        let huge = "k".repeat(usize::try_from(BYTES_MAX).unwrap() + 1);
        assert!(of(&huge).unwrap_err().contains("65536 bytes"));
    }
}
