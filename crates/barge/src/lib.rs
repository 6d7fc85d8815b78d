//! Barge moves rows between applications and databases in batches.

extern crate self as barge;

pub use arrow;
pub use barge_core::*;
