//! What a load is run against: addresses, protocol, and who its sessions are.
//!
//! In: flags. Out: a [`Target`]. Names are resolved once, before anything is measured. Each run
//! has a random name, from which topic and users are named, so that nothing of an earlier run is
//! met.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Uri;
use serde_json::{Map, Value};

use super::class::Class;
use super::provided::{Provided, Sign, SignError};
use super::wire::centrifugo::Centrifugo;
use super::wire::fanfare::{Encoding, Fanfare};
use super::wire::pusher::{AppArgs, Pusher};
use super::wire::socketio::SocketIo;
use super::wire::{Identity, Wire};

/// How long the tokens of a load are valid: longer than any.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3_600);
/// The path of Fanfare's sessions.
const CONNECT_PATH: &str = "/v1/connect";

/// What the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// fanfare.v1
    Fanfare,
    /// Pusher Channels, protocol 7
    Pusher,
    /// Centrifugo, JSON
    Centrifugo,
    /// Socket.IO, with the server of docs/bench.md
    Socketio,
}

/// Who the sessions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Users {
    /// Nobody: anonymous sessions
    None,
    /// A user of its own for each session
    Each,
    /// All are one user
    One,
}

/// Where the load goes.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Target")]
pub struct TargetArgs {
    /// Address of the sockets
    #[arg(
        long,
        env = "FANFARE_URL",
        default_value = "ws://127.0.0.1:8080/v1/connect"
    )]
    url: String,
    /// fanfare.v1: the wire form
    #[arg(long, value_enum, default_value = "json")]
    encoding: Encoding,
    /// Begin of the users' names [default: a random name]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The topic [default: a random name]
    #[arg(long)]
    topic: Option<String>,
}

/// Who the sessions are, where they may be anybody.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Target")]
pub struct UserArgs {
    /// Who the sessions are [default: each where tokens are made, else none]
    #[arg(long, value_enum)]
    users: Option<Users>,
    /// One token for all sessions
    #[arg(long, env = "FANFARE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// Which server it is, where it may be any.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Target")]
pub struct ProtocolArgs {
    /// What the server speaks
    #[arg(long, value_enum, default_value = "fanfare")]
    protocol: Protocol,
    #[command(flatten)]
    app: AppArgs,
}

/// Why there is nothing to run a load against, or nobody to do it.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// An address is none.
    #[error("{url} is not an address of the form {scheme}://HOST:PORT")]
    Address {
        /// As given.
        url: String,
        /// What it should begin with.
        scheme: &'static str,
    },
    /// The host's name leads nowhere.
    #[error("cannot find the address of {host}")]
    Name {
        /// Host and port.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A token cannot be signed.
    #[error(transparent)]
    Sign(SignError),
}

impl TargetError {
    /// What kind of failure it is.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Address { .. } | Self::Sign(_) => Class::Usage,
            Self::Name { .. } => Class::Unreachable,
        }
    }
}

/// What a load is run against.
pub struct Target {
    /// As it is printed.
    pub url: String,
    /// As it is printed.
    pub protocol: String,
    /// Where the sockets are.
    pub address: SocketAddr,
    /// The `Host` of the sockets.
    pub host: String,
    /// Host and port of the HTTP API.
    pub api: String,
    /// How the server is spoken to.
    pub wire: Rc<dyn Wire>,
    /// The name of this run.
    pub run: String,
    /// The topic of this run.
    pub topic: String,
    users: Users,
    user: String,
    token: Option<String>,
    sign: Option<Sign>,
}

