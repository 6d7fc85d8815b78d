//! What a round trip saves. The figures of docs/benchmarks.md come from elsewhere; this holds that calls are sent together at all.

use std::time::{Duration, Instant};

use barge_core::cache::SharedTier;
use barge_redis::RedisTier;
use barge_testkit::servers;
use bytes::Bytes;

use crate::support::LONG;

const KEYS: usize = 10_000;

/// The shortest of some runs: other tests run beside this one.
async fn shortest(mut run: impl AsyncFnMut()) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        run().await;
        shortest = shortest.min(began.elapsed());
    }
    shortest
}

async fn ten_thousand_keys_against_one_by_one(url: &str, least: f64) {
    let tier = RedisTier::open(&format!("{url}&response_timeout=20s")).unwrap();
    let marks: Vec<(String, Bytes)> =
        (0..KEYS).map(|number| (format!("orders/{number}"), Bytes::from(vec![7; 200]))).collect();
    tier.mark(&marks, LONG).await.unwrap();
    let names: Vec<String> = marks.iter().map(|(name, _)| name.clone()).collect();
    let together = shortest(async || {
        assert_eq!(tier.read(&names).await.unwrap().iter().flatten().count(), KEYS);
    })
    .await;
    let sample = KEYS / 20;
    let one_by_one = shortest(async || {
        for name in &names[..sample] {
            assert!(tier.read(std::slice::from_ref(name)).await.unwrap()[0].is_some());
        }
    })
    .await
        * (KEYS / sample) as u32;
    let ratio = one_by_one.as_secs_f64() / together.as_secs_f64();
    println!("{url}: {KEYS} keys together in {together:?}, one by one in {one_by_one:?}: {ratio:.1} times");
    assert!(ratio > least, "{ratio:.1} times as fast");
}

#[tokio::test]
async fn a_server_answers_together() {
    ten_thousand_keys_against_one_by_one(&servers::redis().fresh_url(), 8.0).await;
}

#[tokio::test]
async fn a_cluster_answers_together() {
    ten_thousand_keys_against_one_by_one(&servers::redis_cluster().fresh_url(), 4.0).await;
}
