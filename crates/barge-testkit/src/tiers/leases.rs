//! Who may fill an entry.

use barge_core::cache::Lease;

use super::*;

/// Of those who ask for a lease, one gets it.
pub async fn a_lease_is_granted_once(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    assert_eq!(lease(&*tier, "a", "one").await, Lease::Granted);
    assert_eq!(lease(&*tier, "a", "two").await, Lease::Held);
    assert_eq!(lease(&*tier, "a", "three").await, Lease::Held);
}

/// Who holds a lease and asks again, as where the first answer was lost, still holds it.
pub async fn a_lease_stays_its_tokens(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    assert_eq!(lease(&*tier, "a", "one").await, Lease::Granted);
    assert_eq!(lease(&*tier, "a", "one").await, Lease::Granted);
    assert_eq!(lease(&*tier, "a", "two").await, Lease::Held);
}

/// Answers come in the order of the keys.
pub async fn leases_come_in_the_order_of_their_keys(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    assert_eq!(lease(&*tier, "held", "other").await, Lease::Granted);
    tier.invalidate(&keys(["barred"]), LONG).await.unwrap();
    let names = keys(["barred", "a", "held", "b", "barred"]);
    let found = tier.lease(&names, "token", LONG).await.unwrap();
    assert_eq!(found, [Lease::Barred, Lease::Granted, Lease::Held, Lease::Granted, Lease::Barred]);
}

/// A lease that was not used is free when its time is up.
pub async fn a_lease_expires(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    assert_eq!(lease_for(&*tier, "a", "one", SHORT).await, Lease::Granted);
    until("the lease to expire", async || lease(&*tier, "a", "two").await == Lease::Granted).await;
    assert_eq!(lease(&*tier, "a", "one").await, Lease::Held);
}

/// A lease that was given back is anybody's.
pub async fn a_released_lease_is_free(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    let names = keys(["a", "b"]);
    assert_eq!(tier.lease(&names, "one", LONG).await.unwrap(), [Lease::Granted; 2]);
    tier.release(&keys(["a"]), "one").await.unwrap();
    assert_eq!(tier.lease(&names, "two", LONG).await.unwrap(), [Lease::Granted, Lease::Held]);
    assert_eq!(read(&*tier, "a").await, None);
}

/// A lease is given back by who holds it alone.
pub async fn only_its_token_releases_a_lease(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    assert_eq!(lease(&*tier, "a", "one").await, Lease::Granted);
    tier.release(&keys(["a", "never leased"]), "two").await.unwrap();
    assert_eq!(lease(&*tier, "a", "two").await, Lease::Held);
}

/// A value doesn't stand in the way of a lease to refresh it, nor does the lease hide the value.
pub async fn a_key_with_a_value_is_leased_like_others(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    put(&*tier, "a", "old").await;
    assert_eq!(lease(&*tier, "a", "one").await, Lease::Granted);
    assert_eq!(lease(&*tier, "a", "two").await, Lease::Held);
    assert_eq!(read(&*tier, "a").await, Some(bytes("old")));
    tier.release(&keys(["a"]), "one").await.unwrap();
    assert_eq!(read(&*tier, "a").await, Some(bytes("old")));
}
