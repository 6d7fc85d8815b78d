//! Throw-away servers for tests. Nothing here touches a server that it did not start, unless the environment names one.
//!
//! - [`postgres`]: one PostgreSQL for a whole test run, with a fresh database for each test that asks.
//! - [`own_postgres`], [`own_postgres_with_tls`]: a PostgreSQL that one test has to itself, to kill, to start again, to
//!   configure.
//! - [`pgbouncer`]: a PgBouncer before the shared server.
//! - [`redis`], [`redis_cluster`]: one Redis, and one Redis Cluster of three nodes, for a whole test run.
//! - [`own_redis`], [`own_redis_cluster`] and their like: a Redis that one test has to itself, to kill, to halt, to take back in time.
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
mod own_redis;
mod pgbouncer;
mod place;
mod port;
mod postgres;
mod proxy;
mod redis;
mod redis_cluster;
mod resp;

pub use certificates::Certificates;
pub use own::{OwnPostgres, own_postgres, own_postgres_with, own_postgres_with_tls};
pub use own_redis::{
    OwnRedis, REDIS_PASSWORD, own_redis, own_redis_with, own_redis_with_password, own_redis_with_tls,
};
pub use pgbouncer::{PgBouncer, PoolMode, pgbouncer, pgbouncer_with};
pub use postgres::{PostgresServer, TestDatabase, postgres};
pub use proxy::{Counts, FaultPoint, Proxy, Traffic, Way};
pub use redis::{RedisServer, redis, redis_cluster};
pub use redis_cluster::{
    OwnRedisCluster, own_redis_cluster, own_redis_cluster_with_replica, own_redis_cluster_with_tls,
};
pub use resp::Reply;
