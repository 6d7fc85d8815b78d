//! Barge's PostgreSQL store.

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
