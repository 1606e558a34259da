//! `[[auth.issuers]]`: who else signs tokens, and how their keys are known.
//!
//! In: the list as the file has it. Out: an [`Issuer`] each that can be used, or a fault with its place.
//! Its keys are written as those of `[[auth.keys]]` are. The text of a key is never part of a fault.

use std::collections::BTreeSet;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use url::Host;

use crate::config::checks::files::certificates;
use crate::config::faults::{Faults, did_you_mean};
use crate::config::file_text::{File, in_order};
use crate::config::inputs::Inputs;
use crate::config::issuer::{Issuer, Jwks, TokenKey};
use crate::config::token_keys::{self, WITH_PUBLIC_KEY, WITH_SECRET};
use crate::config::values::{Origin, Values};

/// Most issuers: each has a task and, in the worst case, a set of keys.
pub const ISSUERS_MAX: usize = 64;

/// Claims that name no user: by these all users of an issuer would be one, or none.
const TAKEN: [&str; 10] = [
    "app", "aud", "can", "exp", "iat", "info", "iss", "jti", "nbf", "topic",
];

/// The fields of an entry with what they mean.
pub const FIELDS: [(&str, &str); 9] = [
    (
        "issuer",
        "The tokens' `iss`, exactly. Required, and once in the list.",
    ),
    (
        "audience",
        "What `aud` must be or contain. Without it `aud` is not looked at.",
    ),
    (
        "jwks_url",
        "Where the issuer publishes its keys (RFC 7517): `https`, no redirects. Instead of `keys`.",
    ),
    (
        "ca_file",
        "Certificates (PEM) that `jwks_url` is trusted by, instead of the system's.",
    ),
    (
        "allow_private",
        "Whether `jwks_url` may lead to a private address. Default `false`.",
    ),
    (
        "algorithms",
        "The algorithms that are allowed. Default: those of the keys; of `jwks_url` RS256, PS256, ES256 and EdDSA.",
    ),
    (
        "types",
        "Values of the header `typ` that are allowed, for example `[\"at+jwt\"]`. Default: any, and none.",
    ),
    (
        "user_claim",
        "The claim that names the user. Default `sub`.",
    ),
    (
        "keys",
        "Its keys, as `[[auth.issuers.keys]]` with the fields of `[[auth.keys]]`. Instead of `jwks_url`.",
    ),
];

/// One entry while it is read.
struct Entry<'a> {
    file: &'a File<'a>,
    table: &'a DeTable<'a>,
    place: String,
    /// `auth.issuers[0]`, for faults.
    path: String,
}

/// Reads the list and returns the names of the variables that its keys used.
pub fn read(
    file: &File<'_>,
    list: &Spanned<DeValue<'_>>,
    inputs: &Inputs,
    values: &mut Values,
    faults: &mut Faults,
) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    let Some(tables) = token_keys::tables(list) else {
        let at = values.shown("auth.issuers");
        let what = format!("{at} is no list of tables");
        let remedy = format!("write [[{at}]] once for each issuer");
        faults.push(file.place(list.span()), what, remedy);
        values.refuse("auth.issuers".to_owned());
        return used;
    };
    if tables.len() > ISSUERS_MAX {
        let at = values.shown("auth.issuers");
        let what = format!("{at} has {} entries", tables.len());
        let remedy = format!("give at most {ISSUERS_MAX}");
        faults.push(file.place(list.span()), what, remedy);
        values.refuse("auth.issuers".to_owned());
        return used;
    }
    for (index, (span, table)) in tables.into_iter().enumerate() {
        let faults_before = faults.0.len();
        let entry = Entry {
            file,
            table,
            place: file.place(span),
            path: values.shown(&format!("auth.issuers[{index}]")),
        };
        if let Some(keys) = table.get("keys") {
            values.watch_files(token_keys::files(file, keys));
        }
        let issuer = entry.read(inputs, &mut used, faults);
        let is_taken = |name: &str| values.issuers().iter().any(|known| known.issuer == name);
        if let Some(issuer) = &issuer
            && is_taken(&issuer.issuer)
        {
            let what = format!("{}.issuer is that of an earlier entry", entry.path);
            faults.push(
                &entry.place,
                what,
                "write each issuer once, with all its keys",
            );
        }
        match issuer {
            Some(issuer) if faults.0.len() == faults_before => {
                values.add_issuer(issuer, Origin::File(entry.place));
            }
            _ => values.refuse("auth.issuers".to_owned()),
        }
    }
    used
}

