//! Barge's DuckDB store.
//!
//! DuckDB runs in the process. One connection writes and takes one transaction after another; others read beside it. A batch is
//! read in place: DuckDB sees the Arrow arrays through a table function, plain inserts go through its Appender, and every other
//! operation is one statement over the batch.
//!
//! DuckDB has no savepoints. So a transaction keeps the steps it applied, and applies them again after a statement that failed; and
//! before rows that may fail are written, one query over the batch finds those that would.
//!
//! ```
//! use barge_core::Store;
//! use barge_duckdb::DuckDbStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> barge_core::Result<()> {
//! let store = DuckDbStore::open("duckdb::memory:").await?;
//! let mut transaction = store.begin().await?;
//! transaction.execute("CREATE TABLE tasks(id BIGINT PRIMARY KEY, status VARCHAR NOT NULL)").await?;
//! transaction.commit().await?;
//! assert_eq!(store.describe(&"tasks".into()).await?.key, ["id"]);
//! store.close().await
//! # }
//! ```
//!
//! Code map: `options` opens the instance; `pool` lends its connections; `store` and `transaction` carry calls there; `apply` writes steps with the
//! statements of `plan`, `journal` remembers them; `rows` leaves out rows that fail, which `findings` finds by the queries of `image` over
//! the table's `constraints`; `convert` takes values from type to type, `check` says which don't go; `read` makes record batches of
//! results, `look_up` finds rows by key; `describe` reads the catalog, and
//! `sql` takes apart what it says. All `unsafe` is in `raw`.

mod apply;
mod check;
mod claim;
mod connection;
mod constraints;
mod convert;
mod ddl;
mod describe;
mod error;
mod findings;
mod image;
mod journal;
mod look_up;
mod options;
mod plan;
mod pool;
mod raw;
mod read;
mod rows;
mod sql;
mod store;
mod transaction;
mod types;

pub use options::DuckDbOptions;
pub use store::DuckDbStore;
