//! How a client command reaches a node: the flags for the HTTP API and for TLS, and what to do when
//! it cannot be reached.
//!
//! In: flags, and errors of `fanfare-client`. Out: that crate's options, and a [`Failure`] with an
//! exit code and a hint.

use std::path::PathBuf;

use fanfare_client::dial::{DialError, Tls};
use fanfare_client::error::ConnectionError;
use fanfare_client::http::{Api, ApiError, ApiOptions, without_secrets};
use fanfare_client::resuming::CommandError;

use super::exit::{Exit, Failure};
use super::output::note;
use fanfare_protocol::ids::App;

/// What to do about a certificate whose issuer is not trusted.
const CA_HINT: &str = "--ca FILE names the certificate to trust";

/// Whom to trust where an address asks for TLS.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TlsArgs {
    /// Trust the certificates of this file (PEM) instead of the system's
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub ca: Option<PathBuf>,
    /// Trust any certificate. Whoever sits between can then read and change everything
    #[arg(long)]
    pub insecure: bool,
}

impl TlsArgs {
    /// As the client wants it. Warns where the address asks for TLS and nobody is to be checked.
    #[must_use]
    pub fn of(&self, url: &str) -> Tls {
        let is_tls = url.starts_with("wss:") || url.starts_with("https:");
        if self.insecure && is_tls {
            let url = without_secrets(url);
            note(&format!(
                "warning: with --insecure nobody knows whether this is {url}"
            ));
        }
        Tls {
            ca: self.ca.clone(),
            insecure: self.insecure,
        }
    }
}

/// Which app is meant.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AppArgs {
    /// The app that is meant; by default that of the key, or "default"
    #[arg(long, value_name = "NAME", value_parser = parse_app)]
    pub app: Option<App>,
}

impl AppArgs {
    /// Makes every call about this app.
    ///
    /// # Errors
    /// The name can be none; the parser has taken it, so this is no case.
    pub fn of(&self, api: Api) -> Result<Api, ApiError> {
        match &self.app {
            Some(app) => api.of_app(app.as_str()),
            None => Ok(api),
        }
    }
}

/// Reads the name of an app.
///
/// # Errors
/// What it must be.
pub fn parse_app(text: &str) -> Result<App, &'static str> {
    App::new(text).map_err(|_| "the name of an app is 1 to 32 of a-z 0-9 _ -")
}

/// Where the API is and how to be let in.
#[derive(Debug, Clone, clap::Args)]
pub struct ApiArgs {
    /// Address of a node's HTTP API
    #[arg(
        long,
        alias = "api",
        env = "FANFARE_API_URL",
        default_value = "http://127.0.0.1:8081",
        value_name = "URL"
    )]
    pub api_url: String,
    /// API key; a node started with --dev takes "dev"
    #[arg(
        long,
        env = "FANFARE_API_KEY",
        hide_env_values = true,
        default_value = "dev",
        value_name = "KEY"
    )]
    pub api_key: String,
}

impl ApiArgs {
    /// As the client wants it.
    #[must_use]
    pub fn options(&self) -> ApiOptions {
        ApiOptions {
            url: self.api_url.clone(),
            key: self.api_key.clone(),
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let exit = match &error {
            ApiError::Address { .. } | ApiError::Trust(_) | ApiError::Key | ApiError::App => {
                Exit::Usage
            }
            ApiError::Refused { status, .. } => Exit::by_status(status.as_u16()),
            ApiError::Unreachable { .. }
            | ApiError::Broken { .. }
            | ApiError::BrokenOff { .. }
            | ApiError::TooLong { .. }
            | ApiError::TimedOut { .. }
            | ApiError::Unreadable { .. } => Exit::Unreachable,
        };
        let failure = Self::new(exit, &error);
        match (&error, exit) {
            (
                ApiError::Unreachable {
                    source: DialError::UnknownIssuer(_),
                    ..
                },
                _,
            ) => failure.hint(CA_HINT),
            // Says itself what to do.
            (
                ApiError::Unreachable {
                    source: DialError::Tls(_),
                    ..
                },
                _,
            ) => failure,
            (ApiError::Unreadable { .. }, _) => failure
                .hint("is --api-url (FANFARE_API_URL) the address of the API, not of the sockets?"),
            (ApiError::Refused { .. }, Exit::Unreachable) => {
                failure.hint("the node is starting, leaving or without Redis: try again soon")
            }
            (_, Exit::Unreachable) => {
                failure.hint("is the node running? Start one with: fanfare serve --dev")
            }
            // The key is right, or the answer would be 401.
            (ApiError::Refused { status, .. }, _) if status.as_u16() == 403 => failure.hint(
                "the key is right, and its client may not do this: see scopes, topics and app of its \
                 section [[api.clients]]",
            ),
            (_, Exit::Denied) => failure.hint("give the key with --api-key or FANFARE_API_KEY"),
            _ => failure,
        }
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        let exit = match &error {
            ConnectionError::Address { .. } | ConnectionError::Trust(_) => Exit::Usage,
            ConnectionError::Rejected { status, .. } => Exit::by_status(*status),
            ConnectionError::Refused { code, .. } => Exit::by_error_code(code),
            ConnectionError::Closed { code, .. } => Exit::by_close_code(*code),
            _ => Exit::Unreachable,
        };
        let failure = Self::new(exit, &error);
        match (&error, exit) {
            (
                ConnectionError::Unreachable {
                    source: DialError::UnknownIssuer(_),
                    ..
                },
                _,
            ) => failure.hint(CA_HINT),
            // Says itself what to do.
            (
                ConnectionError::Unreachable {
                    source: DialError::Tls(_),
                    ..
                },
                _,
            ) => failure,
            (_, Exit::Denied) => failure.hint(
                "give a token with --token or FANFARE_TOKEN, \
                 or --user NAME on a node started with --dev",
            ),
            (ConnectionError::Rejected { status: 404, .. }, _) => {
                failure.hint("is --url (FANFARE_URL) the address of the sockets, not of the API?")
            }
            (ConnectionError::Unreachable { .. } | ConnectionError::TimedOut { .. }, _) => {
                failure.hint("is the node running? Start one with: fanfare serve --dev")
            }
            (ConnectionError::Rejected { status: 503, .. }, _) => {
                failure.hint("the node is starting, leaving or without Redis: try again soon")
            }
            _ => failure,
        }
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Ended(error) => error.into(),
            CommandError::Lost { .. } => Self::new(Exit::Unreachable, &error),
            CommandError::TooBig { .. } => Self::new(Exit::Refused, &error),
            CommandError::Refused { ref code, .. } => Self::new(Exit::by_error_code(code), &error),
        }
    }
}
