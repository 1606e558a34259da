//! The ordered way into Redis: one connection, one queue, the publication script.
