//! The longest stop, which terraform/aws/ecs works out by a formula of its own.

use fanfare::node::stop_time;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    stop_longest_s: u64,
    environment: std::collections::BTreeMap<String, String>,
}

#[test]
fn the_stop_is_the_one_that_terraform_works_out() {
    // The module's own tests (stop.tftest.hcl) hold it to the same cases.
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/terraform/aws/ecs/tests/stops.json"
    );
    let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(cases.len() >= 5);
    for case in cases {
        let mut inputs = super::inputs();
        inputs.machine.file_limit = 70_000;
        let redis = ("FANFARE_REDIS__URL", "rediss-cluster://redis:6379");
        inputs.environment.extend(super::variables(&[redis]));
        inputs.environment.extend(case.environment);
        let config = super::loaded(&inputs).config;
        assert_eq!(stop_time::longest_s(&config), case.stop_longest_s);
    }
}
