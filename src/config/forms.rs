//! The forms of text: addresses, names, URLs, origins, secrets.
//!
//! In: trimmed text from any source. Out: the text as it is kept, or `None` when it does not have
//! the form. No form prints what it reads.

use std::net::SocketAddr;

use hyper::Uri;

use crate::config::redis_url::{self, RedisUrl};
use crate::protocol::ids::NodeId;

/// A form that text must have.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// What is expected, with an example.
    pub wanted: &'static str,
    /// The text as it is kept, or `None` when it does not have the form.
    pub read: fn(&str) -> Option<String>,
    /// What may be printed in place of the text, where the text is a secret.
    pub hide: Option<fn(&str) -> String>,
}

/// Any text with at least one character.
pub const ANY: Form = form("text", |text| kept_if(text, !text.is_empty()));

/// A listener's address.
pub const ADDRESS: Form = form("an address and a port, for example 0.0.0.0:8080", |text| {
    text.parse::<SocketAddr>()
        .ok()
        .map(|address| address.to_string())
});

/// A node's name.
pub const NODE_NAME: Form = form(
    "1 to 64 characters of A-Z a-z 0-9 . _ -, for example fanfare-0",
    |text| kept_if(text, NodeId::new(text).is_ok()),
);

/// The address under which others reach this node. Without a scheme it is a WebSocket address.
pub const ADVERTISED: Form = form(
    "a URL or host:port, for example wss://node-0.example.com",
    |text| {
        let url = match text.contains("://") {
            true => text.to_owned(),
            false => format!("ws://{text}"),
        };
        let uri: Uri = url.parse().ok()?;
        let known = matches!(uri.scheme_str()?, "ws" | "wss" | "http" | "https");
        (known && has_host(&uri)).then_some(url)
    },
);

/// First part of every key in Redis: nothing that could steer a slot.
pub const PREFIX: Form = form(
    "1 to 32 characters of A-Z a-z 0-9 . _ -, for example ff",
    |text| kept_if(text, text.len() <= 32 && NodeId::new(text).is_ok()),
);

/// Where Redis is, in each of its forms. It may carry a password.
pub const REDIS_URL: Form = Form {
    wanted: "redis://[user:password@]host[:port][/database], \
             redis-sentinel://host:port,host:port[/database]?master=NAME or \
             redis-cluster://host:port,host:port, for example redis://127.0.0.1:6379",
    read: |text| kept_if(text, RedisUrl::parse(text).is_some()),
    hide: Some(redis_url::hidden),
};

/// One key of the HTTP API. It travels in a header and, in the environment, in a list.
pub const API_KEY: Form = secret(
    "keys of printable ASCII without spaces and commas",
    |text| {
        let printable = text.bytes().all(|b| b.is_ascii_graphic() && b != b',');
        kept_if(text, printable && !text.is_empty())
    },
);

/// A shared secret.
pub const SECRET: Form = secret("text of at least 32 bytes", |text| {
    kept_if(text, !text.is_empty())
});

/// A cookie's name (RFC 6265: an HTTP token).
pub const COOKIE: Form = form("a cookie's name, for example fanfare_token", |text| {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    kept_if(text, !text.is_empty() && text.bytes().all(allowed))
});

/// An origin as browsers send it.
pub const ORIGIN: Form = form("origins, for example https://app.example.com", |text| {
    let uri: Uri = text.parse().ok()?;
    let web = matches!(uri.scheme_str()?, "http" | "https");
    let bare = uri.path() == "/" && uri.query().is_none() && !text.ends_with('/');
    (web && bare && has_host(&uri)).then(|| text.to_ascii_lowercase())
});

/// What is logged.
pub const FILTER: Form = form("a filter, for example info or info,fanfare=debug", |text| {
    let filter = tracing_subscriber::EnvFilter::try_new(text);
    kept_if(text, !text.is_empty() && filter.is_ok())
});

const fn form(wanted: &'static str, read: fn(&str) -> Option<String>) -> Form {
    Form {
        wanted,
        read,
        hide: None,
    }
}

const fn secret(wanted: &'static str, read: fn(&str) -> Option<String>) -> Form {
    Form {
        wanted,
        read,
        hide: Some(|_| "***".to_owned()),
    }
}

fn kept_if(text: &str, allowed: bool) -> Option<String> {
    allowed.then(|| text.to_owned())
}

fn has_host(uri: &Uri) -> bool {
    uri.host().is_some_and(|host| !host.is_empty())
}
