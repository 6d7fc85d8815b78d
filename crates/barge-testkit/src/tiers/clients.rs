//! Several processes at one cache.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use barge_core::ErrorKind;
use barge_core::cache::Lease;
use tokio::task::JoinSet;

use super::*;

/// Values, leases and bars are everybody's.
pub async fn what_one_sets_others_read(harness: &dyn TierHarness) {
    let (one, other) = (harness.client().await, harness.client().await);
    put(&*one, "a", "value").await;
    assert_eq!(read(&*other, "a").await, Some(bytes("value")));
    assert_eq!(lease(&*one, "b", "one").await, Lease::Granted);
    assert_eq!(lease(&*other, "b", "other").await, Lease::Held);
    other.invalidate(&keys(["a", "b"]), LONG).await.unwrap();
    assert_eq!(read(&*one, "a").await, None);
    one.fill(&[entry("b", "old")], "one").await.unwrap();
    assert_eq!(read(&*other, "b").await, None);
    assert_eq!(lease(&*one, "a", "one").await, Lease::Barred);
}

/// However many ask at once, each lease has one holder.
pub async fn of_racing_clients_one_gets_each_lease(harness: &dyn TierHarness) {
    const ASKERS: usize = 16;
    let names: Vec<String> = (0..100).map(|number| format!("key {number}")).collect();
    let clients = [harness.client().await, harness.client().await];
    let mut askers = JoinSet::new();
    for asker in 0..ASKERS {
        let (tier, mut names) = (Arc::clone(&clients[asker % 2]), names.clone());
        names.rotate_left(asker * 5);
        askers.spawn(async move {
            let found = tier.lease(&names, &format!("asker {asker}"), LONG).await.unwrap();
            let granted = names.into_iter().zip(found).filter(|(_, lease)| *lease == Lease::Granted);
            granted.map(|(key, _)| key).collect::<Vec<_>>()
        });
    }
    let mut granted: Vec<String> = askers.join_all().await.into_iter().flatten().collect();
    granted.sort_unstable();
    let mut expected = names;
    expected.sort_unstable();
    assert_eq!(granted, expected);
}

/// One fills what it read before while another invalidates: whoever was first, once the other has its answer the old value is gone.
pub async fn of_racing_fills_and_invalidations_none_outlives_the_bar(harness: &dyn TierHarness) {
    let (one, other) = (harness.client().await, harness.client().await);
    for round in 0..100 {
        let names = keys([&format!("key {round}"), "{always}"]);
        let entries: Vec<_> = names.iter().map(|key| entry(key, "old")).collect();
        one.lease(&names, "one", LONG).await.unwrap();
        let (filled, invalidated) =
            tokio::join!(one.fill(&entries, "one"), other.invalidate(&names, Duration::from_millis(1)));
        filled.unwrap();
        invalidated.unwrap();
        assert_eq!(one.read(&names).await.unwrap(), [None, None], "round {round}");
        until("the bar to expire", async || lease(&*one, &names[1], "one").await == Lease::Granted).await;
        one.release(&names, "one").await.unwrap();
    }
}

/// A call that nobody waits for any more may have happened or not; others aren't mixed up with it.
pub async fn a_dropped_call_harms_nobody(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    put(&*tier, "a", "value").await;
    for _ in 0..50 {
        let names = keys(["x", "y", "z"]);
        let mut dropped = pin!(tier.read(&names));
        // Sent, perhaps, and not waited for.
        let _ = poll_fn(|context| Poll::Ready(dropped.as_mut().poll(context).is_ready())).await;
        assert_eq!(read(&*tier, "a").await, Some(bytes("value")));
    }
}

/// A closed client is told so, and others aren't.
pub async fn a_closed_client_says_so(harness: &dyn TierHarness) {
    let (one, other) = (harness.client().await, harness.client().await);
    put(&*one, "a", "value").await;
    one.close().await;
    one.close().await;
    let names = keys(["a"]);
    let kinds = [
        one.read(&names).await.unwrap_err().kind(),
        one.lease(&names, "one", LONG).await.unwrap_err().kind(),
        one.fill(&[entry("a", "new")], "one").await.unwrap_err().kind(),
        one.release(&names, "one").await.unwrap_err().kind(),
        one.invalidate(&names, LONG).await.unwrap_err().kind(),
        one.mark(&[("a".into(), bytes("new"))], LONG).await.unwrap_err().kind(),
    ];
    assert_eq!(kinds, [ErrorKind::Closed; 6]);
    assert_eq!(read(&*other, "a").await, Some(bytes("value")));
}
