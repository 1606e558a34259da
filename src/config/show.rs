//! The configuration in force, for `config show` and for the log at start.
//!
//! In: [`Values`]. Out: one row a key with value and origin; secrets are hidden before they get
//! here, so that no form of output can show one.

use serde::Serialize;

use crate::config::Authorizer;
use crate::config::api_clients::{ApiClient, ClientApp, Scope};
use crate::config::keys;
use crate::config::values::{Origin, Values};

/// One value that is in force.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The key's path, for example `server.listen`.
    pub key: String,
    /// The value; `***` stands for a secret, `null` for nothing.
    pub value: serde_json::Value,
    /// Where it came from, for example `fanfare.toml:3:10` or `default`.
    pub origin: String,
}

/// Every value in the order of the table, then the token keys, the clients of the API, and
/// what apps set.
#[must_use]
pub fn rows(values: &Values) -> Vec<Row> {
    let settings = values.paths().into_iter().filter_map(|(path, key)| {
        let setting = values.get(&path)?;
        Some(Row {
            value: setting.value.shown(&key.kind),
            origin: setting.origin.to_string(),
            key: path,
        })
    });
    let clients = values.api_clients_with_origins().iter().enumerate();
    let clients = clients.map(|(index, (client, origin))| Row {
        key: format!("api.clients[{index}]"),
        value: shown(client).into(),
        origin: Origin::to_string(origin),
    });
    let apps = values.app_drafts().values();
    settings
        .chain(keys_of(values))
        .chain(of_authorizers(values))
        .chain(clients)
        .chain(apps.flat_map(of_app))
        .collect()
}

/// The token keys and issuers of a node or an app.
fn keys_of(values: &Values) -> Vec<Row> {
    let token_keys = values.token_keys_with_origins().iter().enumerate();
    let token_keys = token_keys.map(|(index, (key, origin))| Row {
        key: values.shown(&format!("auth.keys[{index}]")),
        value: format!("{} {} ***", key.id.as_deref().unwrap_or("-"), key.algorithm).into(),
        origin: Origin::to_string(origin),
    });
    let issuers = values.issuers().into_iter().enumerate();
    let issuers = issuers.zip(values.issuer_origins());
    let issuers = issuers.map(|((index, issuer), origin)| {
        let source = match &issuer.jwks {
            Some(jwks) => jwks.shown(),
            None => format!("{} keys ***", issuer.keys.len()),
        };
        Row {
            key: values.shown(&format!("auth.issuers[{index}]")),
            value: format!("{} {source}", issuer.issuer).into(),
            origin: Origin::to_string(origin),
        }
    });
    token_keys.chain(issuers).collect()
}

/// What an app sets. Of the rest it has what the node has.
fn of_app(values: &Values) -> Vec<Row> {
    let settings = values.said().filter_map(|(path, setting)| {
        let key = keys::find(path)?;
        Some(Row {
            key: values.shown(path),
            value: setting.value.shown(&key.kind),
            origin: setting.origin.to_string(),
        })
    });
    settings.chain(keys_of(values)).collect()
}

/// The authorizers of the node.
fn of_authorizers(values: &Values) -> impl Iterator<Item = Row> {
    let authorizers = values.authorizers_with_origins().iter().enumerate();
    authorizers.flat_map(|(index, (authorizer, origin))| {
        let row = |key: &str, value: String| Row {
            key: format!("{key}[{index}]"),
            value: value.into(),
            origin: Origin::to_string(origin),
        };
        // Headers are read again while the node runs, and the rest is not.
        let names: Vec<_> = authorizer.headers.iter().map(|(name, _)| &**name).collect();
        let headers = (!names.is_empty()).then(|| format!("{} ***", names.join(" ")));
        let own = row("authorizers", authorizer_in_words(authorizer));
        let headers = headers.map(|text| row("authorizers.headers", text));
        std::iter::once(own).chain(headers)
    })
}

/// An authorizer in one line, without its secrets and headers.
fn authorizer_in_words(authorizer: &Authorizer) -> String {
    let private = if authorizer.allow_private {
        ", private"
    } else {
        ""
    };
    let trusted = authorizer.ca_file.as_ref();
    let trusted = trusted.map(|path| format!(", by {path}"));
    format!(
        "{} {} ***, {} ms, {} at once{private}{}",
        authorizer.name,
        authorizer.url,
        authorizer.timeout.as_millis(),
        authorizer.concurrency,
        trusted.unwrap_or_default()
    )
}

/// A client in one line. What its hashes are is no secret, and tells nobody anything.
fn shown(client: &ApiClient) -> String {
    let app = match &client.app {
        ClientApp::One(app) => app.as_str(),
        ClientApp::Any => "*",
    };
    let scopes: Vec<_> = client.scopes.iter().map(Scope::word).collect();
    let topics = match &client.topics {
        Some(patterns) => patterns.join(","),
        None => "all topics".to_owned(),
    };
    let expires = client.expires.map(|s| format!(", until {s}"));
    format!(
        "{} app {app}, {}, {topics}{}",
        client.name,
        scopes.join(","),
        expires.unwrap_or_default()
    )
}

/// The rows as a table for people.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let shown: Vec<_> = rows.iter().map(|row| plain(&row.value)).collect();
    let key_width = rows.iter().map(|row| row.key.len()).max().unwrap_or(0);
    let value_width = shown.iter().map(String::len).max().unwrap_or(0).min(40);
    let lines = rows.iter().zip(&shown).map(|(row, value)| {
        let (key, origin) = (&row.key, &row.origin);
        format!("{key:key_width$}  {value:value_width$}  {origin}\n")
    });
    lines.collect()
}

/// The rows as JSON lines for programs.
#[must_use]
pub fn json_lines(rows: &[Row]) -> String {
    let lines = rows.iter().map(|row| {
        let line = serde_json::to_string(row).expect("rows are text, numbers and lists");
        line + "\n"
    });
    lines.collect()
}

/// A value without the marks of JSON.
fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "-".to_owned(),
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(items) if items.is_empty() => "-".to_owned(),
        serde_json::Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
