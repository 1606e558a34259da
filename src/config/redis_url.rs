//! The address of a deployment of Redis or Valkey, in each form that users run.
//!
//! In: the text of `redis.url` or of an item of `redis.shards`. Out: a [`RedisUrl`], which also
//! gives the address of each single server, or what is wrong with the text in words that repeat
//! nothing of it. Pure; owns nothing. What it does not do: connect, or judge hosts.
//!
//! ```text
//! redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]
//! redis-sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT][/DATABASE]?master=NAME
//! redis-cluster://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]
//! unix://[USER:PASSWORD@]/PATH[?db=DATABASE]
//! ```
//!
//! A database is a number up to 65535; whether the server has it shows when it is asked.
//!
//! `valkey` may stand for `redis`, and an `s` after either (`rediss`) means TLS. After `?`,
//! separated by `&`: `master` (Sentinel: which master), `sentinel=USER:PASSWORD` (Sentinel: the
//! login at the sentinels, if they have one), `db` (a socket's database), and `name` (what the
//! deployment is called where there are several; without it, its hosts with their ports). In user and
//! password `%XX` stands for a byte; `#`, `/`, `?` and `%` must be written so.

use std::borrow::Cow;

use hyper::Uri;

use crate::config::faults::Wrong;
use crate::config::redis_login::Login;

/// Schemes of a single server; `-sentinel` and `-cluster` may follow.
const SCHEMES: [&str; 4] = ["redis", "valkey", "rediss", "valkeys"];
const UNIX: &str = "unix";
const PORT: u16 = 6_379;
const SENTINEL_PORT: u16 = 26_379;

/// How a deployment keeps its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisForm {
    /// One server.
    Single,
    /// A master that sentinels watch and replace.
    Sentinel {
        /// What the sentinels call it.
        master: String,
    },
    /// Slots, dealt to masters.
    Cluster,
}

/// See the module.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Which form.
    pub form: RedisForm,
    /// What the deployment is called: its `name`, or its hosts with their ports.
    pub name: String,
    /// Whether the name was given.
    pub is_named: bool,
    /// Where to ask first: `host:port` of the server, of sentinels, or of nodes of the cluster;
    /// the path of a socket.
    pub hosts: Vec<String>,
    scheme: String,
    login: Login,
    sentinel_login: Login,
    /// The number of the database, 0 where none is written.
    pub database: u16,
    /// The part between login and query, for [`hidden`].
    written: String,
}

impl std::fmt::Debug for RedisUrl {
    /// Without the logins.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = f.debug_struct("RedisUrl");
        text.field("form", &self.form).field("name", &self.name);
        text.finish_non_exhaustive()
    }
}

