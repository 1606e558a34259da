//! The program that cargo built for the tests.

use std::path::PathBuf;

/// Where `fanfare` is: beside the folder of the test that asks.
///
/// # Panics
/// Where it is not, because cargo was told to run something else than a test in `tests/` or a
/// bench.
pub fn fanfare() -> PathBuf {
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
