//! What a run of tests leaves for the scan for secrets (`tests/secrets/scan.py`).
//!
//! In: the variable `FANFARE_TEST_KEEP`, a folder; what collectors and answers of the API say, and the tokens
//! and keys that tests make. Out: files below that folder. Without the variable nothing is kept. What the
//! program itself writes, and the secrets of its configuration, are kept by `tests/secrets/keep.py`, which
//! starts in its place.

use std::fs::{File, OpenOptions, create_dir_all};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde_json::json;

/// The variable that names the folder. The program refuses it, so whoever starts that itself takes it away.
pub const KEEP: &str = "FANFARE_TEST_KEEP";

/// A variable by which a node keeps the level of its configuration in such a run, for tests that change it.
pub const OWN_LEVEL: &str = "KEPT_WITH_OWN_LEVEL";

/// Where it is kept; `None`: nowhere.
fn folder() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = PathBuf::from(std::env::var_os(KEEP)?);
        assert!(folder.is_absolute(), "{KEEP} must be an absolute path");
        create_dir_all(folder.join("written")).expect("the folder can be made");
        Some(folder)
    });
    folder.as_deref()
}

/// What starts in the place of this program, and keeps what it writes; the program itself where nothing is
/// kept.
pub(crate) fn in_place_of(program: PathBuf) -> PathBuf {
    let Some(folder) = folder() else {
        return program;
    };
    static STANDS: OnceLock<PathBuf> = OnceLock::new();
    let script = STANDS.get_or_init(|| {
        let script = folder.join("fanfare");
        if script.exists() {
            return script;
        }
        let text = format!(
            "#!/bin/sh\nexec python3 -I '{}' '{}' '{}' \"$@\"\n",
            keeper().display(),
            folder.display(),
            program.display(),
        );
        // Others may start at the same time: each finds a whole file, or none.
        let own = folder.join(format!("fanfare.{}", std::process::id()));
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(&own);
        let mut file = made.expect("the folder can be written");
        file.write_all(text.as_bytes()).expect("it can be written");
        drop(file);
        std::fs::rename(&own, &script).expect("it can be renamed");
        script
    });
    script.clone()
}

/// `tests/secrets/keep.py`.
fn keeper() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2);
    let root = root.expect("this crate lies two folders deep");
    root.join("tests/secrets/keep.py")
}

/// A key or a password that a test presents, or writes where no start and no signal follows.
pub fn secret(value: &str) {
    told("secret", value);
}

/// A token that a test made.
pub fn token(value: &str) {
    told("token", value);
}

fn told(kind: &str, value: &str) {
    append("secrets", || {
        json!({"kind": kind, "value": value}).to_string()
    });
}

/// The secrets of a configuration that is read without a start of the program: the arguments that name the
/// file, and variables of the environment beside this process's own.
pub fn given(arguments: &[String], environment: &[(String, String)]) {
    if let Some(folder) = folder() {
        let mut python = Command::new("python3");
        python
            .arg("-I")
            .arg(keeper())
            .arg(folder)
            .arg("")
            .args(arguments)
            .envs(environment.iter().cloned());
        let status = python.status().expect("there is a python3");
        assert!(status.success(), "the secrets of a configuration are kept");
    }
}

/// What something else than the program wrote, in a file of this name.
pub fn line(file: &str, line: impl FnOnce() -> String) {
    append(&format!("written/{file}"), line);
}

fn append(file: &str, line: impl FnOnce() -> String) {
    static WRITES: Mutex<()> = Mutex::new(());
    let Some(folder) = folder() else { return };
    let _alone = WRITES.lock().unwrap_or_else(PoisonError::into_inner);
    let path = folder.join(format!("{file}-{}.jsonl", std::process::id()));
    let mut open = File::options();
    let file = open.append(true).create(true).open(path);
    let mut file = file.expect("the folder can be written");
    let line = line() + "\n";
    file.write_all(line.as_bytes()).expect("it can be written");
}
