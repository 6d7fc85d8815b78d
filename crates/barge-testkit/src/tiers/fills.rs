//! Values that are set, and for how long.

use barge_core::cache::Lease;

use super::*;

/// Without the lease nothing is set, and nobody is told.
pub async fn only_the_leases_token_fills(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    tier.fill(&[entry("a", "no lease")], "one").await.unwrap();
    assert_eq!(read(&*tier, "a").await, None);
    assert_eq!(lease(&*tier, "a", "one").await, Lease::Granted);
    tier.fill(&[entry("a", "another's lease")], "two").await.unwrap();
    assert_eq!(read(&*tier, "a").await, None);
    tier.fill(&[entry("a", "value")], "one").await.unwrap();
    assert_eq!(read(&*tier, "a").await, Some(bytes("value")));
}

/// A lease is good for one fill.
pub async fn a_fill_ends_its_lease(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    assert_eq!(lease(&*tier, "a", "one").await, Lease::Granted);
    tier.fill(&[entry("a", "first")], "one").await.unwrap();
    tier.fill(&[entry("a", "second")], "one").await.unwrap();
    assert_eq!(read(&*tier, "a").await, Some(bytes("first")));
    assert_eq!(lease(&*tier, "a", "two").await, Lease::Granted);
}

/// A refreshed entry has the new value, and the new time.
pub async fn a_fill_replaces_the_value(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    put(&*tier, "a", "old").await;
    assert_eq!(lease(&*tier, "a", "one").await, Lease::Granted);
    tier.fill(&[entry_for("a", "new", SHORT)], "one").await.unwrap();
    until("the new value to expire", async || read(&*tier, "a").await != Some(bytes("new"))).await;
    assert_eq!(read(&*tier, "a").await, None);
}

/// Who fills when the lease's time is up comes too late.
pub async fn a_fill_behind_its_lease_is_void(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    assert_eq!(lease_for(&*tier, "a", "one", SHORT).await, Lease::Granted);
    until("the lease to expire", async || lease(&*tier, "a", "two").await == Lease::Granted).await;
    tier.fill(&[entry("a", "late")], "one").await.unwrap();
    assert_eq!(read(&*tier, "a").await, None);
    tier.fill(&[entry("a", "value")], "two").await.unwrap();
    assert_eq!(read(&*tier, "a").await, Some(bytes("value")));
}

/// Of the entries of one call those are set whose lease stands.
pub async fn each_entry_has_its_own_lease(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    assert_eq!(lease(&*tier, "b", "other").await, Lease::Granted);
    tier.lease(&keys(["a", "b", "c"]), "one", LONG).await.unwrap();
    tier.invalidate(&keys(["c"]), LONG).await.unwrap();
    tier.fill(&[entry("a", "1"), entry("b", "2"), entry("c", "3"), entry("d", "4")], "one").await.unwrap();
    let found = tier.read(&keys(["a", "b", "c", "d"])).await.unwrap();
    assert_eq!(found, [Some(bytes("1")), None, None, None]);
}

/// Entries of one call live as long as each says.
pub async fn each_entry_expires_at_its_own_time(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    let names = keys(["short", "long", "no time at all"]);
    tier.lease(&names, "one", LONG).await.unwrap();
    let entries = [
        entry_for("short", "1", SHORT),
        entry("long", "2"),
        entry_for("no time at all", "3", Duration::ZERO),
    ];
    tier.fill(&entries, "one").await.unwrap();
    until("two entries to expire", async || tier.read(&names).await.unwrap().iter().flatten().count() == 1)
        .await;
    assert_eq!(tier.read(&names).await.unwrap(), [None, Some(bytes("2")), None]);
    assert_eq!(lease(&*tier, "forever", "one").await, Lease::Granted);
    tier.fill(&[entry_for("forever", "4", Duration::MAX)], "one").await.unwrap();
    assert_eq!(read(&*tier, "forever").await, Some(bytes("4")));
}

/// Marks need no lease, overwrite each other, and are read as values are.
pub async fn marks_are_set_without_a_lease(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    assert_eq!(lease(&*tier, "a", "other").await, Lease::Granted);
    tier.mark(&[("a".into(), bytes("1")), ("b".into(), bytes("2"))], LONG).await.unwrap();
    assert_eq!(tier.read(&keys(["b", "a"])).await.unwrap(), [Some(bytes("2")), Some(bytes("1"))]);
    tier.invalidate(&keys(["b"]), LONG).await.unwrap();
    tier.mark(&[("a".into(), bytes("3")), ("b".into(), bytes("4"))], LONG).await.unwrap();
    assert_eq!(tier.read(&keys(["b", "a"])).await.unwrap(), [Some(bytes("4")), Some(bytes("3"))]);
    assert_eq!(lease(&*tier, "a", "one").await, Lease::Held, "a mark leaves the lease alone");
}

/// Marks are gone when their time is up.
pub async fn marks_expire(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    tier.mark(&[("a".into(), bytes("1"))], LONG).await.unwrap();
    tier.mark(&[("a".into(), bytes("2"))], SHORT).await.unwrap();
    until("the mark to expire", async || read(&*tier, "a").await.is_none()).await;
}
