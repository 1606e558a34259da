//! What the node listens with, and the tasks that serve the API's listeners.
//!
//! In: the configuration. Out: bound listeners, before anything else runs, so that an address that is
//! taken is told at once. Owner of nothing: the workers and the tasks take them.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::api;
use crate::config::Config;
use crate::ingress::listener;
use crate::tasks::{self, turns};

use super::{Addresses, StartError};

/// What the node listens with.
pub(super) struct Listeners {
    /// One a worker; none on a node for the API only, which has no workers.
    pub(super) public: Vec<StdListener>,
    pub(super) api: StdListener,
    pub(super) metrics: Option<StdListener>,
}

impl Listeners {
    /// Binds all of them.
    pub(super) fn bind(config: &Config) -> Result<Self, StartError> {
        Ok(Self {
            public: bind_public(config)?,
            api: bind_api(config.api.listen)?,
            metrics: config.metrics.listen.map(bind_api).transpose()?,
        })
    }

    /// Where they listen.
    pub(super) fn addresses(&self) -> io::Result<Addresses> {
        let metrics = self.metrics.as_ref();
        let public = self.public.first().map(StdListener::local_addr);
        Ok(Addresses {
            public: public.transpose()?,
            api: self.api.local_addr()?,
            metrics: metrics.map(StdListener::local_addr).transpose()?,
        })
    }
}

fn bind_public(config: &Config) -> Result<Vec<StdListener>, StartError> {
    let Some(address) = config.server.listen else {
        return Ok(Vec::new());
    };
    listener::bind(address, config.server.workers)
        .map_err(|source| StartError::Listen { address, source })
}

fn bind_api(address: SocketAddr) -> Result<StdListener, StartError> {
    let bound = StdListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| StartError::Listen { address, source })
}

/// A listener of the API, while it is served.
pub(super) type ApiTask = tokio::task::JoinHandle<()>;

/// Serves the API, or its probes, to so many connections until it is told to stop.
pub(super) fn serve_api(
    name: &'static str,
    (listener, connections_max, api): (StdListener, usize, api::Api),
    stop: &watch::Sender<bool>,
) -> Result<ApiTask, StartError> {
    let listener = TcpListener::from_std(listener).map_err(StartError::System)?;
    let mut stop = stop.subscribe();
    let serving = async move {
        // Whoever would tell it lives as long as the node.
        let stopped = async { drop(stop.wait_for(|stopped| *stopped).await) };
        api::serve::serve(listener, connections_max, api, stopped).await;
    };
    Ok(tasks::vital(name, turns::polled(name, serving)))
}

/// Waits until all of them have answered what they had begun.
pub(super) async fn until_ended(apis: Vec<ApiTask>) {
    for api in apis {
        if let Err(error) = api.await {
            let error = &error as &(dyn std::error::Error + 'static);
            tracing::error!(event = "api_failed", error, "the API did not end in order");
        }
    }
}
