//! The shared cache in memory keeps every promise of its interface while nothing goes wrong, and breaks them as its faults say.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap as tests do")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use barge_core::ErrorKind;
use barge_core::cache::{Entry, Lease, SharedTier};
use barge_testkit::tiers::TierHarness;
use barge_testkit::{MemoryTier, TierFaults};
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

struct Memory(MemoryTier);

#[async_trait]
impl TierHarness for Memory {
    async fn client(&self) -> Arc<dyn SharedTier> {
        Arc::new(self.0.another())
    }
}

barge_testkit::tier_suite!(Memory(MemoryTier::new()));

const LONG: Duration = Duration::from_secs(600);
const ALWAYS: u16 = 1_000;

fn keys() -> Vec<String> {
    vec!["a".into()]
}

fn entries(value: &'static str) -> [Entry; 1] {
    [Entry { key: "a".into(), value: Bytes::from_static(value.as_bytes()), time: LONG }]
}

/// A cache with a value under `a`, and then faults.
async fn with_faults(faults: TierFaults) -> MemoryTier {
    let tier = MemoryTier::new();
    tier.mark(&[("a".into(), Bytes::from_static(b"old"))], LONG).await.unwrap();
    tier.set_faults(faults);
    tier
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_did_nothing_and_one_that_failed_after_did() {
    let tier = with_faults(TierFaults { fail: ALWAYS, ..TierFaults::default() }).await;
    assert_eq!(tier.invalidate(&keys(), LONG).await.unwrap_err().kind(), ErrorKind::ConnectionLost);
    assert_eq!(tier.value("a").as_deref(), Some(&b"old"[..]));

    let tier = with_faults(TierFaults { fail_after: ALWAYS, ..TierFaults::default() }).await;
    assert!(tier.invalidate(&keys(), LONG).await.is_err());
    assert_eq!(tier.value("a"), None);
    assert_eq!(tier.calls().invalidate, 1);
}

#[tokio::test(start_paused = true)]
async fn a_late_call_happens_when_nobody_waits_for_it() {
    let delay = Duration::from_secs(10);
    let tier = with_faults(TierFaults { late: ALWAYS, delay, ..TierFaults::default() }).await;
    assert_eq!(tier.invalidate(&keys(), LONG).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(tier.value("a").is_some());
    sleep(delay).await;
    assert_eq!(tier.value("a"), None);

    // In between, what it is about to undo.
    tier.mark(&[("b".into(), Bytes::new())], LONG).await.unwrap_err();
    tier.set_faults(TierFaults::default());
    tier.mark(&[("b".into(), Bytes::from_static(b"new"))], LONG).await.unwrap();
    assert_eq!(tier.value("b").as_deref(), Some(&b"new"[..]));
    sleep(delay).await;
    assert_eq!(tier.value("b").as_deref(), Some(&b""[..]));
}

#[tokio::test(start_paused = true)]
async fn a_lost_call_says_that_it_happened() {
    let tier = with_faults(TierFaults { lose: ALWAYS, ..TierFaults::default() }).await;
    tier.invalidate(&keys(), LONG).await.unwrap();
    assert!(tier.value("a").is_some());
    assert_eq!(tier.lease(&keys(), "one", LONG).await.unwrap(), [Lease::Granted]);
    assert_eq!(tier.lease(&keys(), "two", LONG).await.unwrap(), [Lease::Granted]);
    tier.fill(&entries("new"), "two").await.unwrap();
    assert_eq!(tier.value("a").as_deref(), Some(&b"old"[..]));
}

#[tokio::test(start_paused = true)]
async fn slow_calls_take_their_time_and_hanging_ones_all_of_it() {
    let delay = Duration::from_secs(10);
    let tier = with_faults(TierFaults { seed: 7, slow: ALWAYS, delay, ..TierFaults::default() }).await;
    let began = Instant::now();
    for _ in 0..100 {
        tier.read(&keys()).await.unwrap();
    }
    let took = began.elapsed();
    assert!(took > delay * 20 && took < delay * 80, "{took:?}");

    let tier = with_faults(TierFaults { hang: ALWAYS, ..TierFaults::default() }).await;
    assert!(timeout(LONG, tier.invalidate(&keys(), LONG)).await.is_err());
    assert!(tier.value("a").is_none(), "its time is up");
}

#[tokio::test(start_paused = true)]
async fn what_expires_early_and_what_is_evicted_is_gone() {
    let tier = with_faults(TierFaults { expire_early: ALWAYS, ..TierFaults::default() }).await;
    for number in 0..100 {
        tier.mark(&[(number.to_string(), Bytes::new())], LONG).await.unwrap();
    }
    sleep(LONG / 2).await;
    let left = (0..100).filter(|number: &u32| tier.value(&number.to_string()).is_some()).count();
    assert!((20..80).contains(&left), "{left}");

    let tier = with_faults(TierFaults { evict: ALWAYS, ..TierFaults::default() }).await;
    tier.invalidate(&["b".to_owned()], LONG).await.unwrap();
    assert_eq!(tier.value("a"), None);
    assert_eq!(tier.lease(&["b".to_owned()], "one", LONG).await.unwrap(), [Lease::Granted], "the bar, too");
}

#[tokio::test(start_paused = true)]
async fn a_cache_comes_back_with_what_it_held_before() {
    let tier = MemoryTier::new();
    tier.lease(&keys(), "one", LONG).await.unwrap();
    tier.mark(&[("b".into(), Bytes::new())], LONG / 2).await.unwrap();
    let before = tier.snapshot();
    tier.invalidate(&keys(), LONG).await.unwrap();
    tier.fill(&entries("old"), "one").await.unwrap();
    assert_eq!(tier.value("a"), None);

    tier.restore(&before);
    tier.fill(&entries("old"), "one").await.unwrap();
    assert!(tier.value("a").is_some() && tier.value("b").is_some());
    sleep(LONG / 2).await;
    tier.restore(&before);
    assert_eq!(tier.value("b"), None, "its time is up");
    tier.clear();
    assert_eq!(tier.lease(&keys(), "two", LONG).await.unwrap(), [Lease::Granted]);
}

#[tokio::test(start_paused = true)]
async fn one_seed_means_the_same_faults() {
    async fn run(seed: u64) -> Vec<String> {
        let tier = MemoryTier::with_faults(TierFaults::from_seed(seed).answering());
        let mut answers = Vec::new();
        for number in 0..200_u64 {
            let key = [(number % 7).to_string()];
            answers.push(format!("{:?}", tier.lease(&key, "one", LONG).await));
            answers.push(format!("{:?}", tier.release(&key, "one").await));
            answers.push(format!("{:?}", tier.read(&key).await));
        }
        answers
    }
    for seed in 0..20 {
        assert_eq!(run(seed).await, run(seed).await, "{}", TierFaults::from_seed(seed));
    }
    assert_ne!(run(1).await, run(2).await);
}
