//! `docs/configuration.md` is made from the table of keys; this holds the two together.
//!
//! `FANFARE_WRITE_DOCS=1 cargo test --test cli config::reference` writes the page anew.

use std::fmt::Write;

use fanfare::config::authorizer::AUTHORIZERS_MAX;
use fanfare::config::authorizers;
use fanfare::config::client_list;
use fanfare::config::example::default_in_words;
use fanfare::config::issuers::{self, ISSUERS_MAX};
use fanfare::config::key::Key;
use fanfare::config::keys;
use fanfare::config::presets::{MEDIUM, SIZES};
use fanfare::config::token_keys::{FIELDS, WITH_PUBLIC_KEY, WITH_SECRET};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");

#[test]
fn the_page_says_what_the_table_says() {
    let made = page();
    if std::env::var_os("FANFARE_WRITE_DOCS").is_some() {
        std::fs::write(PAGE, &made).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap();
    for (made, written) in made.lines().zip(written.lines()) {
        assert_eq!(
            written, made,
            "write the page anew as the head of this file says"
        );
    }
    assert_eq!(
        written.len(),
        made.len(),
        "write the page anew as the head of this file says"
    );
}

#[test]
fn every_variable_that_the_page_names_sets_a_key_and_the_names_of_others_are_there() {
    let written = std::fs::read_to_string(PAGE).unwrap();
    let known: Vec<_> = keys::all().iter().map(Key::environment).collect();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = written.split(|c| !is_part(c));
    let named: Vec<_> = words
        .filter(|word| word.starts_with("FANFARE_") && word.contains("__"))
        .filter(|word| *word != "FANFARE_SECTION__KEY")
        .collect();
    assert!(
        named.len() > known.len(),
        "each key, and those in sentences"
    );
    for name in named {
        assert!(known.iter().any(|known| known == name), "{name}");
    }
    let (_, table) = written.split_once("## Names of others").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    for name in [
        "ENVIRONMENT",
        "DEPLOYMENT_SIZE",
        "REDIS_HOST",
        "REDIS_PORT",
        "REDIS_PASSWORD",
        "ENABLE_SSL",
        "SSL_CERT_PATH",
        "SSL_KEY_PATH",
    ] {
        assert!(table.contains(&format!("`{name}`")), "{name}");
    }
}

fn page() -> String {
    let mut out = include_str!("introduction.md").to_owned();
    write_sizes(&mut out);
    for section in keys::sections() {
        write!(out, "\n## `[{section}]`\n\n").unwrap();
        let rows: Vec<_> = keys::all()
            .iter()
            .filter(|key| key.section == section)
            .copied()
            .collect();
        write_rows(&mut out, &rows, true);
        if section == "auth" {
            write_token_keys(&mut out);
        }
        if section == "api" {
            write_api_clients(&mut out);
        }
    }
    write_authorizers(&mut out);
    out.push_str("\n## `[apps.NAME]`\n\n");
    out.push_str(include_str!("apps.md"));
    out.push_str("\n## `[namespaces.NAME]`\n\n");
    out.push_str(include_str!("namespaces.md"));
    out.push('\n');
    write_rows(&mut out, keys::namespace_options(), false);
    out
}

fn write_sizes(out: &mut String) {
    let names: Vec<_> = SIZES.iter().map(|size| size.name).collect();
    writeln!(out, "\n| key | {} |", names.join(" | ")).unwrap();
    writeln!(out, "|---|{}", "---|".repeat(names.len())).unwrap();
    for (row, (path, _)) in MEDIUM.settings().iter().enumerate() {
        let values: Vec<_> = SIZES.iter().map(|size| size.settings()[row].1).collect();
        writeln!(out, "| `{path}` | {} |", values.join(" | ")).unwrap();
    }
}

fn write_rows(out: &mut String, rows: &[Key], with_names: bool) {
    let head = if with_names { " environment |" } else { "" };
    let line = if with_names { "---|" } else { "" };
    writeln!(out, "| key | what | values | default |{head}").unwrap();
    writeln!(out, "|---|---|---|---|{line}").unwrap();
    for key in rows {
        let (name, doc, wanted) = (key.name, key.doc, key.kind.wanted());
        let default = default_in_words(key);
        write!(out, "| `{name}` | {doc} | {wanted} | {default} |").unwrap();
        if with_names {
            write!(out, " `{}` |", key.environment()).unwrap();
        }
        out.push('\n');
    }
}

fn write_api_clients(out: &mut String) {
    out.push_str(
        "\n### `[[api.clients]]`\n\n\
         One table for each caller that may do a part of what the API does; in the file only. \
         [api-clients.md](api-clients.md) says more.\n\n\
         | field | what |\n|---|---|\n",
    );
    for (name, doc) in client_list::FIELDS {
        writeln!(out, "| `{name}` | {doc} |").unwrap();
    }
}

fn write_authorizers(out: &mut String) {
    write!(
        out,
        "\n## `[[authorizers]]`\n\n\
         One table for each backend that is asked whether a session may be, join or publish, at most \
         {AUTHORIZERS_MAX}; in the file only. Paths are taken from the directory of the configuration file. \
         [authorizers.md](authorizers.md) says more.\n\n\
         | field | what |\n|---|---|\n"
    )
    .unwrap();
    for (name, doc) in authorizers::FIELDS {
        writeln!(out, "| `{name}` | {doc} |").unwrap();
    }
}

fn write_token_keys(out: &mut String) {
    let (with_secret, with_public_key) = (WITH_SECRET.join(", "), WITH_PUBLIC_KEY.join(", "));
    write!(
        out,
        "\n### `[[auth.keys]]`\n\n\
         One table for each key that tokens may be signed with; in the file only. The algorithms \
         {with_secret} take one of the `secret` fields, {with_public_key} one of the `public_key` \
         fields. Paths are taken from the directory of the configuration file.\n\n\
         | field | what |\n|---|---|\n"
    )
    .unwrap();
    for (name, doc) in FIELDS {
        writeln!(out, "| `{name}` | {doc} |").unwrap();
    }
    write!(
        out,
        "\n### `[[auth.issuers]]`\n\n\
         One table for each other issuer of tokens, at most {ISSUERS_MAX}; in the file only. \
         [keys.md](keys.md) says how keys are found and fetched.\n\n\
         | field | what |\n|---|---|\n"
    )
    .unwrap();
    for (name, doc) in issuers::FIELDS {
        writeln!(out, "| `{name}` | {doc} |").unwrap();
    }
}
