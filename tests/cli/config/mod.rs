//! The configuration as an operator meets it: sources, faults with their places, presets, output.
//!
//! Nothing here reads the process's own environment or limits: every test names its own machine.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod alone;
mod api_only;
mod apps;
mod authorizers;
mod chart;
mod clients;
mod faults;
mod files;
mod issuers;
mod printing;
mod redis_access;
mod reference;
mod secrets;
mod sources;
mod telemetry;
mod terraform;

use std::path::PathBuf;

use fanfare::auth::keys::try_key;
use fanfare::config::inputs::{Flag, Inputs};
use fanfare::config::load::{Loaded, load};
use fanfare::config::machine::Machine;
use fanfare_testkit::kept;

/// What each test begins with: nothing set but one token key, on a small machine.
fn inputs() -> Inputs {
    let mut inputs = keyless();
    inputs.environment = variables(&[(
        "FANFARE_AUTH__HMAC_SECRET",
        "0123456789abcdef0123456789abcdef",
    )]);
    inputs
}

/// The same without the token key.
fn keyless() -> Inputs {
    Inputs {
        file: None,
        environment: Vec::new(),
        flags: Vec::new(),
        env: None,
        size: None,
        dev: false,
        machine: Machine {
            cores: 2,
            host_name: "test-host".to_owned(),
            file_limit: 20_000,
            memory_limit: None,
            memory_total: Some(4 << 30),
        },
        try_key: |key| try_key(key).map_err(|fault| fault.to_string()),
    }
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn flag(name: &'static str, path: &'static str, value: &str) -> Flag {
    Flag {
        name,
        path,
        value: value.to_owned(),
    }
}

/// A file in a directory of its own, which lives as long as the first part of the pair.
fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fanfare.toml");
    std::fs::write(&path, text).unwrap();
    (directory, path)
}

/// Loads what must have no fault.
fn loaded(inputs: &Inputs) -> Loaded {
    match load(inputs) {
        Ok(loaded) => loaded,
        Err(faults) => panic!("faults where none should be:\n{faults}"),
    }
}

/// The faults of what must not load, one line each, with the directory of the file left out.
fn fault_lines(inputs: &Inputs) -> Vec<String> {
    let faults = load(inputs).err().expect("a fault").to_string();
    let file = inputs
        .file
        .iter()
        .map(|path| format!("--config={}", path.display()));
    kept::given(&file.collect::<Vec<_>>(), &inputs.environment);
    kept::line("faults", || faults.clone());
    let directory = inputs.file.as_ref().and_then(|path| path.parent());
    let directory = directory.map_or_else(String::new, |path| format!("{}/", path.display()));
    let line = |line: &str| match directory.as_str() {
        "" => line.to_owned(),
        directory => line.replace(directory, ""),
    };
    faults.lines().map(line).collect()
}

/// The faults that one file has, outside `--dev` and with a token key in the environment.
fn faults_of_file(text: &str) -> Vec<String> {
    let (_directory, path) = file(text);
    fault_lines(&Inputs {
        file: Some(path),
        ..inputs()
    })
}
