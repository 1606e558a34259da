//! The forms of text: addresses, names, URLs, origins, secrets.
//!
//! In: text from any source. Out: the text as it is kept, or why it cannot be. No form prints what
//! it reads.

use std::net::SocketAddr;

use hyper::Uri;

use crate::config::authorizer::is_name;
use crate::config::faults::Wrong;
use crate::config::log_filter;
use crate::config::origin;
use crate::config::redis_url::{self, RedisUrl};
use fanfare_protocol::ids::NodeId;

/// A form that text must have.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// What is expected, with an example.
    pub wanted: &'static str,
    /// The text as it is kept.
    pub read: fn(&str) -> Result<String, Unfit>,
    /// What may be printed in place of the text, where the text is a secret.
    pub hide: Option<fn(&str) -> String>,
    /// Whether spaces around the text are a part of it; one line break at its end never is.
    pub exact: bool,
}

/// Why a value is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// It has not the kind or form: what is wanted says it all.
    Form,
    /// It nearly has: what is wrong with it. Of a secret nothing is repeated.
    Because(Wrong),
}

impl From<Wrong> for Unfit {
    fn from(wrong: Wrong) -> Self {
        Self::Because(wrong)
    }
}

impl Form {
    /// Reads text as a source has it.
    ///
    /// # Errors
    /// Why it cannot be kept.
    pub fn read(&self, text: &str) -> Result<String, Unfit> {
        if text.contains(char::REPLACEMENT_CHARACTER) {
            return Err(NOT_TEXT.into());
        }
        (self.read)(if self.exact {
            without_line_break(text)
        } else {
            text.trim()
        })
    }
}

/// Bytes that are no UTF-8 come as this character from the environment.
const NOT_TEXT: Wrong = Wrong {
    what: std::borrow::Cow::Borrowed("it has bytes that are not UTF-8"),
    remedy: std::borrow::Cow::Borrowed("give text; bytes can be written as base64 or hex"),
};

/// Text without the line break at its end. Editors and `echo` put one there that nobody means.
#[must_use]
pub fn without_line_break(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

/// What `config init` shows for a secret. It is refused, because everybody knows it.
pub const EXAMPLE_SECRET: &str = "put 32 or more random characters of your own here";

/// Any text with at least one character.
pub const ANY: Form = form("text", |text| kept_if(text, !text.is_empty()));

/// A listener's address.
pub const ADDRESS: Form = form("an address and a port, for example 0.0.0.0:8080", |text| {
    let address = text.parse::<SocketAddr>().map_err(|_| Unfit::Form)?;
    Ok(address.to_string())
});

/// The address of the public listener, or that there is none.
pub const PUBLIC_ADDRESS: Form = form(
    "an address and a port, for example 0.0.0.0:8080, or none for a node without sessions",
    |text| match text {
        NO_LISTENER => Ok(text.to_owned()),
        _ => (ADDRESS.read)(text),
    },
);

/// Says of a listener that there is to be none.
pub const NO_LISTENER: &str = "none";

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
        let uri: Uri = url.parse().map_err(|_| Unfit::Form)?;
        let known = matches!(uri.scheme_str(), Some("ws" | "wss" | "http" | "https"));
        if url.contains('@') {
            let what = "it has a login, which every client would be told";
            return Err(Wrong::new(what, "leave the login out").into());
        }
        if known && uri.host().is_some_and(|host| !host.is_empty()) {
            Ok(url)
        } else {
            Err(Unfit::Form)
        }
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
             redis-sentinel://host:port,host:port[/database]?master=NAME, \
             redis-cluster://host:port,host:port or unix:///path[?db=database], with TLS rediss \
             instead of redis, for example redis://127.0.0.1:6379",
    read: |text| {
        RedisUrl::parse(text)?;
        Ok(text.to_owned())
    },
    hide: Some(redis_url::hidden),
    exact: false,
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
pub const SECRET: Form = Form {
    exact: true,
    ..secret("text of at least 32 bytes", |text| {
        if text == EXAMPLE_SECRET {
            let remedy = "give one of your own, for example by: openssl rand -base64 48";
            return Err(Wrong::new("this is the example, which everybody knows", remedy).into());
        }
        kept_if(text, !text.is_empty())
    })
};

/// A cookie's name (RFC 6265: an HTTP token).
pub const COOKIE: Form = form("a cookie's name, for example fanfare_token", |text| {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    kept_if(text, !text.is_empty() && text.bytes().all(allowed))
});

/// An origin as browsers send it.
pub const ORIGIN: Form = form("origins, for example https://app.example.com", |text| {
    Ok(origin::read(text)?)
});

/// The name of an authorizer.
pub const AUTHORIZER: Form = form("the name of one of [[authorizers]]", |text| {
    kept_if(text, is_name(text))
});

/// What is logged.
pub const FILTER: Form = form("a filter, for example info or info,fanfare=debug", |text| {
    if text.is_empty() {
        return Err(Unfit::Form);
    }
    Ok(log_filter::read(text)?)
});

const fn form(wanted: &'static str, read: fn(&str) -> Result<String, Unfit>) -> Form {
    Form {
        wanted,
        read,
        hide: None,
        exact: false,
    }
}

const fn secret(wanted: &'static str, read: fn(&str) -> Result<String, Unfit>) -> Form {
    Form {
        wanted,
        read,
        hide: Some(|_| "***".to_owned()),
        exact: false,
    }
}

fn kept_if(text: &str, allowed: bool) -> Result<String, Unfit> {
    if allowed {
        Ok(text.to_owned())
    } else {
        Err(Unfit::Form)
    }
}
