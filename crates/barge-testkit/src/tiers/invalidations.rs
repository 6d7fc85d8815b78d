//! Entries that are removed, and what is kept from taking their place.

use barge_core::cache::Lease;

use super::*;

/// What was invalidated isn't read again, and nobody may fill it yet.
pub async fn an_invalidated_entry_is_gone_and_barred(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    put(&*tier, "a", "old").await;
    tier.invalidate(&keys(["a"]), LONG).await.unwrap();
    assert_eq!(read(&*tier, "a").await, None);
    assert_eq!(lease(&*tier, "a", "one").await, Lease::Barred);
    tier.fill(&[entry("a", "old")], "one").await.unwrap();
    assert_eq!(read(&*tier, "a").await, None);
}

/// Who began to look up before the invalidation must not fill behind it, however long it takes.
pub async fn a_fill_that_was_overtaken_is_void(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    assert_eq!(lease(&*tier, "a", "one").await, Lease::Granted);
    tier.invalidate(&keys(["a"]), SHORT).await.unwrap();
    tier.fill(&[entry("a", "old")], "one").await.unwrap();
    assert_eq!(read(&*tier, "a").await, None);
    until("the bar to expire", async || lease(&*tier, "a", "two").await == Lease::Granted).await;
    tier.fill(&[entry("a", "old")], "one").await.unwrap();
    assert_eq!(read(&*tier, "a").await, None);
}

/// When the bar's time is up, entries are filled again.
pub async fn a_bar_expires(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    put(&*tier, "a", "old").await;
    tier.invalidate(&keys(["a"]), SHORT).await.unwrap();
    until("the bar to expire", async || lease(&*tier, "a", "one").await == Lease::Granted).await;
    assert_eq!(read(&*tier, "a").await, None);
    tier.fill(&[entry("a", "new")], "one").await.unwrap();
    assert_eq!(read(&*tier, "a").await, Some(bytes("new")));
}

/// Releasing lifts no bar, whatever the token.
pub async fn a_bar_is_nobodys_to_release(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    assert_eq!(lease(&*tier, "a", "one").await, Lease::Granted);
    tier.invalidate(&keys(["a"]), LONG).await.unwrap();
    for token in ["one", "", "barred", "bar", "*", "by one"] {
        tier.release(&keys(["a"]), token).await.unwrap();
        tier.fill(&[entry("a", "old")], token).await.unwrap();
        assert_eq!(lease(&*tier, "a", token).await, Lease::Barred, "{token:?}");
    }
    assert_eq!(read(&*tier, "a").await, None);
}

/// A key is barred as long as its last invalidation says.
pub async fn a_later_bar_takes_the_place_of_an_earlier(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    tier.invalidate(&keys(["a"]), SHORT).await.unwrap();
    tier.invalidate(&keys(["a"]), LONG).await.unwrap();
    tokio::time::sleep(SHORT * 2).await;
    assert_eq!(lease(&*tier, "a", "one").await, Lease::Barred);
}

/// There may be no value, and somebody about to fill one all the same.
pub async fn keys_without_a_value_are_barred(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    tier.invalidate(&keys(["a", "b", "a"]), LONG).await.unwrap();
    assert_eq!(tier.lease(&keys(["a", "b"]), "one", LONG).await.unwrap(), [Lease::Barred; 2]);
}

/// Invalidation touches the keys that it names.
pub async fn other_keys_are_left_alone(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    put(&*tier, "a", "1").await;
    put(&*tier, "ab", "2").await;
    assert_eq!(lease(&*tier, "b", "one").await, Lease::Granted);
    tier.invalidate(&keys(["a"]), LONG).await.unwrap();
    assert_eq!(read(&*tier, "ab").await, Some(bytes("2")));
    tier.fill(&[entry("b", "3")], "one").await.unwrap();
    assert_eq!(read(&*tier, "b").await, Some(bytes("3")));
}
