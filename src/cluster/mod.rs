//! The cluster: which nodes live, which of them is whose home, where topics are occupied.
