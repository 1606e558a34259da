//! Around an address that says nothing, for the clients of fred.
//!
//! In: `config::Redis`. Out: an address of the server's name that takes connections, where it is not the
//! first. fred tries the addresses of a name one after the other, always from the first, and has one
//! time for all of them, so that it never comes to the second where the first swallows what is sent to
//! it. A client that was led around knows that address alone; it is to be given up with its connection,
//! for the name may lead elsewhere by then. Owns nothing. Bounds: `CONNECT_TIMEOUT`, and one connection,
//! which is closed at once.

use std::net::SocketAddr;
use std::sync::PoisonError;

use fred::clients::Client;

use super::clients::{self, CONNECT_TIMEOUT};
use super::wire::socket::connect_to_first;
use super::{RedisError, RedisLink, access};
use crate::config;

/// Where to connect instead; `None`: the name of the server will do.
pub async fn find(redis: &config::Redis) -> Option<SocketAddr> {
    let (host, port) = access::host(redis)?;
    let finding = async {
        let found = tokio::net::lookup_host(format!("{host}:{port}"))
            .await
            .ok()?;
        let addresses: Vec<_> = found.collect();
        let (first, _) = addresses
            .split_first()
            .filter(|(_, others)| !others.is_empty())?;
        let stream = connect_to_first(addresses.iter().copied()).await?.ok()?;
        stream.peer_addr().ok().filter(|reached| reached != first)
    };
    tokio::time::timeout(CONNECT_TIMEOUT, finding).await.ok()?
}

impl RedisLink {
    /// Replaces the client by a new one, which connects when its `connect` is called, and
    /// returns it. For the supervisor only.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn renew_around(&self, around: Option<SocketAddr>) -> Result<Client, RedisError> {
        let client = clients::client_around(&self.config, around)?;
        *self.client.write().unwrap_or_else(PoisonError::into_inner) = client.clone();
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_or_a_socket_has_no_way_around() {
        for url in ["redis://127.0.0.1:1", "unix:///redis.sock"] {
            let redis = config::Redis {
                url: Some(config::Secret(url.to_owned())),
                ..config::load::defaults().redis
            };
            assert_eq!(find(&redis).await, None, "{url}");
        }
    }
}
