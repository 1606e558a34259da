//! The address of a node's sockets, as a client is given it.
//!
//! In: a URL, a user, a token. Out: where to connect and what the handshake asks for. Pure, but for
//! the certificates that a `wss` address makes it read.

use hyper::Uri;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;

use crate::dial::{Place, SUBPROTOCOL, Tls};
use crate::error::ConnectionError;
use crate::http::{percent_encode, without_secrets};

/// Where to connect and as whom.
#[derive(Debug, Clone)]
pub struct Address {
    /// As given, without what may be secret, for messages.
    url: String,
    place: Place,
    /// What the handshake asks for.
    request: ClientRequestBuilder,
}

impl Address {
    /// Reads `ws://HOST[:PORT][/PATH][?QUERY]`, or the same with `wss`; without a path it is
    /// `/v1/connect`. `user` is for nodes in development mode.
    ///
    /// # Errors
    /// [`ConnectionError::Address`] and [`ConnectionError::Trust`].
    pub fn new(url: &str, user: Option<&str>, tls: &Tls) -> Result<Self, ConnectionError> {
        let shown = without_secrets(url);
        let wrong = || ConnectionError::Address { url: shown.clone() };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        let (host, port) = (authority.host(), authority.port_u16());
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(wrong());
        }
        let (scheme, place) = match uri.scheme_str() {
            Some("ws") => ("ws", Place::plain(host, port.unwrap_or(80))),
            Some("wss") => ("wss", Place::tls(host, port.unwrap_or(443), tls)?),
            _ => return Err(wrong()),
        };
        let path = match uri.path() {
            "" | "/" => "/v1/connect",
            path => path,
        };
        // With `wait` the server leaves the first word to `connect`, which brings positions.
        let mut query = uri
            .query()
            .map_or(String::new(), |query| format!("{query}&"));
        query.push_str("wait=1");
        if let Some(user) = user {
            query.push_str(&format!("&user={}", percent_encode(user)));
        }
        let full = format!("{scheme}://{authority}{path}?{query}");
        let request = ClientRequestBuilder::new(full.parse().map_err(|_| wrong())?)
            .with_sub_protocol(SUBPROTOCOL);
        Ok(Self {
            url: shown,
            place,
            request,
        })
    }

    /// The address as it was given, without login and query.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where to connect.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// What to ask for there, as whom.
    #[must_use]
    pub fn request(&self, token: Option<&str>) -> ClientRequestBuilder {
        let request = self.request.clone();
        match token {
            Some(token) => request.with_header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    #[test]
    fn an_address_gets_its_path_and_keeps_its_query() {
        let path = |url: &str, user: Option<&str>| {
            let address = Address::new(url, user, &Tls::default()).expect("an address");
            let request = address.request.into_client_request().expect("a request");
            request.uri().to_string()
        };
        assert_eq!(path("ws://h:1", None), "ws://h:1/v1/connect?wait=1");
        assert_eq!(
            path("ws://h/x?heartbeat=app", Some("a&b")),
            "ws://h/x?heartbeat=app&wait=1&user=a%26b"
        );
    }

    #[test]
    fn an_address_of_another_kind_is_refused() {
        let error = |url: &str| Address::new(url, None, &Tls::default()).err();
        for wrong in ["http://h", "h:8080", "", "ws://", "ws://u:p@h"] {
            let error = error(wrong);
            assert!(
                matches!(error, Some(ConnectionError::Address { .. })),
                "{wrong}"
            );
        }
    }
}
