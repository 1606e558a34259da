//! The client's side of `fanfare.v1`: the library's client and `fanfare subscribe`, each against a
//! server that the test plays by hand.

mod client;
mod handles;
mod subscribe;
