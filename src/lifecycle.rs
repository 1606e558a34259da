//! The phases of the process, from its start to its end.
//!
//! In: `node` moves the [`Lifecycle`]. Out: everybody may watch it. It only moves forward.

use tokio::sync::watch;

/// Where the process stands. It only moves forward.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Lifecycle {
    /// Parts are being built; nothing is accepted.
    Starting,
    /// Serving.
    Ready,
    /// Leaving: not ready, new handshakes are refused, sessions are told to go.
    Draining,
    /// The last replies are flushed and the last sessions closed.
    Closing,
    /// Everything has ended.
    Stopped,
}

/// The one writer of the lifecycle.
pub type LifecycleSender = watch::Sender<Lifecycle>;
/// Watches the lifecycle.
pub type LifecycleReceiver = watch::Receiver<Lifecycle>;
