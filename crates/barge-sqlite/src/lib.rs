//! Barge's SQLite store.
//!
//! One connection writes, on a thread of its own, and takes one transaction after another; a file has readers beside it. A
//! batch is read in place: SQLite sees the Arrow arrays as a virtual table, and every operation is one statement over it.
//!
//! ```
//! use barge_core::Store;
//! use barge_sqlite::SqliteStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> barge_core::Result<()> {
//! let store = SqliteStore::open("sqlite::memory:").await?;
//! let mut transaction = store.begin().await?;
//! transaction.execute("CREATE TABLE tasks(id INTEGER PRIMARY KEY, status TEXT NOT NULL)").await?;
//! transaction.commit().await?;
//! assert_eq!(store.describe(&"tasks".into()).await?.key, ["id"]);
//! store.close().await
//! # }
//! ```
//!
//! Code map: `options` opens connections; `thread` runs them; `store` and `transaction` carry calls there; `apply` and `rows` run steps with the statements of
//! `plan`; `batch` is the virtual table; `read` makes arrays of results; `look_up` finds rows by key; `check` finds what SQLite would change;
//! `describe` reads the schema. `unsafe` is in `batch::module`, `statement`, and single calls on an open connection.

mod affinity;
mod apply;
mod batch;
mod check;
mod claim;
mod connection;
mod ddl;
mod describe;
mod error;
mod failure;
mod keys;
mod look_up;
mod options;
mod plan;
mod read;
mod readers;
mod rows;
mod statement;
mod statements;
mod store;
mod temporal;
mod thread;
mod transaction;

#[cfg(test)]
mod tests;

pub use options::{Profile, SqliteOptions};
pub use store::SqliteStore;
