//! What both HTTP listeners have in common: how a request is read, and how one is refused.
//!
//! In: requests of the public listener (`ingress`) and of the API (`api`). Out: [`error`] is the one
//! table of status, code, headers and body; [`request`] checks what RFC 9112 leaves to a server and
//! reads credentials; [`media`] knows the forms of bodies; [`connection`] gives a body to what the
//! HTTP parser refuses and ends connections so that the last answer arrives; [`bodies`] are the
//! answers that both listeners give. Owns nothing.

pub mod bodies;
pub mod connection;
pub mod error;
pub mod media;
pub mod request;
