//! Apps of sessions, by values.
