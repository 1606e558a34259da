//! Whole sessions over real sockets, in a node of this process over the in-process broker.

mod opening;
mod reading;
mod subscribing;
