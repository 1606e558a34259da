//! The durable queue as backends and operators see it: `/v1/queue` and what hangs below it.
//!
//! In: entries from backends ([`add`]), questions of operators ([`depth`], [`dead`]) and what they
//! want done with dead letters ([`redrive`]). Out: calls of the broker, which has the queue; who works
//! it off is not known here. Owns nothing. Bounds: those of a batch for what is added, and how full
//! the queue may be ([`bound`]); [`letters::LETTERS_MAX`] dead letters a call.

pub mod add;
pub mod answers;
pub mod body;
pub mod bound;
pub mod dead;
pub mod depth;
mod done;
pub mod faults;
pub mod letters;
pub mod redrive;
mod selection;
pub mod taken;
mod walk;
mod whose;
