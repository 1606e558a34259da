//! The address of a deployment of Redis or Valkey, in each form that users run.
//!
//! In: the text of `redis.url` or of an item of `redis.shards`. Out: a [`RedisUrl`], which also
//! gives the address of each single server. Pure; owns nothing. What it does not do: connect, or
//! judge hosts.
//!
//! ```text
//! redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]
//! redis-sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT][/DATABASE]?master=NAME
//! redis-cluster://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]
//! ```
//!
//! A database is a number up to 65535; whether the server has it shows when it is asked.
//!
//! `valkey` may stand for `redis`, and an `s` behind either (`rediss`) means TLS. After `?`,
//! separated by `&`: `master` (Sentinel: which master), `sentinel=USER:PASSWORD` (Sentinel: the
//! login at the sentinels, if they have one), and `name` (what the deployment is called where
//! there are several; without it, its hosts with their ports).

use hyper::Uri;

/// Schemes of a single server; `-sentinel` and `-cluster` may follow.
const SCHEMES: [&str; 4] = ["redis", "valkey", "rediss", "valkeys"];
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
    /// What the deployment is called: its `name`, or its hosts.
    pub name: String,
    /// Whether the name was given.
    pub is_named: bool,
    /// Where to ask first: `host:port` of the server, of sentinels, or of nodes of the cluster.
    pub hosts: Vec<String>,
    scheme: String,
    /// `user:password@`, as written, or nothing.
    login: String,
    sentinel_login: String,
    /// The number of the database, 0 where none is written.
    pub database: u16,
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
    /// Reads a URL; `None` where it is of none of the forms.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (base, is_sentinel, is_cluster) = match scheme {
            _ if scheme.ends_with("-sentinel") => (scheme.strip_suffix("-sentinel")?, true, false),
            _ if scheme.ends_with("-cluster") => (scheme.strip_suffix("-cluster")?, false, true),
            _ => (scheme, false, false),
        };
        if !SCHEMES.contains(&base) {
            return None;
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
        let options = Options::parse(query, is_sentinel)?;
        let form = match (is_sentinel, is_cluster) {
            (true, _) => RedisForm::Sentinel {
                master: options.master?,
            },
            (_, true) => RedisForm::Cluster,
            _ => RedisForm::Single,
        };
        let port = if is_sentinel { SENTINEL_PORT } else { PORT };
        let hosts: Vec<_> = hosts
            .split(',')
            .map(|host| with_port(host, port))
            .collect::<Option<_>>()?;
        let one_is_enough = form != RedisForm::Single || hosts.len() == 1;
        let database = number(database)?;
        // A cluster has no databases but the first.
        let is_allowed = form != RedisForm::Cluster || database == 0;
        (one_is_enough && is_allowed).then(|| Self {
            form,
            is_named: options.name.is_some(),
            name: options.name.unwrap_or_else(|| hosts.join(",")),
            hosts,
            scheme: base.to_owned(),
            login: at(login),
            sentinel_login: at(&options.sentinel.unwrap_or_default()),
            database,
        })
    }

    /// Whether connections are encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(&*self.scheme, "rediss" | "valkeys")
    }

    /// User and password at its servers, as written; empty where there is none.
    #[must_use]
    pub fn login(&self) -> (&str, &str) {
        let login = self.login.trim_end_matches('@');
        login.split_once(':').unwrap_or((login, ""))
    }

    /// The URL of one server of the deployment, with its login.
    #[must_use]
    pub fn server(&self, host: &str) -> String {
        let database = match self.database {
            0 => String::new(),
            number => format!("/{number}"),
        };
        format!("{}://{}{host}{database}", self.scheme, self.login)
    }

    /// The URL of what is asked where the masters are: a sentinel, or a node of the cluster.
    #[must_use]
    pub fn guide(&self, host: &str) -> String {
        match self.form {
            RedisForm::Sentinel { .. } => {
                format!("{}://{}{host}", self.scheme, self.sentinel_login)
            }
            RedisForm::Single | RedisForm::Cluster => self.server(host),
        }
    }
}

/// The URL without its passwords, for people.
#[must_use]
pub fn hidden(text: &str) -> String {
    let (address, query) = match text.split_once('?') {
        Some((address, query)) => (address, Some(query)),
        None => (text, None),
    };
    let user = |login: &str| match login.split_once(':') {
        Some((user, _)) => format!("{user}:***"),
        None => login.to_owned(),
    };
    let mut hidden = match address.rsplit_once('@') {
        Some((login, hosts)) => {
            let (scheme, login) = login.split_once("://").unwrap_or(("redis", login));
            format!("{scheme}://{}@{hosts}", user(login))
        }
        None => address.to_owned(),
    };
    for (at, pair) in query.iter().flat_map(|query| query.split('&')).enumerate() {
        hidden.push(if at == 0 { '?' } else { '&' });
        match pair.strip_prefix("sentinel=") {
            Some(login) => hidden.extend(["sentinel=", &user(login)]),
            None => hidden.push_str(pair),
        }
    }
    hidden
}

