//! What Barge's own tests stand on; not published.
//!
//! - [`conformance`]: one test a promise of the store interface, run by every store.
//! - [`flushes`]: random operations through a writer, held against a reference that takes one row after another.
//! - [`MemoryStore`]: a correct store in memory, with constraints, for tests of the engine under a paused clock.
//! - [`NullStore`]: a store that accepts everything and keeps nothing, to measure what the engine itself costs.
//! - [`History`]: what rows were and may be by now, to hold against what is read of them.
//! - [`MemoryTier`]: a shared cache in memory, with everything that one may do wrong injected from a printed seed.
//! - [`tiers`]: one test a promise of the interface to shared caches.
//! - [`FaultStore`]: any store, with failures injected from a printed seed.
//! - [`servers`]: throw-away servers, and a proxy that cuts and delays what goes to them.

pub mod conformance;
mod fault;
pub mod flushes;
mod history;
mod memory;
mod null;
pub mod servers;
mod tier;
pub mod tiers;
mod value;

pub use fault::{Effect, Fault, FaultPlan, FaultStore, Point};
pub use history::History;
pub use memory::{MemoryRow, MemoryStore, MemoryTable};
pub use null::NullStore;
pub use tier::{MemoryTier, TierCalls, TierFaults, TierSnapshot};
pub use value::{Float, Value};