impl RedisUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it. Nothing of the text is in it.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let (scheme, rest) = scheme(text)?;
        let (base, form) = form(scheme)?;
        if rest.contains('#') {
            return Err(raw("#", "%23"));
        }
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        let is_sentinel = matches!(form, RedisForm::Sentinel { .. });
        let options = Options::parse(query, is_sentinel, base == UNIX)?;
        let (login, written) = match address.rsplit_once('@') {
            Some((login, _)) if login.contains('/') => return Err(raw("/", "%2F")),
            Some((login, place)) => (Login::parse(login)?, place),
            None => (Login::default(), address),
        };
        let (hosts, database) = if base == UNIX {
            (vec![socket(written)?], options.database)
        } else {
            let (hosts, database) = written.split_once('/').unwrap_or((written, ""));
            (hosts_of(hosts, &form)?, database_of(database)?)
        };
        let form = match form {
            RedisForm::Sentinel { .. } => RedisForm::Sentinel {
                master: options.master.ok_or(NO_MASTER)?,
            },
            other => other,
        };
        // A cluster has no databases but the first.
        if form == RedisForm::Cluster && database != 0 {
            return Err(Wrong::new(
                "a Redis Cluster has no database but 0",
                "leave the number behind the / out",
            ));
        }
        let is_named = options.name.is_some();
        Ok(Self {
            form,
            name: options.name.unwrap_or_else(|| hosts.join(",")),
            hosts,
            scheme: base.to_owned(),
            login,
            sentinel_login: options.sentinel,
            database,
            written: written.to_owned(),
            is_named,
        })
    }

    /// Whether connections are encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(&*self.scheme, "rediss" | "valkeys")
    }

    /// Whether it is a socket of this machine; its path is the only one of the hosts.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        self.scheme == UNIX
    }

    /// User and password at its servers, decoded; empty where there is none.
    #[must_use]
    pub fn login(&self) -> (&str, &str) {
        (&self.login.user, &self.login.password)
    }

    /// The URL of one server of the deployment, with its login.
    #[must_use]
    pub fn server(&self, host: &str) -> String {
        let (scheme, login) = (&self.scheme, self.login.encoded());
        match (self.is_unix(), self.database) {
            (_, 0) => format!("{scheme}://{login}{host}"),
            (true, database) => format!("{scheme}://{login}{host}?db={database}"),
            (false, database) => format!("{scheme}://{login}{host}/{database}"),
        }
    }

    /// The URL of what is asked where the masters are: a sentinel, or a node of the cluster.
    #[must_use]
    pub fn guide(&self, host: &str) -> String {
        match self.form {
            RedisForm::Sentinel { .. } => {
                format!("{}://{}{host}", self.scheme, self.sentinel_login.encoded())
            }
            RedisForm::Single | RedisForm::Cluster => self.server(host),
        }
    }

    fn hidden(&self) -> String {
        let (suffix, master) = match &self.form {
            RedisForm::Single => ("", None),
            RedisForm::Sentinel { master } => ("-sentinel", Some(master)),
            RedisForm::Cluster => ("-cluster", None),
        };
        let mut options: Vec<_> = master.iter().map(|name| format!("master={name}")).collect();
        let sentinel = self.sentinel_login.hidden();
        options.extend((!sentinel.is_empty()).then(|| format!("sentinel={sentinel}")));
        if self.is_unix() && self.database != 0 {
            options.push(format!("db={}", self.database));
        }
        options.extend(self.is_named.then(|| format!("name={}", self.name)));
        let login = self.login.hidden();
        let at = if login.is_empty() { "" } else { "@" };
        let query = if options.is_empty() { "" } else { "?" };
        format!(
            "{}{suffix}://{login}{at}{}{query}{}",
            self.scheme,
            self.written,
            options.join("&")
        )
    }
}

/// The URL without its passwords, for people; of a text that is no such URL nothing is shown.
#[must_use]
pub fn hidden(text: &str) -> String {
    RedisUrl::parse(text).map_or_else(|_| "***".to_owned(), |url| url.hidden())
}

#[derive(Default)]
struct Options {
    master: Option<String>,
    name: Option<String>,
    sentinel: Login,
    database: u16,
}

impl Options {
    fn parse(query: &str, is_sentinel: bool, is_unix: bool) -> Result<Self, Wrong> {
        let pairs = || query.split('&').filter(|pair| !pair.is_empty());
        // The @ after a login comes first, so here the ? was a part of it.
        if pairs().any(|pair| pair.contains('@') && !pair.starts_with("sentinel=")) {
            return Err(raw("?", "%3F"));
        }
        let mut options = Self::default();
        let mut seen = Vec::new();
        for pair in pairs() {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if value.is_empty() || seen.contains(&name) {
                let what = "an option behind the ? has no value, or stands there twice";
                return Err(Wrong::new(what, "give each option once, as NAME=VALUE"));
            }
            seen.push(name);
            match name {
                "master" if is_sentinel => options.master = Some(value.to_owned()),
                "sentinel" if is_sentinel => {
                    options.sentinel = Login::parse(value)?;
                    if options.sentinel.password.is_empty() {
                        let what = "the login of the sentinels has no colon";
                        return Err(Wrong::new(what, "write sentinel=USER:PASSWORD"));
                    }
                }
                "db" if is_unix => options.database = database_of(value)?,
                "name" => options.name = Some(value.to_owned()),
                _ => {
                    let what = "an option behind the ? is not known to this form";
                    let remedy = "give name, for sentinels also master and sentinel, for a \
                                  socket also db";
                    return Err(Wrong::new(what, remedy));
                }
            }
        }
        Ok(options)
    }
}

