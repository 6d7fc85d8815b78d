//! The derives, through the facade alone: what a record says about its table, that every type comes back equal, and that a row is
//! appended whole or not at all. What must not compile is in `compile.rs`.

// The helpers of the tests may unwrap as the tests do.
#![allow(clippy::unwrap_used)]

#[path = "derive/hygiene.rs"]
mod hygiene;
#[path = "derive/reading.rs"]
mod reading;
#[cfg(feature = "sqlite")]
#[path = "derive/sqlite.rs"]
mod sqlite;
#[path = "derive/tables.rs"]
mod tables;
#[path = "derive/types.rs"]
mod types;
