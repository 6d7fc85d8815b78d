//! What PostgreSQL has beside the promises of every store: its own types and kinds of tables, cut-off connections, several writers at once,
//! poolers.
//!
//! Needs PostgreSQL's programs (`initdb`, `postgres`) and PgBouncer, or `BARGE_TEST_POSTGRES_URL` for the tests that don't stop servers.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap as tests do")]

extern crate barge_core as barge;

mod connections;
mod contention;
mod exactly_once;
mod given_up;
mod look_ups;
mod pooled;
mod reshaped;
mod search;
mod sessions;
mod stale;
mod statement_counts;
mod support;
mod tables;
mod types;
