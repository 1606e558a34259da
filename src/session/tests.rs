//! Whole sessions over real sockets, in a node of this process over the in-process broker.

mod connecting;
mod ends;
mod inbox;
mod members;
mod opening;
mod publishing;
mod reach;
mod reading;
mod resuming;
mod revoked;
mod slow;
mod subscribing;
