//! A client of Fanfare that resumes by itself.
//!
//! ```no_run
//! use fanfare_client::{Client, Item, Options, Publication, Token};
//!
//! # async fn fetch_token() -> Result<String, std::io::Error> { Ok(String::new()) }
//! # async fn follow() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(Options {
//!     urls: vec!["wss://a.example.com".into(), "wss://b.example.com".into()],
//!     token: Token::fetched(|| async { fetch_token().await }),
//!     ..Options::default()
//! })
//! .await?;
//! let order = serde_json::json!({"state": "paid"});
//! let publication = Publication::to("orders:7", &order)?.idempotency_key("order-7-paid");
//! client.publish(publication).await?;
//!
//! let mut orders = client.subscribe("orders:7").await?;
//! while let Some(item) = orders.next().await {
//!     match item {
//!         Item::Message(message) => {
//!             let order: serde_json::Value = message.data.read()?;
//!             println!("{:?}: {order}", message.position);
//!         }
//!         Item::Gap(gap) => println!("missing, because of {}", gap.reason),
//!         other => println!("{other:?}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! After any break the client connects again, to the next of its addresses, and every topic goes on
//! behind the last message that came: each comes once and in order, and what is missing is told as
//! a gap. A topic that cannot be joined at the moment is asked for again beside the others. The
//! client waits as long as the server asks (close codes, `drain`, `Retry-After`, at most an hour), or
//! a back-off with full jitter. It ends by itself only where the server says that it may not come
//! back as it is, or refuses a token that was fetched for this very try.
//!
//! A token function is called again when the server says that the token ends soon, and when it has
//! ended. A publication with an idempotency key whose answer was lost is repeated, but not when the
//! server may have forgotten the key, nor where the server closed the connection because of what it
//! was sent.
//!
//! [`Client`] is what programs use. Below it lie [`resuming::ResumingConnection`], the same without
//! a task of its own, and [`http::Api`] for the HTTP API.

pub mod address;
pub mod client;
pub mod client_error;
pub mod connection;
pub mod dial;
mod driver;
pub mod error;
pub mod frame;
pub mod http;
pub mod reconnect;
pub mod resuming;
pub mod status;
pub mod subscription;
pub mod token;

pub use client::{Client, Members, Page, Publication, Published};
pub use client_error::ClientError;
pub use dial::Tls;
pub use fanfare_protocol::command::{History, Subscribe};
pub use fanfare_protocol::event::{Member, Message, Presence};
pub use fanfare_protocol::ids::{Position, Priority, SessionId};
pub use resuming::Options;
pub use status::Status;
pub use subscription::{Ended, Gap, Item, Subscription};
pub use token::Token;
