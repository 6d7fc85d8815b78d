//! Caches before a store: what was read is kept, and forgotten when this process writes it.

mod tier;

pub use tier::{Entry, Lease, SharedTier};
