//! `[[authorizers]]`: who is asked, where, and by which secrets the enquiries are signed.
//!
//! In: the list as the file has it, variables and other files that it names. Out: an [`Authorizer`] each that
//! can be used, or a fault with its place. Neither a secret nor the value of a header is part of a fault.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use toml::Spanned;
use toml::de::DeValue;

use crate::config::Secret;
use crate::config::authorizer::{
    AUTHORIZERS_MAX, Authorizer, HEADERS_MAX, PATH, SECRETS_MAX, is_name, secret_bytes,
};
use crate::config::checks::files::certificates;
use crate::config::entry::Entry;
use crate::config::environment::value_of;
use crate::config::faults::Faults;
use crate::config::file_text::{File, in_order};
use crate::config::inputs::Inputs;
use crate::config::token_keys;
use crate::config::values::{Origin, Values};

/// The fields of an entry with what they mean.
pub const FIELDS: [(&str, &str); 10] = [
    (
        "name",
        "As `auth.authorize_connect` and namespaces name it: 1 to 32 of `a-z 0-9 _ -`. Required, and once in the list.",
    ),
    (
        "url",
        "Where it is asked: `https`, no redirects; with `allow_private` also `http`. Required.",
    ),
    (
        "secrets",
        "One secret, or two while it is rotated: `whsec_` and the base64 of 24 to 64 bytes. One of the three `secrets` fields is required.",
    ),
    (
        "secrets_file",
        "A file with them, one a line; read again when it has changed.",
    ),
    (
        "secrets_env",
        "The name of a variable with them, separated by a comma.",
    ),
    (
        "timeout_ms",
        "Longest time for an answer, 10 to 30,000. As long again for a place to ask. Default 2,000.",
    ),
    (
        "concurrency",
        "Most enquiries at once from each node, 1 to 1,024. Default 64.",
    ),
    (
        "headers",
        "Headers that are sent with each enquiry, as `{ Authorization = \"Bearer …\" }`, at most 16.",
    ),
    (
        "ca_file",
        "Certificates (PEM) that it is trusted by, instead of the system's.",
    ),
    (
        "allow_private",
        "Whether it may lead to a private address, and be `http`. Default `false`.",
    ),
];

/// Headers that are this server's, or of one connection only (RFC 9110, section 7.6.1).
const RESERVED: [&str; 15] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// The fields that say where the secrets are.
const SECRETS: [&str; 3] = ["secrets", "secrets_file", "secrets_env"];

/// Longest value of a header, in bytes.
const HEADER_BYTES_MAX: usize = 4_096;

/// Reads the list and returns the names of the variables that it used.
pub fn read(
    file: &File<'_>,
    list: &Spanned<DeValue<'_>>,
    inputs: &Inputs,
    values: &mut Values,
    faults: &mut Faults,
) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    let Some(tables) = token_keys::tables(list) else {
        let remedy = "write [[authorizers]] once for each authorizer";
        faults.push(
            file.place(list.span()),
            "authorizers is no list of tables",
            remedy,
        );
        values.refuse(PATH.to_owned());
        return used;
    };
    if tables.len() > AUTHORIZERS_MAX {
        let what = format!("authorizers has {} entries", tables.len());
        let remedy = format!("give at most {AUTHORIZERS_MAX}");
        faults.push(file.place(list.span()), what, remedy);
        values.refuse(PATH.to_owned());
        return used;
    }
    for (index, (span, table)) in tables.into_iter().enumerate() {
        let faults_before = faults.0.len();
        let entry = Entry {
            file,
            table,
            place: file.place(span),
            path: format!("{PATH}[{index}]"),
        };
        let authorizer = read_one(&entry, inputs, &mut used, values, faults);
        if let Some(authorizer) = &authorizer
            && values
                .authorizers()
                .iter()
                .any(|a| a.name == authorizer.name)
        {
            let remedy = "give each authorizer its own name";
            entry.fault("name", "is taken by an earlier entry", remedy, faults);
        }
        match authorizer {
            Some(authorizer) if faults.0.len() == faults_before => {
                values.add_authorizer(authorizer, Origin::File(entry.place));
            }
            _ => values.refuse(PATH.to_owned()),
        }
    }
    used
}

fn read_one(
    entry: &Entry<'_>,
    inputs: &Inputs,
    used: &mut BTreeSet<String>,
    values: &mut Values,
    faults: &mut Faults,
) -> Option<Authorizer> {
    entry.check_names(&FIELDS, faults);
    let required = |name: &str, faults: &mut Faults| {
        if !entry.table.contains_key(name) {
            let what = format!("{} has no {name}", entry.path);
            faults.push(&entry.place, what, format!("give {name}"));
        }
        entry.text(name, faults)
    };
    let name = required("name", faults);
    if name.as_ref().is_some_and(|name| !is_name(name)) {
        let remedy = "give 1 to 32 characters of a-z 0-9 _ -";
        entry.fault("name", "cannot be this", remedy, faults);
    }
    let allow_private = entry.flag("allow_private", faults);
    let url = required("url", faults);
    if let Some(why) = url.as_ref().and_then(|url| url_fault(url, allow_private)) {
        let remedy = "give https://HOST/PATH, without a login or a fragment";
        entry.fault("url", why, remedy, faults);
    }
    let secrets = secrets(entry, inputs, used, values, faults);
    let directory = entry.file.path.parent().unwrap_or(entry.file.path);
    let ca_file = entry.text("ca_file", faults);
    let ca_file = ca_file.map(|name| directory.join(name));
    if let Some(path) = &ca_file
        && let Err(why) = certificates(path)
    {
        let why = format!("cannot be used: {why}");
        let remedy = "name a file with certificates as PEM";
        entry.fault("ca_file", &why, remedy, faults);
    }
    let timeout_ms = entry.number("timeout_ms", (10, 30_000), 2_000, faults);
    let concurrency = entry.number("concurrency", (1, 1_024), 64, faults);
    let headers = headers(entry, faults);
    Some(Authorizer {
        name: name?,
        url: url?,
        secrets,
        timeout: Duration::from_millis(timeout_ms),
        concurrency: usize::try_from(concurrency).unwrap_or(usize::MAX),
        headers,
        ca_file: ca_file.map(|path| path.display().to_string()),
        allow_private,
    })
}