impl Target {
    /// Reads the flags and finds the addresses. Without `who` each session is a user of its own,
    /// without `server` it speaks `fanfare.v1`.
    ///
    /// # Errors
    /// [`TargetError`] for addresses that are none.
    pub async fn new(
        args: &TargetArgs,
        who: Option<&UserArgs>,
        server: Option<&ProtocolArgs>,
        provided: Provided,
    ) -> Result<Self, TargetError> {
        let (host, path) = parts(&args.url, "ws")?;
        let (api, _) = parts(&provided.api_url, "http")?;
        let address = resolve(&host).await?;
        let run = format!("bench-{:08x}", rand::random::<u32>());
        let users = match (who, &provided.sign) {
            (None, _) => Users::Each,
            (Some(who), sign) => who.users.unwrap_or(match sign {
                Some(_) => Users::Each,
                None => Users::None,
            }),
        };
        let (protocol, wire) = spoken(args, server, path, provided.api_key);
        Ok(Self {
            url: args.url.clone(),
            protocol: protocol.to_owned(),
            address,
            host,
            api,
            wire,
            topic: args.topic.clone().unwrap_or_else(|| run.clone()),
            user: args.user.clone().unwrap_or_else(|| run.clone()),
            run,
            users,
            token: who.and_then(|who| who.token.clone()),
            sign: provided.sign,
        })
    }

    /// Who the session of this number is.
    ///
    /// # Errors
    /// [`TargetError::Sign`].
    pub fn identity(&self, number: usize) -> Result<Identity, TargetError> {
        let user = match self.users {
            Users::None => None,
            Users::Each => Some(format!("{}-{number}", self.user)),
            Users::One => Some(self.user.clone()),
        };
        let token = match (&self.token, &self.sign, &user) {
            (Some(token), _, _) => Some(token.clone()),
            (None, Some(sign), Some(user)) => Some(sign(&claims(user)).map_err(TargetError::Sign)?),
            _ => None,
        };
        Ok(Identity { user, token })
    }
}

/// The protocol's name in reports, and how it is spoken.
fn spoken(
    args: &TargetArgs,
    server: Option<&ProtocolArgs>,
    path: String,
    api_key: String,
) -> (&'static str, Rc<dyn Wire>) {
    match server.map(|server| (server.protocol, &server.app)) {
        None | Some((Protocol::Fanfare, _)) => {
            let encoding = args.encoding;
            let name = match encoding {
                Encoding::Json => "fanfare json",
                Encoding::Msgpack => "fanfare msgpack",
            };
            let wire = Fanfare {
                path,
                encoding,
                api_key,
            };
            (name, Rc::new(wire))
        }
        Some((Protocol::Pusher, app)) => ("pusher", Rc::new(Pusher { app: app.clone() })),
        Some((Protocol::Centrifugo, _)) => ("centrifugo", Rc::new(Centrifugo { api_key })),
        Some((Protocol::Socketio, _)) => ("socketio", Rc::new(SocketIo)),
    }
}

/// Host with port, and the path, of an address with this scheme.
fn parts(url: &str, scheme: &'static str) -> Result<(String, String), TargetError> {
    let wrong = || TargetError::Address {
        url: url.to_owned(),
        scheme,
    };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let (true, Some(host)) = (uri.scheme_str() == Some(scheme), uri.host()) else {
        return Err(wrong());
    };
    let host = format!("{host}:{}", uri.port_u16().unwrap_or(80));
    let path = match uri.path() {
        "" | "/" => CONNECT_PATH,
        path => path,
    };
    Ok((host, path.to_owned()))
}

async fn resolve(host: &str) -> Result<SocketAddr, TargetError> {
    let found = tokio::net::lookup_host(host).await;
    let first = found.and_then(|mut all| all.next().ok_or(std::io::ErrorKind::NotFound.into()));
    first.map_err(|source| TargetError::Name {
        host: host.to_owned(),
        source,
    })
}

fn claims(user: &str) -> Map<String, Value> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let mut claims = Map::new();
    claims.insert("sub".to_owned(), user.into());
    claims.insert("iat".to_owned(), now.as_secs().into());
    claims.insert("exp".to_owned(), (now + TOKEN_TTL).as_secs().into());
    claims
}
