//! The door: who may come in, and with which rights.
//!
//! In: tokens as they come with a request or a command, and the keys of the configuration. Out:
//! [`auth::Claims`] that hold only valid names, and answers to "may this session do that?"
//! ([`rights::permitted`]). Tokens are bounded by `auth.token_bytes_max` before anything of them
//! is read. Nothing here prints, logs or repeats a token, a secret or a claim's value.

pub mod auth;
pub mod keys;
pub mod mint;
pub mod rights;
#[cfg(test)]
mod test_keys;
