//! Caches before a store: what was read is kept, and forgotten when this process writes it.
//!
//! A [`Loader`](crate::Loader) asks the tiers in turn: `local`, in this process's memory; a [`SharedTier`], if there is one; the store. What it
//! promises, that no look-up by key which begins after a write of this process was acknowledged gives an older row, rests on three things:
//!
//! - `fences` tells what may be kept in memory, and `unsettled` what may not, because a commit may come late.
//! - `written` tells which keys a shared cache may hold older rows of. Its entries say when they were read from the store, so after the time to live
//!   there can be none.
//! - A load joins no look-up that began before it.

pub(crate) mod counts;
mod fences;
pub(crate) mod forget;
pub(crate) mod invalidations;
pub(crate) mod local;
mod options;
mod parts;
pub(crate) mod round;
pub(crate) mod shared;
mod sharing;
pub(crate) mod source;
mod stale;
mod tier;
pub(crate) mod tiers;
mod under_way;
mod unsettled;
mod written;

pub use options::Cache;
pub use tier::{Entry, Lease, SharedTier};
