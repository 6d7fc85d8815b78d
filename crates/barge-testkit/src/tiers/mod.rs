//! The promises of the interface to shared caches, one test each. Every [`SharedTier`] runs all of them.
//!
//! A cache's `tests/` holds a [`TierHarness`] that makes fresh caches, and one line:
//!
//! ```ignore
//! barge_testkit::tier_suite!(MyHarness::new());
//! ```
//!
//! The clock is the real one: a cache that is another process has no other. So nothing is held to expire before its time, but to be gone
//! some time behind it; what must not be gone yet has a long life.

// These are tests, though they are compiled as a library.
#![allow(clippy::unwrap_used)]

pub mod clients;
pub mod fills;
pub mod invalidations;
pub mod leases;
mod suite;
pub mod values;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use barge_core::cache::{Entry, Lease, SharedTier};
use bytes::Bytes;

/// What the suite needs to know of a cache.
#[async_trait]
pub trait TierHarness: Send + Sync {
    /// A client of the cache, which is fresh and empty for this harness, and the same for each call: two clients are as two processes.
    async fn client(&self) -> Arc<dyn SharedTier>;
}

/// Long enough never to end within a test.
const LONG: Duration = Duration::from_secs(600);
/// Short enough to be waited for.
const SHORT: Duration = Duration::from_millis(60);
/// The longest wait for what should end after [`SHORT`].
const PATIENCE: Duration = Duration::from_secs(10);

fn keys<const N: usize>(keys: [&str; N]) -> Vec<String> {
    keys.map(str::to_owned).to_vec()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn entry(key: &str, value: &str) -> Entry {
    entry_for(key, value, LONG)
}

fn entry_for(key: &str, value: &str, time: Duration) -> Entry {
    Entry { key: key.to_owned(), value: bytes(value), time }
}

async fn read(tier: &dyn SharedTier, key: &str) -> Option<Bytes> {
    let mut found = tier.read(&keys([key])).await.unwrap();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

async fn lease(tier: &dyn SharedTier, key: &str, token: &str) -> Lease {
    lease_for(tier, key, token, LONG).await
}

async fn lease_for(tier: &dyn SharedTier, key: &str, token: &str, time: Duration) -> Lease {
    let found = tier.lease(&keys([key]), token, time).await.unwrap();
    assert_eq!(found.len(), 1);
    found[0]
}

/// Puts a value under a key by a lease of its own.
async fn put(tier: &dyn SharedTier, key: &str, value: &str) {
    assert_eq!(lease(tier, key, "put").await, Lease::Granted, "{key}");
    tier.fill(&[entry(key, value)], "put").await.unwrap();
    assert_eq!(read(tier, key).await, Some(bytes(value)), "{key}");
}

/// Waits until something is so, and panics when that takes too long.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(SHORT / 4).await;
    }
}
