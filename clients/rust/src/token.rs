//! Where a client's token comes from: one that stays, or a function that fetches another.
//!
//! In: [`Token`] by the user of the crate. Out: [`Credential`], which keeps the token that was
//! fetched last until the server refuses it. Bounds: one call of the function at a time, at most
//! [`FETCH_TIMEOUT`] long: per try to connect, and where the server says that a token ends soon.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

/// Longest that the token function may take. Then it counts as failed.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

type Fetching = Pin<Box<dyn Future<Output = Result<String, TokenError>> + Send>>;

/// Why a token function gave none.
pub type TokenError = Box<dyn Error + Send + Sync>;

/// The token of a client's sessions.
#[derive(Clone, Default)]
pub enum Token {
    /// None: anonymous sessions, or a user by name on a node in development mode.
    #[default]
    None,
    /// The same for every session. When it ends, the client does.
    Fixed(String),
    /// Fetched before the first session, again when the server says that it ends soon (the session
    /// then goes on with the new one), and when it has ended. A call that takes more than 30 s
    /// counts as failed; it is made again after a back-off.
    Fetched(Arc<dyn Fn() -> Fetching + Send + Sync>),
}

impl Token {
    /// A token that `fetch` gets, for example from the application's own server.
    pub fn fetched<F, R, E>(fetch: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<TokenError>,
    {
        Self::Fetched(Arc::new(move || {
            let fetching = fetch();
            Box::pin(async move { fetching.await.map_err(Into::into) })
        }))
    }
}

impl From<Option<String>> for Token {
    fn from(token: Option<String>) -> Self {
        token.map_or(Self::None, Self::Fixed)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Fixed(_) => "Fixed",
            Self::Fetched(_) => "Fetched",
        })
    }
}

/// A token and what is known of it.
#[derive(Debug)]
pub(crate) struct Credential {
    token: Token,
    /// The one that was fetched last and not refused yet.
    fetched: Option<String>,
    renewing: Option<Renewing>,
}

/// A token function at work.
struct Renewing(Fetching);

impl fmt::Debug for Renewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewing")
    }
}

/// What a session is opened with.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    token: Token,
    fetched: Option<String>,
}

/// A token to connect with.
pub(crate) struct Presented {
    pub(crate) token: Option<String>,
    /// It was fetched for this very try.
    pub(crate) is_fresh: bool,
}

impl Source {
    /// The token: the one that is there, else a new one.
    pub(crate) async fn get(self) -> Result<Presented, TokenError> {
        let (token, is_fresh) = match (&self.token, self.fetched) {
            (Token::None, _) => (None, false),
            (Token::Fixed(token), _) => (Some(token.clone()), false),
            (Token::Fetched(_), Some(fetched)) => (Some(fetched), false),
            (Token::Fetched(fetch), None) => (Some(in_time(fetch()).await?), true),
        };
        Ok(Presented { token, is_fresh })
    }
}

/// Waits for a token function, but not for ever.
async fn in_time(fetching: Fetching) -> Result<String, TokenError> {
    match timeout(FETCH_TIMEOUT, fetching).await {
        Ok(fetched) => fetched,
        Err(_elapsed) => Err(format!("it took more than {} s", FETCH_TIMEOUT.as_secs()).into()),
    }
}

impl Credential {
    pub(crate) fn new(token: Token) -> Self {
        Self {
            token,
            fetched: None,
            renewing: None,
        }
    }

    /// What the next session is opened with.
    pub(crate) fn source(&self) -> Source {
        Source {
            token: self.token.clone(),
            fetched: self.fetched.clone(),
        }
    }

    /// A try to connect had this token.
    pub(crate) fn presented(&mut self, presented: &Presented) {
        if presented.is_fresh {
            self.fetched = presented.token.clone();
        }
    }

    /// The server refuses it. Returns whether another may be better: where there is a function, and
    /// the one refused was not fetched for this very try.
    pub(crate) fn refused(&mut self, is_fresh: bool) -> bool {
        self.fetched = None;
        matches!(self.token, Token::Fetched(_)) && !is_fresh
    }

    /// Asks the token function for another, where there is one and it is not asked already.
    pub(crate) fn renew(&mut self) {
        if let (Token::Fetched(fetch), None) = (&self.token, &self.renewing) {
            self.renewing = Some(Renewing(Box::pin(in_time(fetch()))));
        }
    }

    /// Gives up what [`Self::renew`] began: the session that needed it has ended.
    pub(crate) fn stop_renewing(&mut self) {
        self.renewing = None;
    }

    /// The token that [`Self::renew`] asked for; comes never where nothing was asked.
    ///
    /// # Cancel safety
    /// Safe: the function goes on at the next call.
    pub(crate) async fn renewed(&mut self) -> Result<String, TokenError> {
        let Some(renewing) = &mut self.renewing else {
            return std::future::pending().await;
        };
        let renewed = (&mut renewing.0).await;
        self.renewing = None;
        if let Ok(token) = &renewed {
            self.fetched = Some(token.clone());
        }
        renewed
    }
}
