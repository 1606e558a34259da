//! What is left of the open files for sessions.

use super::{fault_lines, inputs, loaded, variables};

#[test]
fn connections_leave_files_to_each_master_of_redis_that_is_configured() {
    let hosts: Vec<_> = (0..20).map(|n| format!("h{n}:1")).collect();
    let cluster = format!("redis-cluster://{}?name=n", hosts.join(","));
    let shards = |count: usize| (0..count).map(|n| format!("redis://s{n}:1?name=s{n}"));
    for (url, shards, connections) in [
        ("redis://s:1?name=s", shards(0), 19_500),
        ("redis://s:1?name=s", shards(11), 19_500),
        ("redis://s:1?name=s", shards(12), 19_492),
        (&*cluster, shards(0), 19_435),
    ] {
        let shards: Vec<_> = shards.collect();
        let shards = shards.join(",");
        let of_redis = [
            ("FANFARE_REDIS__URL", url),
            ("FANFARE_REDIS__SHARDS", &*shards),
        ];
        let mut inputs = inputs();
        inputs.environment.extend(variables(&of_redis));
        let config = loaded(&inputs).config;
        assert_eq!(config.server.connections_max, connections, "{url} {shards}");
        // Whoever sets more is told.
        let more = (connections + 1).to_string();
        let name = "FANFARE_SERVER__CONNECTIONS_MAX";
        inputs.environment.extend(variables(&[(name, &more)]));
        let faults = fault_lines(&inputs);
        let fault =
            format!("{name}: server.connections_max is {more}, which needs 20001 open files");
        assert!(faults[0].starts_with(&fault), "{faults:?}");
    }
}
