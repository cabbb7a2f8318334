//! The plan: from what is wanted, what exists and what is asked for to an ordered graph of steps. Pure.
pub mod changes;
pub mod intent;
pub mod label;
pub mod spec;
pub mod step;
