//! The HTTP API from outside: every call, every refusal, and the document that describes them.

mod document;
mod fixture;
mod guide;
mod health;
mod publish;
mod reads;
mod refusals;
