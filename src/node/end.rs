//! How a node ended, and why in words.
//!
//! In: nothing. Out: [`End`], and its last word for the log. Pure.

/// How the node ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// A signal, and everything in order.
    Stopped,
    /// Another process took this node's name.
    Superseded,
    /// A running process has this node's name and keeps it.
    NameTaken,
    /// This node's configuration or release differs from what the cluster agreed on: where.
    Disagrees(String),
    /// A part of the node has ended without which it is none: which. The log says why.
    Failed(String),
}

impl End {
    /// Why it ended, for people; `None` where it was asked to.
    #[must_use]
    pub fn last_word(&self) -> Option<String> {
        let text = match self {
            Self::Stopped => return None,
            Self::Superseded => {
                "another process has taken this node's name; give each node its own --node-id"
            }
            Self::NameTaken => {
                "a running process has this node's name, and keeps it; give each node its own \
                 --node-id"
            }
            Self::Disagrees(how) => {
                return Some(format!(
                    "this node does not agree with its cluster: {how}\n\
                     Every node needs the same. Mend this one, or stop all nodes and run \
                     `fanfare redis adopt` with the new configuration."
                ));
            }
            Self::Failed(part) => {
                return Some(format!("{part} has ended, without which this node is none"));
            }
        };
        Some(text.to_owned())
    }
}
