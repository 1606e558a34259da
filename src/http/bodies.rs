//! Bodies that both listeners answer with, so that a probe written for one works on the other.

use serde::Serialize;
use utoipa::ToSchema;

/// Whether the process does what a process does, or should be started anew.
#[derive(Debug, Serialize, ToSchema)]
pub struct LiveAnswer {
    /// False where a part of it hangs (`health.stuck_s`).
    pub live: bool,
    /// Which parts hang, where any does. On the API's listener only, because it names parts of the
    /// inside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub reasons: Vec<String>,
}

/// Whether the node should get new sessions.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadyAnswer {
    /// Whether it should.
    pub ready: bool,
    /// Why not; empty when it is ready. On the API's listener only, because it names parts of the
    /// inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required, nullable = false)]
    pub reasons: Option<Vec<String>>,
    /// What is wrong though the node is ready, if anything is. On the API's listener only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub partial: Vec<String>,
}

/// The home of a topic or user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Route {
    /// The node.
    pub node: String,
    /// Its public address, where it advertises one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub url: Option<String>,
    /// The partition that the topic belongs to.
    pub partition: u32,
}
