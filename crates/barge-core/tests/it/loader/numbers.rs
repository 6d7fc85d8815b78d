//! What the metrics facade is told is what the statistics say.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use barge_testkit::{MemoryTier, TierFaults};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tokio::time::sleep;

use super::sharing::{TTL, clock, elsewhere, shared};
use super::*;

/// Counters and gauges by name, with their tier.
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

impl Recorded {
    fn cell(&self, key: &Key) -> Arc<AtomicU64> {
        let labels = key.labels().map(|label| format!(" {}", label.value()));
        let name = labels.fold(key.name().to_owned(), |name, label| name + &label);
        Arc::clone(self.0.lock().unwrap().entry(name).or_default())
    }

    fn counter(&self, name: &str) -> u64 {
        self.0.lock().unwrap().get(name).unwrap_or_else(|| panic!("no {name}")).load(Ordering::Relaxed)
    }

    fn gauge(&self, name: &str) -> f64 {
        f64::from_bits(self.counter(name))
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test(start_paused = true)]
async fn the_facade_is_told_what_the_statistics_say() {
    clock();
    let recorded = Recorded::default();
    let _recording = metrics::set_default_local_recorder(&recorded);
    let (db, tier) = (elsewhere(&filled(200).await), MemoryTier::new());
    let cache = shared(&tier, TTL).entries(100);
    let loader = db.loader::<Task>().cache(cache).in_flight(2).max_keys(50).start::<i64>();
    loader.warm(0..50, WarmOptions::default()).await.unwrap();
    let loads = |keys: Vec<i64>| {
        let loader = loader.clone();
        tokio::spawn(async move { loader.load_many(keys).await.map(drop) })
    };
    let asked = [
        loads([150].into_iter().chain(150..250).collect()),
        loads((160..260).collect()),
        loads((0..10).collect()),
    ];
    sleep(LATENCY / 4).await;
    loads((155..165).chain([500]).collect()).await.unwrap().unwrap();
    for asked in asked {
        asked.await.unwrap().unwrap();
    }
    db.upsert_all(&[task(3, "written")]).await.unwrap();
    loader.load(3).await.unwrap();
    sleep(TTL.mul_f64(0.85)).await;
    loader.load_many(0..10).await.unwrap();
    tier.set_faults(TierFaults { fail: 1_000, ..TierFaults::default() });
    for key in 300..310 {
        loader.load(key).await.unwrap();
    }
    let statistics = loader.close().await;
    let counters = [
        ("requests", statistics.requests),
        ("hits memory", statistics.memory_hits),
        ("hits shared", statistics.shared_hits),
        ("misses memory", statistics.memory_misses),
        ("misses shared", statistics.shared_misses),
        ("store_keys", statistics.store_keys),
        ("look_ups", statistics.look_ups),
        ("absent", statistics.absent),
        ("joined", statistics.joined),
        ("waits memory", statistics.memory_waits),
        ("waits shared", statistics.shared_waits),
        ("bypasses", statistics.bypasses),
        ("refreshes", statistics.refreshes),
        ("stale", statistics.stale),
        ("errors", statistics.errors),
        ("evictions", statistics.evictions),
        ("shared_errors", statistics.shared_errors),
        ("shared_skipped", statistics.shared_skipped),
        ("warmed", statistics.warmed),
    ];
    for (name, counted) in counters {
        assert_eq!(recorded.counter(&format!("barge.loader.{name}")), counted, "{name} of {statistics:?}");
    }
    // Nothing was wrong with the store, and no other process was waited for.
    let none = ["stale", "errors", "waits shared", "hits shared"];
    let zero = counters.iter().filter(|(name, counted)| *counted == 0 && !none.contains(name));
    assert_eq!(zero.map(|(name, _)| *name).collect::<Vec<_>>(), [""; 0], "{statistics:?}");
    assert_eq!(recorded.gauge("barge.loader.entries"), statistics.entries as f64);
    drop(loader);
    sleep(Duration::from_millis(5)).await;
    assert_eq!(recorded.gauge("barge.loader.entries"), 0.0, "they are gone with their loader");
}
