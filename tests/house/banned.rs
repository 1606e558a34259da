//! Crates that must not be built in. In: Cargo.lock. Out: a failure that says what to use instead.

#[test]
fn no_crate_is_built_in_that_tells_of_a_key_by_its_timing() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock");
    let locked = std::fs::read_to_string(path).expect("Cargo.lock");
    let has = |name: &str| {
        locked
            .lines()
            .any(|line| line == format!("name = \"{name}\""))
    };
    assert!(has("ring"), "it is read as it is written");
    assert!(
        !has("rsa"),
        "RUSTSEC-2023-0071: use ring (src/auth/signature.rs)"
    );
}