impl Entry<'_> {
    fn read(
        &self,
        inputs: &Inputs,
        used: &mut BTreeSet<String>,
        faults: &mut Faults,
    ) -> Option<Issuer> {
        self.check_names(faults);
        let issuer = self.text("issuer", faults);
        if issuer.is_none() {
            let what = format!("{} has no issuer", self.path);
            faults.push(&self.place, what, "give issuer, the tokens' iss");
        }
        let keys: Vec<TokenKey> = match self.table.get("keys") {
            Some(list) => {
                let path = format!("{}.keys", self.path);
                let (keys, names) = token_keys::read_list(self.file, list, &path, inputs, faults);
                used.extend(names);
                keys.into_iter().map(|(key, _)| key).collect()
            }
            None => Vec::new(),
        };
        let jwks = self.jwks(faults);
        if jwks.is_some() == self.table.contains_key("keys") {
            let what = format!("{} has not one source of keys", self.path);
            let remedy = "give jwks_url, or [[auth.issuers.keys]], and not both";
            faults.push(&self.place, what, remedy);
        }
        let algorithms = self.texts("algorithms", faults);
        self.check_algorithms(&algorithms, jwks.is_some(), faults);
        let has_any = |key: &TokenKey| algorithms.contains(&key.algorithm);
        if !keys.is_empty() && !algorithms.is_empty() && !keys.iter().any(has_any) {
            let what = format!("{}.algorithms has none of its keys'", self.path);
            let remedy = "give those of its keys, or leave it out";
            faults.push(self.place_of("algorithms"), what, remedy);
        }
        let user_claim = self.text("user_claim", faults);
        let user_claim = user_claim.unwrap_or_else(|| "sub".to_owned());
        if TAKEN.contains(&user_claim.as_str()) {
            let what = format!(
                "{}.user_claim cannot be {user_claim}, which says something else",
                self.path
            );
            let remedy = "give a claim that names the user, such as sub or email";
            faults.push(self.place_of("user_claim"), what, remedy);
        }
        Some(Issuer {
            issuer: issuer?,
            audience: self.text("audience", faults),
            jwks,
            keys,
            algorithms,
            types: self.texts("types", faults),
            user_claim,
        })
    }

    fn check_names(&self, faults: &mut Faults) {
        for (name, _) in in_order(self.table) {
            let name_text = name.get_ref().as_ref();
            if !FIELDS.iter().any(|(known, _)| *known == name_text) {
                let what = format!("{}.{name_text}", self.path);
                let fields = FIELDS.iter();
                let fields = fields.map(|(known, _)| format!("{}.{known}", self.path));
                let remedy = did_you_mean(&what, fields);
                let place = self.file.place(name.span());
                faults.push(place, format!("{what} is no key"), remedy);
            }
        }
    }

    fn check_algorithms(&self, names: &[String], is_published: bool, faults: &mut Faults) {
        for name in names {
            let is_public = WITH_PUBLIC_KEY.contains(&name.as_str());
            let is_secret = WITH_SECRET.contains(&name.as_str());
            if is_public || (is_secret && !is_published) {
                continue;
            }
            let what = format!("{}.algorithms cannot have {name:?}", self.path);
            let mut known = WITH_PUBLIC_KEY.to_vec();
            if !is_published {
                known.extend(WITH_SECRET);
            }
            let remedy = format!("give some of {}", known.join(", "));
            faults.push(self.place_of("algorithms"), what, remedy);
        }
    }

    /// What leads to files or private addresses of this machine is not for a caller of the API.
    fn check_caller(&self, faults: &mut Faults) {
        for name in ["ca_file", "allow_private"] {
            if self.file.is_from_caller() && self.table.contains_key(name) {
                let what = format!("{}.{name} cannot be given by the API", self.path);
                let remedy = "leave it out, or write the app into the file of every node";
                faults.push(self.place_of(name), what, remedy);
            }
        }
    }

    fn jwks(&self, faults: &mut Faults) -> Option<Jwks> {
        self.check_caller(faults);
        // A file of this machine is not even looked at.
        let ca_file = match self.file.is_from_caller() {
            true => None,
            false => self.text("ca_file", faults),
        };
        let allow_private = match self.table.get("allow_private").map(Spanned::get_ref) {
            None => false,
            Some(DeValue::Boolean(allowed)) => *allowed,
            Some(_) => {
                let what = format!("{}.allow_private is no true or false", self.path);
                faults.push(self.place_of("allow_private"), what, "give true or false");
                false
            }
        };
        let Some(url) = self.text("jwks_url", faults) else {
            for name in ["ca_file", "allow_private"] {
                if self.table.contains_key(name) {
                    let what = format!("{}.{name} goes with jwks_url only", self.path);
                    faults.push(self.place_of(name), what, "leave it out");
                }
            }
            return None;
        };
        if let Err(why) = check_url(&url, allow_private) {
            let what = format!("{}.jwks_url {why}", self.path);
            let remedy = "give https://HOST/PATH, without a login or a fragment";
            faults.push(self.place_of("jwks_url"), what, remedy);
        }
        let directory = self.file.path.parent().unwrap_or(self.file.path);
        let ca_file = ca_file.map(|name| directory.join(name));
        if let Some(path) = &ca_file
            && let Err(why) = certificates(Path::new(path))
        {
            let what = format!("{}.ca_file cannot be used: {why}", self.path);
            let remedy = "name a file with certificates as PEM";
            faults.push(self.place_of("ca_file"), what, remedy);
        }
        Some(Jwks {
            url,
            ca_file: ca_file.map(|path| path.display().to_string()),
            allow_private,
        })
    }

    fn text(&self, name: &str, faults: &mut Faults) -> Option<String> {
        let value = self.table.get(name)?;
        match value.get_ref().as_str() {
            Some(text) if !text.is_empty() => Some(text.to_owned()),
            _ => {
                let what = format!("{}.{name} is no text, or empty", self.path);
                faults.push(self.place_of(name), what, "give text in quotes");
                None
            }
        }
    }

    fn texts(&self, name: &str, faults: &mut Faults) -> Vec<String> {
        let Some(value) = self.table.get(name) else {
            return Vec::new();
        };
        let items = value.get_ref().as_array();
        let texts = items.and_then(|items| {
            let texts = items.iter().map(|item| item.get_ref().as_str());
            let texts = texts.map(|text| text.filter(|text| !text.is_empty()).map(str::to_owned));
            texts.collect::<Option<Vec<_>>>()
        });
        match texts {
            Some(texts) if !texts.is_empty() => texts,
            _ => {
                let what = format!("{}.{name} is no list of texts, or empty", self.path);
                let remedy = "give texts in quotes, in brackets";
                faults.push(self.place_of(name), what, remedy);
                Vec::new()
            }
        }
    }

    fn place_of(&self, name: &str) -> String {
        let value = self.table.get(name);
        value.map_or_else(|| self.place.clone(), |value| self.file.place(value.span()))
    }
}

fn check_url(text: &str, allow_private: bool) -> Result<(), &'static str> {
    let url = url::Url::parse(text).map_err(|_| "is no URL")?;
    if url.scheme() != "https" {
        return Err("is not https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a login");
    }
    if url.host_str().is_none_or(str::is_empty) || url.fragment().is_some() {
        return Err("has no host, or a fragment");
    }
    if url.port() == Some(0) {
        return Err("has the port 0, where nothing is");
    }
    if !allow_private && url.host().is_some_and(|host| is_own(&host)) {
        return Err("leads to a private address, which is asked only with allow_private = true");
    }
    Ok(())
}

/// Whether a host is plainly none of the public internet. What a name leads to is judged when it is asked.
fn is_own(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(one) => {
            one.is_loopback() || one.is_private() || one.is_link_local() || one.is_unspecified()
        }
        Host::Ipv6(one) => {
            one.is_loopback()
                || one.is_unspecified()
                || one.is_unique_local()
                || one.is_unicast_link_local()
        }
    }
}
