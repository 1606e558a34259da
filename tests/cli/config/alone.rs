//! A node without Redis: meant, or forgotten.

use fanfare::config::inputs::Inputs;

use super::{fault_lines, variables};

#[test]
fn production_without_redis_needs_to_be_told_that_it_is_meant() {
    let production = |more: &[(&str, &str)]| {
        let mut inputs = super::inputs();
        let common = [
            ("FANFARE_ENV", "production"),
            ("FANFARE_API__KEYS", "0123456789abcdef"),
        ];
        inputs.environment.extend(variables(&common));
        inputs.environment.extend(variables(more));
        inputs
    };
    let fault = "redis.url: redis.url is not set, so every node would be alone and hear nothing of \
                 the others, which production refuses; set FANFARE_REDIS__URL, or cluster.alone = \
                 true for a single node";
    assert_eq!(fault_lines(&production(&[])), [fault]);
    // An empty variable is the same as none.
    assert_eq!(
        fault_lines(&production(&[("FANFARE_REDIS__URL", "")])),
        [fault]
    );
    let meant = [("FANFARE_CLUSTER__ALONE", "true")];
    let alone = super::loaded(&production(&meant)).config;
    assert!(alone.redis.url.is_none());
    let both = [meant[0], ("FANFARE_REDIS__URL", "redis://r")];
    assert_eq!(
        fault_lines(&production(&both)),
        [
            "FANFARE_CLUSTER__ALONE: cluster.alone is set, and redis.url too; leave out \
          cluster.alone, or take redis.url away"
        ]
    );
}

#[test]
fn a_node_without_redis_is_warned_of_unless_it_is_meant() {
    let warned = |dev: bool, more: &[(&str, &str)]| {
        let mut inputs = Inputs {
            dev,
            ..super::inputs()
        };
        inputs.environment.extend(variables(more));
        let loaded = super::loaded(&inputs);
        loaded
            .warnings
            .iter()
            .any(|warning| warning.starts_with("redis.url: not set"))
    };
    assert!(warned(false, &[]));
    assert!(warned(false, &[("FANFARE_REDIS__URL", "")]));
    assert!(!warned(false, &[("FANFARE_REDIS__URL", "redis://r")]));
    assert!(!warned(false, &[("FANFARE_CLUSTER__ALONE", "true")]));
    assert!(!warned(true, &[]));
}
