//! The repository itself: the rules of the house, the documents beside the code, how the chart scales, and whether the
//! checker of the fault harness sees what it must see.

mod autoscaling;
mod banned;
mod docs;
mod tidy;
mod torture_checker;
