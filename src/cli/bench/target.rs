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

use super::error::BenchError;
use super::wire::centrifugo::Centrifugo;
use super::wire::fanfare::{Encoding, Fanfare};
use super::wire::pusher::{AppArgs, Pusher};
use super::wire::socketio::SocketIo;
use super::wire::{Identity, Wire};
use crate::auth::mint::{self, MintKey};
use crate::cli::access::ApiArgs;
use crate::cli::token::SigningArgs;

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
    #[command(flatten)]
    api: ApiArgs,
    /// What the server speaks
    #[arg(long, value_enum, default_value = "fanfare")]
    protocol: Protocol,
    /// fanfare.v1: the wire form
    #[arg(long, value_enum, default_value = "json")]
    encoding: Encoding,
    /// Who the sessions are [default: each where tokens are made, else none]
    #[arg(long, value_enum)]
    users: Option<Users>,
    /// Begin of the users' names [default: a random name]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The topic [default: a random name]
    #[arg(long)]
    topic: Option<String>,
    /// One token for all sessions
    #[arg(
        long,
        env = "FANFARE_TOKEN",
        hide_env_values = true,
        conflicts_with = "KeySource"
    )]
    token: Option<String>,
    #[command(flatten)]
    signing: SigningArgs,
    #[command(flatten)]
    app: AppArgs,
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
    /// The flags of the HTTP API.
    pub api_args: ApiArgs,
    /// How the server is spoken to.
    pub wire: Rc<dyn Wire>,
    /// The name of this run.
    pub run: String,
    /// The topic of this run.
    pub topic: String,
    is_fanfare: bool,
    users: Users,
    user: String,
    token: Option<String>,
    key: Option<MintKey>,
}

impl Target {
    /// Reads the flags and finds the addresses.
    ///
    /// # Errors
    /// [`BenchError`] for addresses and keys that are none.
    pub async fn new(args: &TargetArgs) -> Result<Self, BenchError> {
        let (host, path) = parts(&args.url, "ws")?;
        let (api, _) = parts(&args.api.api_url, "http")?;
        let address = resolve(&host).await?;
        let run = format!("bench-{:08x}", rand::random::<u32>());
        let key = args.signing.key()?;
        let users = match (args.users, &key) {
            (Some(users), _) => users,
            (None, Some(_)) => Users::Each,
            (None, None) => Users::None,
        };
        Ok(Self {
            url: args.url.clone(),
            protocol: name(args),
            address,
            host,
            api,
            api_args: args.api.clone(),
            wire: wire(args, path),
            topic: args.topic.clone().unwrap_or_else(|| run.clone()),
            user: args.user.clone().unwrap_or_else(|| run.clone()),
            run,
            is_fanfare: args.protocol == Protocol::Fanfare,
            users,
            token: args.token.clone(),
            key,
        })
    }

    /// Who the session of this number is.
    ///
    /// # Errors
    /// [`BenchError::Mint`].
    pub fn identity(&self, number: usize) -> Result<Identity, BenchError> {
        let user = match self.users {
            Users::None => None,
            Users::Each => Some(format!("{}-{number}", self.user)),
            Users::One => Some(self.user.clone()),
        };
        let token = match (&self.token, &self.key, &user) {
            (Some(token), _, _) => Some(token.clone()),
            (None, Some(key), Some(user)) => Some(mint::mint(key, &claims(user))?),
            _ => None,
        };
        Ok(Identity { user, token })
    }

    /// A load that only Fanfare can be asked for.
    ///
    /// # Errors
    /// [`BenchError::Usage`] with another protocol.
    pub fn only_fanfare(&self) -> Result<(), BenchError> {
        if self.is_fanfare {
            return Ok(());
        }
        Err(BenchError::Usage(
            "this scenario needs --protocol fanfare; connect, idle, fanout and latency run with all",
        ))
    }

    /// The same target with a user, and so an inbox, for each session.
    ///
    /// # Errors
    /// [`BenchError::Usage`] where the flags say otherwise.
    pub fn with_users(mut self) -> Result<Self, BenchError> {
        self.only_fanfare()?;
        if self.token.is_some() || (self.key.is_some() && self.users != Users::Each) {
            return Err(BenchError::Usage(
                "this scenario needs a user for each session: use --secret-env instead of --token, \
                 and leave out --users",
            ));
        }
        self.users = Users::Each;
        Ok(self)
    }
}

fn name(args: &TargetArgs) -> String {
    match (args.protocol, args.encoding) {
        (Protocol::Fanfare, Encoding::Json) => "fanfare json",
        (Protocol::Fanfare, Encoding::Msgpack) => "fanfare msgpack",
        (Protocol::Pusher, _) => "pusher",
        (Protocol::Centrifugo, _) => "centrifugo",
        (Protocol::Socketio, _) => "socketio",
    }
    .to_owned()
}

fn wire(args: &TargetArgs, path: String) -> Rc<dyn Wire> {
    let api_key = args.api.api_key.clone();
    match args.protocol {
        Protocol::Fanfare => Rc::new(Fanfare {
            path,
            encoding: args.encoding,
            api_key,
        }),
        Protocol::Pusher => Rc::new(Pusher {
            app: args.app.clone(),
        }),
        Protocol::Centrifugo => Rc::new(Centrifugo { api_key }),
        Protocol::Socketio => Rc::new(SocketIo),
    }
}

/// Host with port, and the path, of an address with this scheme.
fn parts(url: &str, scheme: &'static str) -> Result<(String, String), BenchError> {
    let wrong = || BenchError::Address {
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

async fn resolve(host: &str) -> Result<SocketAddr, BenchError> {
    let found = tokio::net::lookup_host(host).await;
    let first = found.and_then(|mut all| all.next().ok_or(std::io::ErrorKind::NotFound.into()));
    first.map_err(|source| BenchError::Name {
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
