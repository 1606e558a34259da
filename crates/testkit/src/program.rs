//! The program that cargo built for the tests.

use std::path::PathBuf;

use crate::kept;

/// Where `fanfare` is: beside the folder of the test that asks. In a run whose output is kept, what keeps
/// it.
///
/// # Panics
/// Where it is not, because cargo was told to run something else than a test in `tests/` or a
/// bench.
pub fn fanfare() -> PathBuf {
    kept::in_place_of(unkept())
}

/// The same where nothing may stand between the program and what it writes to: its output is never kept.
///
/// # Panics
/// As [`fanfare`].
pub fn unkept() -> PathBuf {
    let test = std::env::current_exe().expect("a test is a file");
    // target/PROFILE/deps/TEST, and the program is target/PROFILE/fanfare.
    let folder = test.ancestors().nth(2).expect("a test is in `deps`");
    let program = folder.join("fanfare");
    assert!(
        program.is_file(),
        "{} is missing: cargo builds it before tests in tests/ and before benches, \
         `cargo build --bin fanfare` at any time",
        program.display()
    );
    program
}
