//! Barge's PostgreSQL store.
//!
//! A pool of connections; a flush takes one. Many plain inserts go by binary COPY, encoded from the Arrow arrays; everything else is one statement
//! a step over `unnest` of one array a column. docs/postgres.md tells what is sent, and what a server must have.
//!
//! ```no_run
//! use barge_core::Database;
//! use barge_postgres::PostgresOptions;
//!
//! # async fn open() -> barge_core::Result<()> {
//! let options = PostgresOptions::from_url("postgres://app@db.example.com/shop?sslmode=verify-full")?;
//! let db = Database::new(options.pool_size(20).open().await?);
//! assert!(db.tables().await?.contains(&"orders".into()));
//! # Ok(())
//! # }
//! ```
//!
//! Code map: `options` and `tls` say how a server is reached, `pool` and `connection` reach it; `store` and `transaction` carry calls there; `apply`
//! and `rows` run steps with the text of `statements` over a `batch`; `fit` makes arrays the columns' own types, `encode` sends them,
//! `decode` and `read` bring rows back, `look_up` by key; `describe` and `ddl` are the schema, `claim` the tokens of flushes.

mod apply;
mod batch;
mod check;
mod claim;
mod connection;
mod ddl;
mod decode;
mod describe;
mod encode;
mod error;
mod fit;
mod look_up;
mod options;
mod pool;
mod read;
mod rows;
mod statements;
mod store;
mod tls;
mod transaction;
mod types;

#[cfg(test)]
mod tests;

pub use options::{PostgresOptions, Without};
pub use store::PostgresStore;
pub use tls::SslMode;