#[derive(Default)]
struct Options {
    master: Option<String>,
    name: Option<String>,
    sentinel: Option<String>,
}

impl Options {
    fn parse(query: &str, is_sentinel: bool) -> Option<Self> {
        let mut options = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=')?;
            let place = match name {
                "master" if is_sentinel => &mut options.master,
                "sentinel" if is_sentinel => &mut options.sentinel,
                "name" => &mut options.name,
                _ => return None,
            };
            if value.is_empty() || place.replace(value.to_owned()).is_some() {
                return None;
            }
        }
        Some(options)
    }
}

/// The number of a database: decimal digits and nothing else.
fn number(database: &str) -> Option<u16> {
    match database {
        "" => Some(0),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
        _ => None,
    }
}

fn at(login: &str) -> String {
    if login.is_empty() {
        String::new()
    } else {
        format!("{login}@")
    }
}

/// `host:port`, checked as part of a URL.
fn with_port(host: &str, port: u16) -> Option<String> {
    let uri: Uri = format!("redis://{host}").parse().ok()?;
    let authority = uri.authority().filter(|a| !a.host().is_empty())?;
    let name = authority.host();
    let port = match host.strip_prefix(name)? {
        "" => port,
        given => given.strip_prefix(':')?.parse().ok()?,
    };
    Some(format!("{name}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_is_given_as_it_was_written() {
        let url = RedisUrl::parse("redis://u:p%40@localhost/3").unwrap();
        assert_eq!(url.form, RedisForm::Single);
        assert_eq!(
            (&*url.name, &url.hosts[..]),
            ("localhost:6379", &["localhost:6379".to_owned()][..])
        );
        assert_eq!(url.server(&url.hosts[0]), "redis://u:p%40@localhost:6379/3");
        assert_eq!(url.guide(&url.hosts[0]), url.server(&url.hosts[0]));
    }

    #[test]
    fn sentinels_have_a_login_of_their_own_and_the_master_a_name() {
        let text = "valkey-sentinel://:pw@s1,s2:7000,[::1]:7001/2?master=main&sentinel=a:b";
        let url = RedisUrl::parse(text).unwrap();
        let master = "main".to_owned();
        assert_eq!(url.form, RedisForm::Sentinel { master });
        assert_eq!(url.hosts, ["s1:26379", "s2:7000", "[::1]:7001"]);
        assert_eq!(url.guide("s1:26379"), "valkey://a:b@s1:26379");
        assert_eq!((url.login(), url.is_tls()), (("", "pw"), false));
        assert_eq!(url.server("10.0.0.1:6379"), "valkey://:pw@10.0.0.1:6379/2");
    }

    #[test]
    fn a_cluster_is_called_by_its_hosts_or_by_its_name() {
        let url = RedisUrl::parse("redis-cluster://a:1,b:2").unwrap();
        assert_eq!((&url.form, &*url.name), (&RedisForm::Cluster, "a:1,b:2"));
        let url = RedisUrl::parse("rediss-cluster://u@a:1,b:2?name=east").unwrap();
        assert_eq!(
            (&*url.name, url.login(), url.is_tls()),
            ("east", ("u", ""), true)
        );
        assert_eq!(url.guide("a:1"), "rediss://u@a:1");
    }

    #[test]
    fn databases_are_numbers_however_they_are_written() {
        for (text, database) in [("", 0), ("/", 0), ("/0", 0), ("/007", 7), ("/300", 300)] {
            let url = RedisUrl::parse(&format!("redis://h{text}")).unwrap();
            assert_eq!(url.database, database, "{text}");
        }
        let url = RedisUrl::parse("redis://h/007").unwrap();
        assert_eq!(url.server("h:6379"), "redis://h:6379/7");
    }

    #[test]
    fn no_password_is_shown() {
        for (text, shown) in [
            ("redis://h:1/2", "redis://h:1/2"),
            ("redis://u:p@w@h", "redis://u:***@h"),
            (
                "redis-sentinel://u:p@h?master=m&sentinel=:q&name=n",
                "redis-sentinel://u:***@h?master=m&sentinel=:***&name=n",
            ),
        ] {
            assert_eq!(hidden(text), shown);
        }
    }

    #[test]
    fn what_is_of_no_form_is_refused() {
        for text in [
            "localhost:6379",
            "http://localhost",
            "redis-ring://localhost",
            "redis://",
            "redis://a,b",
            "redis://a:x",
            "redis://a/x",
            "redis://a/+1",
            "redis://a/65536",
            "redis://a/1/2",
            "redis://a?master=m",
            "redis://a?name=",
            "redis-sentinel://a,b",
            "redis-sentinel://a,,b?master=m",
            "redis-sentinel://a?master=m&master=n",
            "redis-cluster://a/1",
        ] {
            assert!(RedisUrl::parse(text).is_none(), "{text}");
        }
    }
}
