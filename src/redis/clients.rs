//! The clients of Redis that the crate uses, with every option set.
//!
//! In: `config::Redis`. Out: clients for commands, not connected yet. The only file that builds one.
//! Owns nothing. Bound: [`COMMANDS_MAX`] commands wait in a client, beyond that they are refused as not
//! done.

use std::net::SocketAddr;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::RespVersion;
use fred::types::config::{
    Blocking, Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, Server, ServerConfig,
    TcpConfig, UnresponsiveConfig,
};

use super::{RedisError, access};
use crate::config;

/// Commands that may wait inside a client. fred's default is no bound at all.
pub const COMMANDS_MAX: usize = 20_000;
/// Events of a client's connection that wait for their reader.
const EVENTS_MAX: usize = 64;
/// Longest wait for a connection to open, and for fred's own commands on it.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long sent bytes may stay unacknowledged before the kernel closes the connection. It ends
/// a busy connection to a vanished host, which the detection of unresponsive ones never does.
pub(super) const TCP_USER_TIMEOUT: Duration = Duration::from_secs(2);
/// First wait before a new attempt to connect, and its scatter, in milliseconds; each is twice the
/// one before.
const RECONNECT_MIN_MS: u32 = 50;
const RECONNECT_JITTER_MS: u32 = 20;
/// The longest is drawn from these for each client: fred adds its scatter below that, and many nodes
/// would come at the same times.
const RECONNECT_MAX_MS: std::ops::RangeInclusive<u32> = 1_000..=2_000;

/// A client for commands. Not connected yet. Every option is set here, none left to a default that an
/// update could move.
///
/// # Errors
/// [`RedisError`] for a URL that cannot be used and a file that cannot be read.
pub fn command_client(config: &config::Redis) -> Result<Client, RedisError> {
    client_around(config, None)
}

/// The same, which connects to this address of the server's name, if there is one.
///
/// # Errors
/// As there.
pub fn client_around(
    config: &config::Redis,
    around: Option<SocketAddr>,
) -> Result<Client, RedisError> {
    let mut server = Config {
        fail_fast: false,
        blocking: Blocking::Block,
        version: RespVersion::RESP3,
        ..access::server(config)?
    };
    lead(&mut server.server, around);
    let performance = PerformanceConfig {
        default_command_timeout: config.command_timeout,
        max_feed_count: 200,
        broadcast_channel_capacity: EVENTS_MAX,
    };
    let connection = ConnectionConfig {
        connection_timeout: CONNECT_TIMEOUT,
        internal_command_timeout: CONNECT_TIMEOUT,
        cluster_cache_update_delay: Duration::ZERO,
        max_command_attempts: 1,
        max_redirections: 0,
        // Its supervisor asks instead.
        unresponsive: UnresponsiveConfig {
            max_timeout: None,
            ..UnresponsiveConfig::default()
        },
        reconnect_on_auth_error: false,
        auto_client_setname: false,
        max_command_buffer_len: COMMANDS_MAX,
        disable_cluster_health_check: true,
        tcp: TcpConfig {
            nodelay: Some(true),
            linger: None,
            ttl: None,
            keepalive: None,
            user_timeout: Some(TCP_USER_TIMEOUT),
        },
        reconnect_errors: Vec::new(),
    };
    let longest_ms = rand::random_range(RECONNECT_MAX_MS);
    let mut policy = ReconnectPolicy::new_exponential(0, RECONNECT_MIN_MS, longest_ms, 2);
    policy.set_jitter(RECONNECT_JITTER_MS);
    Ok(Client::new(
        server,
        Some(performance),
        Some(connection),
        Some(policy),
    ))
}

/// The same server at this address. Its certificate is that of its name.
fn lead(server: &mut ServerConfig, around: Option<SocketAddr>) {
    if let (ServerConfig::Centralized { server }, Some(address)) = (server, around) {
        let name = server.tls_server_name.clone();
        let name = name.unwrap_or_else(|| server.host.clone());
        let host = match address {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        };
        *server = Server::new_with_tls(host, address.port(), Some(name.to_string()));
    }
}

/// `host:port` of the server, or the path of its socket, for people.
pub(super) fn server_of(client: &Client) -> String {
    let hosts = client.client_config().server.hosts();
    let server = hosts.first().map_or_else(String::new, ToString::to_string);
    // A socket is given as its path and a port that it has not.
    server.trim_end_matches(":0").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fred::interfaces::ClientLike;

    fn settings() -> config::Redis {
        config::Redis {
            url: Some(config::Secret("redis://127.0.0.1:1".to_owned())),
            ..config::load::defaults().redis
        }
    }

    #[test]
    fn attempts_to_connect_become_seldom_at_times_of_their_own() {
        let longest = || {
            let client = command_client(&settings()).expect("a good URL");
            let mut policy = client.client_reconnect_policy().expect("there is one");
            let delays = std::iter::from_fn(|| policy.next_delay());
            delays.take(10).last().expect("it never ends")
        };
        let longest: std::collections::BTreeSet<_> = (0..20).map(|_| longest()).collect();
        assert!(longest.iter().all(|ms| (1_000..=2_000).contains(ms)));
        assert!(longest.len() > 1, "all come at the same times");
    }

    #[test]
    fn a_server_that_is_led_around_keeps_the_name_of_its_certificate() {
        let led = |name: Option<&str>, around: Option<&str>| {
            let around = around.map(|address| address.parse().expect("an address"));
            let name = name.map(str::to_owned);
            let server = Server::new_with_tls("redis.test", 1, name);
            let mut config = ServerConfig::Centralized { server };
            lead(&mut config, around);
            let server = config.hosts().pop().expect("one");
            let name = server.tls_server_name.as_ref().map(ToString::to_string);
            (server.to_string(), name)
        };
        let of = |server: &str, name: &str| (server.to_owned(), Some(name.to_owned()));
        let (plain, other) = (Some("127.0.0.2:7"), Some("other.test"));
        assert_eq!(led(other, None), of("redis.test:1", "other.test"));
        assert_eq!(led(None, plain), of("127.0.0.2:7", "redis.test"));
        assert_eq!(led(other, plain), of("127.0.0.2:7", "other.test"));
        assert_eq!(led(None, Some("[::1]:7")), of("[::1]:7", "redis.test"));
    }
}
