//! Redis as a shared cache keeps every promise of the interface, as a single server and as a cluster; and what becomes of calls when servers
//! are killed, halted, full, protected, or move their keys. Loaders over a server that is taken back in time.
//!
//! Needs the program `redis-server`.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap as tests do")]

extern crate barge_core as barge;

mod clusters;
mod connections;
mod limits;
mod loaders;
mod promises;
mod protection;
mod support;
