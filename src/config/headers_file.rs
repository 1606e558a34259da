//! `telemetry.headers_file`, and the same for one signal: headers for the collector in a file of their own.
//!
//! In: the files that these keys name. Out: their headers behind those of the list, or a fault that repeats
//! none of their values. Bounds: [`BYTES_MAX`] and [`HEADERS_MAX`] each.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::config::faults::Faults;
use crate::config::otlp_forms::HEADER;
use crate::config::value::Value;
use crate::config::values::Values;

/// Longest file.
const BYTES_MAX: u64 = 64 * 1_024;
/// Most headers in it.
const HEADERS_MAX: usize = 64;

/// What comes before the name of both keys, for each list of headers.
const LISTS: [&str; 4] = ["", "traces_", "logs_", "metrics_"];

/// Reads the files that are named.
pub(super) fn read(values: &mut Values, faults: &mut Faults) {
    for of in LISTS {
        let path = format!("telemetry.{of}headers_file");
        let Some(Value::Text(name)) = values.get(&path).map(|setting| &setting.value) else {
            continue;
        };
        let (name, place) = (name.clone(), values.place(&path));
        match headers(Path::new(&name)) {
            Ok(more) => {
                let list = format!("telemetry.{of}headers");
                let given = values.get(&list).map(|setting| &setting.value);
                let mut all = match given {
                    Some(Value::List(given)) => given.clone(),
                    _ => Vec::new(),
                };
                all.extend(more);
                let origin = values.origin(&path).clone();
                values.set(list, Value::List(all), origin);
            }
            Err(why) => {
                let what = format!("{path} names {name}, which {why}");
                let remedy =
                    "name a file with one header a line, as NAME=VALUE, the value percent-encoded";
                faults.push(place, what, remedy);
                values.refuse(path);
            }
        }
    }
}

fn headers(path: &Path) -> Result<Vec<String>, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_string(&mut text));
    read.map_err(|cause| format!("cannot be read: {cause}"))?;
    if text.len() as u64 > BYTES_MAX {
        return Err(format!("is longer than {BYTES_MAX} bytes"));
    }
    let mut headers = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match HEADER.read(line) {
            Ok(header) => headers.push(header),
            // Why it is none may repeat a part of it.
            Err(_) => return Err(format!("has in line {} no header", at + 1)),
        }
    }
    match headers.len() {
        0 => Err("has no header".to_owned()),
        1..=HEADERS_MAX => Ok(headers),
        count => Err(format!("has {count} headers, more than {HEADERS_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Vec<String>, String> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        headers(file.path())
    }

    #[test]
    fn a_line_is_a_header_and_what_is_none_is_told_without_it() {
        let read = of("api-key=a%2Cb\n\n# more\n  x-scope = me \r\n").unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(of("# none\n"), Err("has no header".to_owned()));
        for bad in ["secret", "host=secret", "a b=secret"] {
            let told = of(&format!("good=1\n{bad}\n")).unwrap_err();
            assert_eq!(told, "has in line 2 no header");
        }
        let many = "a=1\n".repeat(HEADERS_MAX + 1);
        assert!(of(&many).unwrap_err().contains("65 headers"));
        let huge = "a".repeat(usize::try_from(BYTES_MAX).unwrap() + 1);
        assert!(of(&huge).unwrap_err().contains("65536 bytes"));
        assert!(
            headers(Path::new("/nowhere"))
                .unwrap_err()
                .starts_with("cannot be read")
        );
    }
}
