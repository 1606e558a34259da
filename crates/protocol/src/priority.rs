//! How urgent a publication is.
//!
//! In: the name on the wire. Out: one of four, in their order. Pure.

use serde::{Deserialize, Serialize};

/// How urgent a publication is. The order is the order of urgency.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// May wait longest.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Before normal.
    High,
    /// Before everything.
    Critical,
}

impl Priority {
    /// Whether this is the default, which the wire leaves out.
    #[must_use]
    pub fn is_normal(&self) -> bool {
        *self == Self::Normal
    }
}