fn url_fault(text: &str, allow_private: bool) -> Option<&'static str> {
    let Ok(url) = url::Url::parse(text) else {
        return Some("is no URL");
    };
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        "http" => return Some("is http, which goes with allow_private only"),
        _ => return Some("is not https"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("has a login");
    }
    if url.host_str().is_none_or(str::is_empty) || url.fragment().is_some() {
        return Some("has no host, or a fragment");
    }
    None
}

fn secrets(
    entry: &Entry<'_>,
    inputs: &Inputs,
    used: &mut BTreeSet<String>,
    values: &mut Values,
    faults: &mut Faults,
) -> Vec<Secret> {
    let given = SECRETS
        .iter()
        .filter(|name| entry.table.contains_key(**name));
    let given: Vec<_> = given.copied().collect();
    let [name] = given[..] else {
        let what = format!("{} has not one source of secrets", entry.path);
        let remedy = "give one of secrets, secrets_file, secrets_env";
        faults.push(&entry.place, what, remedy);
        return Vec::new();
    };
    let texts = match name {
        "secrets" => entry.texts(name, faults),
        "secrets_file" => of_file(entry, values, faults),
        _ => of_variable(entry, inputs, used, faults),
    };
    let Some(texts) = texts else {
        return Vec::new();
    };
    let remedy =
        "give one secret, or two while it is rotated: whsec_ and the base64 of 24 to 64 bytes";
    if texts.is_empty() || texts.len() > SECRETS_MAX {
        entry.fault(
            name,
            &format!("has {} secrets", texts.len()),
            remedy,
            faults,
        );
    }
    for (at, text) in texts.iter().enumerate() {
        if let Err(why) = secret_bytes(text) {
            let why = format!("cannot be used: secret {} {why}", at + 1);
            entry.fault(name, &why, remedy, faults);
        }
    }
    texts.into_iter().map(Secret).collect()
}

fn of_file(entry: &Entry<'_>, values: &mut Values, faults: &mut Faults) -> Option<Vec<String>> {
    let name = entry.text("secrets_file", faults)?;
    let directory = entry.file.path.parent().unwrap_or(entry.file.path);
    let path = directory.join(&name);
    values.watch_files([path.clone()]);
    match token_keys::read_material(Path::new(&path)) {
        Ok(text) => {
            let lines = text.lines().map(str::trim);
            let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
            Some(lines.map(str::to_owned).collect())
        }
        Err(cause) => {
            let why = format!("names {name}, which cannot be read: {cause}");
            let remedy = "name a file with one secret a line";
            entry.fault("secrets_file", &why, remedy, faults);
            None
        }
    }
}

fn of_variable(
    entry: &Entry<'_>,
    inputs: &Inputs,
    used: &mut BTreeSet<String>,
    faults: &mut Faults,
) -> Option<Vec<String>> {
    let name = entry.text("secrets_env", faults)?;
    used.insert(name.clone());
    let Some(text) = value_of(&inputs.environment, &name) else {
        let why = format!("names {name}, which is not set");
        let remedy = format!("set {name} to the secrets, separated by a comma");
        entry.fault("secrets_env", &why, remedy, faults);
        return None;
    };
    let pieces = text.split(',').map(str::trim);
    let pieces = pieces.filter(|piece| !piece.is_empty());
    Some(pieces.map(str::to_owned).collect())
}

fn headers(entry: &Entry<'_>, faults: &mut Faults) -> Vec<(String, Secret)> {
    let Some(value) = entry.table.get("headers") else {
        return Vec::new();
    };
    let remedy = "give names and values, as { Authorization = \"Bearer …\" }";
    let Some(table) = value.get_ref().as_table() else {
        entry.fault("headers", "is no table", remedy, faults);
        return Vec::new();
    };
    if table.len() > HEADERS_MAX {
        let why = format!("has {} headers", table.len());
        let remedy = format!("give at most {HEADERS_MAX}");
        entry.fault("headers", &why, remedy, faults);
    }
    let mut headers: Vec<(String, Secret)> = Vec::new();
    for (name, value) in in_order(table) {
        let name_text = name.get_ref().to_ascii_lowercase();
        let text = value.get_ref().as_str();
        let fault = if HeaderName::from_bytes(name_text.as_bytes()).is_err() {
            Some("is no name of a header")
        } else if RESERVED.contains(&name_text.as_str()) || name_text.starts_with("webhook-") {
            Some("is a header that this server sets, or one of a single connection")
        } else if headers.iter().any(|(known, _)| *known == name_text) {
            Some("is there twice")
        } else if !text.is_some_and(is_header_value) {
            Some("has a value that is no visible ASCII of at most 4096 bytes")
        } else {
            None
        };
        if let Some(why) = fault {
            let what = format!("{}.headers.{} {why}", entry.path, name.get_ref());
            faults.push(entry.file.place(value.span()), what, remedy);
        }
        headers.push((name_text, Secret(text.unwrap_or_default().to_owned())));
    }
    headers
}

fn is_header_value(text: &str) -> bool {
    let value = HeaderValue::from_str(text);
    text.len() <= HEADER_BYTES_MAX && value.is_ok_and(|value| value.to_str().is_ok())
}
