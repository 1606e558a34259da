//! Where a client's token comes from: one that stays, or a function that fetches another.
//!
//! In: [`Token`] by the user of the crate. Out: [`Credential`], which keeps the token that was
//! fetched last until the server refuses it. Bounds: one call of the function per try to connect.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

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
    /// Fetched before the first session, and again when the server says that it has ended.
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
    fetched: Option<String>,
    /// No session was opened with it yet.
    is_untried: bool,
}

impl Credential {
    pub(crate) fn new(token: Token) -> Self {
        Self {
            token,
            fetched: None,
            is_untried: false,
        }
    }

    /// The token to connect with.
    pub(crate) async fn get(&mut self) -> Result<Option<String>, TokenError> {
        match &self.token {
            Token::None => Ok(None),
            Token::Fixed(token) => Ok(Some(token.clone())),
            Token::Fetched(fetch) => {
                if self.fetched.is_none() {
                    self.fetched = Some(fetch().await?);
                    self.is_untried = true;
                }
                Ok(self.fetched.clone())
            }
        }
    }

    /// A session was opened with it.
    pub(crate) fn accepted(&mut self) {
        self.is_untried = false;
    }

    /// The server refuses it. Returns whether another may be better: not where there is no
    /// function, nor where the one refused was fetched for this very try.
    pub(crate) fn refused(&mut self) -> bool {
        self.fetched.take().is_some() && !self.is_untried
    }
}
