//! The commands that subscribe.
//!
//! In: channels, and who hears each. Out: SUBSCRIBE or SSUBSCRIBE on a feed's connection, written at
//! the first poll. Owns nothing. Bound: what the caller gives at once.

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::PubsubInterface;

use crate::protocol::ids::Topic;
use crate::redis::RedisError;

/// Who hears a channel; `None`: the probes.
pub type Hearer = Option<Topic>;

/// Subscribes classic channels; in a cluster mostly none.
///
/// # Errors
/// What Redis or the client says.
pub async fn subscribe(client: &Client, channels: Vec<String>) -> Result<(), Error> {
    match channels.is_empty() {
        true => Ok(()),
        false => client.subscribe(channels).await,
    }
}

/// One channel a command, as fred and Redis want it, all in flight. Returns those that this
/// master refused because their slot is elsewhere; any other error fails them all.
///
/// # Errors
/// What Redis or the client says.
pub async fn subscribe_sharded(
    client: &Client,
    channels: Vec<(Hearer, String)>,
) -> Result<Vec<Hearer>, Error> {
    let subscribing = channels.into_iter().map(|(hearer, channel)| async {
        match client.ssubscribe(channel).await {
            Ok(()) => Ok(None),
            Err(error) if RedisError::of(error.clone()).is_misplaced() => Ok(Some(hearer)),
            Err(error) => Err(error),
        }
    });
    let refused = futures_util::future::try_join_all(subscribing).await?;
    Ok(refused.into_iter().flatten().collect())
}
