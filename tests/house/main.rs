//! The repository itself: the rules of the house, the documents beside the code, and whether the
//! checker of the fault harness sees what it must see.

mod docs;
mod tidy;
mod torture_checker;