const NO_MASTER: Wrong = Wrong {
    what: Cow::Borrowed("it does not say which master the sentinels watch"),
    remedy: Cow::Borrowed("add ?master=NAME"),
};

/// A character that ends the login where it is not encoded.
fn raw(character: &str, encoded: &str) -> Wrong {
    Wrong::new(
        format!("there is a {character} where none can be, as in a password that has one"),
        format!("write {encoded} for a {character} in user or password"),
    )
}

fn scheme(text: &str) -> Result<(&str, &str), Wrong> {
    let socket = || Some((UNIX, text.strip_prefix("unix:")?));
    let found = text.split_once("://").or_else(socket);
    found.ok_or_else(|| {
        Wrong::new(
            "it does not say of which form it is",
            "begin it with redis://, redis-sentinel:// or redis-cluster://, with rediss for TLS, \
             or with unix://",
        )
    })
}

/// The scheme without what says the form, and the form, still without a master's name.
fn form(scheme: &str) -> Result<(&str, RedisForm), Wrong> {
    let master = String::new();
    let (base, form) = match scheme.split_once('-') {
        None => (scheme, RedisForm::Single),
        Some((base, "sentinel")) => (base, RedisForm::Sentinel { master }),
        Some((base, "cluster")) => (base, RedisForm::Cluster),
        Some(_) => ("", RedisForm::Single),
    };
    let is_socket = base == UNIX && form == RedisForm::Single;
    if SCHEMES.contains(&base) || is_socket {
        return Ok((base, form));
    }
    Err(Wrong::new(
        "what stands in front of :// is no form of Redis",
        "write redis, redis-sentinel or redis-cluster, with rediss for TLS, or unix",
    ))
}

fn hosts_of(text: &str, form: &RedisForm) -> Result<Vec<String>, Wrong> {
    let port = match form {
        RedisForm::Sentinel { .. } => SENTINEL_PORT,
        RedisForm::Single | RedisForm::Cluster => PORT,
    };
    let hosts = text.split(',').map(str::trim);
    let hosts: Vec<_> = hosts
        .map(|host| with_port(host, port))
        .collect::<Result<_, _>>()?;
    if *form == RedisForm::Single && hosts.len() > 1 {
        return Err(Wrong::new(
            "it names several hosts, but this form is one server",
            "write redis-cluster://, or redis-sentinel:// with ?master=NAME",
        ));
    }
    Ok(hosts)
}

/// `host:port`, checked as part of a URL.
fn with_port(host: &str, port: u16) -> Result<String, Wrong> {
    let no_host = || {
        Wrong::new(
            "a host is missing or cannot be read",
            "write HOST or HOST:PORT, an address of IPv6 in brackets",
        )
    };
    let (name, given) = match host.rfind(':') {
        Some(colon) if !host.ends_with(']') => (&host[..colon], Some(&host[colon + 1..])),
        _ => (host, None),
    };
    let uri: Uri = format!("redis://{name}").parse().map_err(|_| no_host())?;
    let read = uri.authority().map_or("", |authority| authority.host());
    if read.is_empty() || read != name {
        return Err(no_host());
    }
    let port = match given.map(str::parse) {
        None => port,
        Some(Ok(given)) if given > 0 => given,
        Some(_) => {
            return Err(Wrong::new(
                "a port is no number from 1 to 65535",
                "write HOST:PORT; a : in user or password is %3A",
            ));
        }
    };
    Ok(format!("{name}:{port}"))
}

/// The number of a database: decimal digits and nothing else.
fn database_of(text: &str) -> Result<u16, Wrong> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        _ if text.is_empty() => Ok(0),
        Ok(number) if is_number => Ok(number),
        _ => Err(Wrong::new(
            "the database is no number from 0 to 65535",
            "give its number, or leave it out",
        )),
    }
}

/// The path of a socket.
fn socket(text: &str) -> Result<String, Wrong> {
    if text.starts_with('/') && text.len() > 1 {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(
        "the path of the socket does not begin with /",
        "write unix:///run/redis/redis.sock",
    ))
}

#[cfg(test)]
mod tests;
