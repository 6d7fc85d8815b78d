//! What the tests are written with.

use std::time::{Duration, Instant};

use barge_core::Result;
use barge_core::cache::{Entry, Lease, SharedTier};
use barge_redis::RedisTier;
use bytes::Bytes;

pub(crate) const LONG: Duration = Duration::from_secs(600);
/// Longer than any wait here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn key(key: &str) -> [String; 1] {
    [key.to_owned()]
}

/// Puts a value under a key.
pub(crate) async fn put(tier: &RedisTier, name: &str, value: &str) -> Result<()> {
    tier.lease(&key(name), "put", LONG).await?;
    let entry = Entry { key: name.to_owned(), value: Bytes::copy_from_slice(value.as_bytes()), time: LONG };
    tier.fill(&[entry], "put").await
}

/// The value of a key as text.
pub(crate) async fn get(tier: &RedisTier, name: &str) -> Result<Option<String>> {
    let found = tier.read(&key(name)).await?.remove(0);
    Ok(found.map(|value| String::from_utf8(value.to_vec()).unwrap()))
}

pub(crate) async fn lease(tier: &RedisTier, name: &str, token: &str) -> Result<Lease> {
    Ok(tier.lease(&key(name), token, LONG).await?.remove(0))
}

/// Calls until it succeeds, and panics when that takes too long.
pub(crate) async fn until_ok<T>(mut call: impl AsyncFnMut() -> Result<T>) -> T {
    let began = Instant::now();
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
