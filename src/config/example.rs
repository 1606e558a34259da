//! The commented file that `config init` prints: every key with its meaning, range and default.
//!
//! In: the table of keys. Out: a file that loads and changes nothing, because each value is a
//! comment: a value in the file would hide the presets of `--size` and `--env`.

use std::fmt::Write;

use crate::config::authorizers;
use crate::config::client_list;
use crate::config::issuers;
use crate::config::key::{Initial, Key};
use crate::config::keys;
use crate::config::presets::MEDIUM;
use crate::config::token_keys::FIELDS;
use crate::config::value::{Kind, Unit, Value};

const HEAD: &str = "\
# The configuration of Fanfare. Every value here is a comment that shows its default: take the #
# in front of a line away to change it. Later wins: preset, this file, environment, flag. In the
# environment section.key is FANFARE_SECTION__KEY.
#
#   fanfare config check --config fanfare.toml
#   fanfare config show --config fanfare.toml
#   fanfare serve --config fanfare.toml
";

const COMMENT_WIDTH: usize = 98;

/// The whole file.
#[must_use]
pub fn commented_file() -> String {
    let mut out = HEAD.to_owned();
    for section in keys::sections() {
        let _infallible = write!(out, "\n[{section}]\n");
        for key in keys::all().iter().filter(|key| key.section == section) {
            write_key(&mut out, key);
        }
        if section == "auth" {
            write_token_key(&mut out);
        }
        if section == "api" {
            write_api_client(&mut out);
        }
    }
    write_authorizer(&mut out);
    comment(
        &mut out,
        "\nThe options of topics whose part before the first : is NAME; those without : are in \
         default. A namespace that is not named here has the options of default. What is left out \
         has the default below.",
    );
    out.push_str("\n[namespaces.default]\n");
    for key in keys::namespace_options() {
        write_key(&mut out, key);
    }
    comment(
        &mut out,
        "\nFurther apps beside default, which has the sections above: each with keys of its own in \
         [[apps.NAME.auth.keys]], and with issuer, audience, anonymous and token_life_max_s of [auth], namespaces, [inbox] and \
         [everyone] where it wants them otherwise. For example:",
    );
    out.push_str(APP);
    out
}

const APP: &str = "\
#[apps.shop.auth]
#audience = \"shop\"
#[apps.shop.namespaces.orders]
#history_entries_max = 100
";

/// The default or, where there is none, an example, as TOML.
#[must_use]
pub fn shown_default(key: &Key) -> String {
    let text = match key.default {
        Initial::Is(text) | Initial::Unset(text) | Initial::Found(_, text) => text,
        Initial::BySize => {
            let mut settings = MEDIUM.settings().into_iter();
            let setting = settings.find(|(path, _)| *path == key.path());
            setting.map_or("", |(_, text)| text)
        }
    };
    match key.kind.read_text(text) {
        Ok(Value::Number(number)) => number.to_string(),
        Ok(Value::Flag(flag)) => flag.to_string(),
        Ok(Value::Text(number)) if matches!(key.kind, Kind::Ratio) => number,
        Ok(Value::List(items)) => serde_json::Value::from(items).to_string(),
        _ => format!("{text:?}"),
    }
}

/// What a key is by default, in words.
#[must_use]
pub fn default_in_words(key: &Key) -> String {
    match key.default {
        Initial::Is(_) => shown_default(key),
        Initial::Unset(_) => "not set".to_owned(),
        Initial::Found(words, _) => words.to_owned(),
        Initial::BySize => {
            let bound = match key.kind {
                Kind::Number {
                    unit: Unit::Bytes, ..
                } => ", but not more than a quarter of the memory",
                _ => "",
            };
            format!("by --size; without it {}{bound}", shown_default(key))
        }
    }
}

fn write_key(out: &mut String, key: &Key) {
    let range = match key.kind {
        Kind::Flag => String::new(),
        kind => format!(" Give {}.", kind.wanted()),
    };
    comment(
        out,
        &format!("\n{}{range} Default: {}.", key.doc, default_in_words(key)),
    );
    let _infallible = writeln!(out, "#{} = {}", key.name, shown_default(key));
}

fn write_token_key(out: &mut String) {
    comment(
        out,
        "\nThe keys that tokens may be signed with, once for each key:",
    );
    for (name, doc) in FIELDS {
        comment(out, &format!("  {name}: {doc}"));
    }
    out.push_str("#[[auth.keys]]\n#id = \"web\"\n#algorithm = \"HS256\"\n");
    out.push_str("#secret_env = \"TOKEN_SECRET\"\n");
    comment(
        out,
        "\nOthers who sign tokens, with keys of their own, once for each issuer:",
    );
    for (name, doc) in issuers::FIELDS {
        comment(out, &format!("  {name}: {doc}"));
    }
    out.push_str("#[[auth.issuers]]\n#issuer = \"https://id.example.com/\"\n");
    out.push_str("#jwks_url = \"https://id.example.com/.well-known/jwks.json\"\n");
}

fn write_authorizer(out: &mut String) {
    comment(
        out,
        "\nBackends that are asked whether a session may be, join or publish, once for each:",
    );
    for (name, doc) in authorizers::FIELDS {
        comment(out, &format!("  {name}: {doc}"));
    }
    out.push_str("#[[authorizers]]\n#name = \"backend\"\n");
    out.push_str("#url = \"https://backend.example.com/fanfare\"\n");
    out.push_str("#secrets_env = \"AUTHORIZER_SECRETS\"\n");
}

fn write_api_client(out: &mut String) {
    comment(
        out,
        "\nCallers that may do a part of what the API does, once for each:",
    );
    for (name, doc) in client_list::FIELDS {
        comment(out, &format!("  {name}: {doc}"));
    }
    out.push_str("#[[api.clients]]\n#name = \"billing\"\n");
    // Nobody knows a key of this hash.
    let none = "0".repeat(64);
    let _infallible = writeln!(out, "#key_sha256 = \"{none}\"");
    out.push_str("#scopes = [\"publish\"]\n#topics = [\"orders:**\", \"@*\"]\n");
}

/// Breaks text into comment lines; a newline in front makes an empty line first.
fn comment(out: &mut String, text: &str) {
    if let Some(text) = text.strip_prefix('\n') {
        out.push('\n');
        return comment(out, text);
    }
    let mut line = "#".to_owned();
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > COMMENT_WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = "#".to_owned();
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}
