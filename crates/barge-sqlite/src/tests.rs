//! The store against a real database. What every store must do is in the conformance suite; here is what only SQLite does.

mod connections;
mod describes;
mod flushes;
mod lending;
mod look_ups;
mod plans;
mod support;
mod types;
mod writes;
