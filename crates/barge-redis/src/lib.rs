//! Barge's shared cache in Redis: a single server, or a Redis Cluster.
//!
//! [`RedisTier`] is a [`SharedTier`](barge_core::cache::SharedTier). Every call sends all its commands together: one round trip, in a cluster one to
//! each node that has some of the keys. Connections are made when they are needed, so that an application starts while Redis is
//! down; a call then fails within the time its options allow, and the first call after Redis is back succeeds. docs/redis.md tells what is
//! kept in Redis and what a user of its access lists must be allowed.
//!
//! ```
//! use barge_redis::RedisTier;
//!
//! # fn main() -> barge_core::Result<()> {
//! // Nothing is sent yet.
//! let tier = RedisTier::open("redis://shop:secret@cache.example.com:6379/0?prefix=shop:&response_timeout=200ms")?;
//! assert_eq!(tier.name(), "redis://shop@cache.example.com:6379/0");
//!
//! let cluster = RedisTier::open("rediss-cluster://a.example.com,b.example.com?tls_ca=system")?;
//! assert_eq!(cluster.name(), "rediss-cluster://a.example.com:6379,b.example.com:6379");
//! # Ok(())
//! # }
//! ```
//!
//! Code map: `options` and `tls` say how servers are reached; `server` is one of them, with its connection, and `cluster` finds the one that has
//! a key; `tier` carries the calls there as commands over `keys` and `script`s; `error` says what failed.

mod cluster;
mod error;
mod keys;
mod options;
mod script;
mod server;
mod slots;
mod tier;
mod tls;

pub use options::RedisOptions;
pub use tier::RedisTier;
pub use tls::TlsVerify;
