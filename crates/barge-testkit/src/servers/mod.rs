//! Throw-away servers for tests. Nothing here touches a server that it did not start, unless the environment names one.
//!
//! - [`postgres`]: one PostgreSQL for a whole test run, with a fresh database for each test that asks.
//! - [`own_postgres`], [`own_postgres_with_tls`]: a PostgreSQL that one test has to itself, to kill, to start again, to
//!   configure.
//! - [`pgbouncer`]: a PgBouncer before the shared server.
//! - [`Proxy`]: loses connections where a test says, slows them down, and falls silent.
//!
//! Every server listens on the loopback address alone, lives in a directory of its own under `TMPDIR`, or in memory where
//! that is not set, and ends with the processes that use it, however they end: see `keeper.rs`. Run as root, it runs as
//! the user `postgres`, or else `nobody`. Starting blocks the calling thread, also inside an asynchronous test; no runtime
//! of the caller is used, so a paused clock does no harm.

mod certificates;
mod cluster;
mod keeper;
mod own;
mod pgbouncer;
mod place;
mod port;
mod postgres;
mod proxy;

pub use certificates::Certificates;
pub use own::{OwnPostgres, own_postgres, own_postgres_with, own_postgres_with_tls};
pub use pgbouncer::{PgBouncer, PoolMode, pgbouncer};
pub use postgres::{PostgresServer, TestDatabase, postgres};
pub use proxy::{Counts, FaultPoint, Proxy, Traffic, Way};
