//! Whatever hangs, is slow or ends, readers have their answers in time, and others are told of what was written.

use barge_core::cache::SharedTier;
use barge_testkit::{MemoryTier, TierFaults};
use tokio::time::{Instant, sleep};

use super::sharing::{TTL, clock, elsewhere, shared, tasks_of};
use super::*;

/// The name of a task in the shared cache, which has the task 9 already.
fn name_of(tier: &MemoryTier, id: i64) -> String {
    let names = tier.keys();
    let nine = names.iter().find(|name| name.ends_with(":9")).unwrap();
    format!("{}{id}", &nine[..nine.len() - 1])
}

/// Its time is shorter than a lease, or than the shared cache may take: half of it is the store's in any case.
#[tokio::test(start_paused = true)]
async fn a_look_up_of_little_time_has_some_left_for_the_store() {
    clock();
    let (db, tier) = (filled(10).await, MemoryTier::new());
    tasks_of(&elsewhere(&db), shared(&tier, TTL)).load(9).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    let lease = Duration::from_secs(60);
    let there = elsewhere(&db);
    for (key, short) in [(1, 200), (2, 130), (3, 90)] {
        let short = Duration::from_millis(short);
        let cache = shared(&tier, TTL).lease(lease);
        let loader = there.loader::<Task>().cache(cache).timeout(short).start::<i64>();
        loader.load(9).await.unwrap();
        // A process took the lease and ended.
        tier.another().lease(&[name_of(&tier, key)], "gone", lease).await.unwrap();
        let started = Instant::now();
        assert_eq!(name(loader.load(key).await.unwrap()), Some(format!("task {key}")));
        let (took, half) = (started.elapsed(), short / 2);
        assert!(
            took >= half && took <= half + LATENCY * 2 + Duration::from_millis(2),
            "{took:?} of {short:?}"
        );
    }
    tier.set_faults(TierFaults { hang: 1_000, ..TierFaults::default() });
    for patient in [Duration::from_millis(60), Duration::from_secs(5)] {
        let cache = shared(&tier, TTL).shared_timeout(patient);
        let loader = db.loader::<Task>().cache(cache).timeout(Duration::from_millis(100)).start::<i64>();
        for key in 0..10 {
            assert!(loader.load(key).await.unwrap().is_some(), "{patient:?}");
        }
        assert_eq!(loader.statistics().errors, 0);
    }
}

/// A process that never reads tells others what it writes.
#[tokio::test(start_paused = true)]
async fn who_only_writes_tells_others() {
    clock();
    let (db, tier) = (filled(10).await, MemoryTier::new());
    let reading = tasks_of(&elsewhere(&db), shared(&tier, TTL));
    let _writing = tasks_of(&db, shared(&tier, TTL));
    reading.load(1).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    db.upsert_all(&[task(1, "written")]).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    assert_eq!(name(reading.load(1).await.unwrap()).as_deref(), Some("written"));
}

/// What was written a moment before a loader is closed or dropped is told all the same.
#[tokio::test(start_paused = true)]
async fn others_are_told_before_a_loader_is_closed_or_gone() {
    clock();
    let (db, tier) = (filled(10).await, MemoryTier::new());
    tier.set_faults(TierFaults { slow: 1_000, delay: Duration::from_millis(20), ..TierFaults::default() });
    let reading = tasks_of(&elsewhere(&db), shared(&tier, TTL));
    for (key, closes) in [(1, true), (2, false)] {
        let written = tasks_of(&db, shared(&tier, TTL));
        written.load(9).await.unwrap();
        reading.load(key).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        db.upsert_all(&[task(key, "written")]).await.unwrap();
        if closes {
            written.close().await;
        } else {
            drop(written);
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(name(reading.load(key).await.unwrap()).as_deref(), Some("written"), "{key}");
    }
}

/// A loader that is gone ends, and one is closed in time, though commits come faster than the shared cache takes them.
#[tokio::test(start_paused = true)]
async fn commits_without_end_keep_no_loader() {
    clock();
    let (db, tier) = (filled(10).await, MemoryTier::new());
    let slow = Duration::from_millis(90);
    tier.set_faults(TierFaults { slow: 1_000, delay: slow, ..TierFaults::default() });
    let patient = || shared(&tier, TTL).shared_timeout(Duration::from_secs(1));
    let loaders = [tasks_of(&db, patient()), tasks_of(&db, patient())];
    for loader in &loaders {
        loader.load(1).await.unwrap();
    }
    let [closed, dropped] = loaders;
    let tier_of_one = Arc::new(tier.another());
    let watched = Arc::downgrade(&tier_of_one);
    let gone = tasks_of(&db, patient().shared(tier_of_one));
    gone.load(1).await.unwrap();
    let writing = tokio::spawn({
        let db = db.clone();
        async move {
            loop {
                db.upsert_all(&[task(1, "written")]).await.unwrap();
            }
        }
    });
    sleep(Duration::from_secs(1)).await;
    let started = Instant::now();
    closed.close().await;
    assert!(started.elapsed() < slow * 5, "{:?}", started.elapsed());
    drop((gone, dropped));
    sleep(Duration::from_secs(2)).await;
    assert!(watched.upgrade().is_none(), "a loader that is gone goes on telling");
    writing.abort();
}

/// A lease that was granted and whose answer came too late is given back.
#[tokio::test(start_paused = true)]
async fn a_lease_that_came_too_late_keeps_nobody_waiting() {
    clock();
    let (db, tier) = (filled(10).await, MemoryTier::new());
    let start = || tasks_of(&elsewhere(&db), shared(&tier, TTL).lease(Duration::from_secs(60)));
    let (here, there) = (start(), start());
    for loader in [&here, &there] {
        loader.load(9).await.unwrap();
        sleep(Duration::from_millis(5)).await;
    }
    // The calls of one client alone are answered too late, of which the first is its reading.
    let late = Arc::new(LateLeases { tier: tier.another() });
    let slow = tasks_of(&elsewhere(&db), shared(&tier, TTL).lease(Duration::from_secs(60)).shared(late));
    assert!(slow.load(1).await.unwrap().is_some());
    sleep(Duration::from_millis(200)).await;
    let started = Instant::now();
    assert!(there.load(1).await.unwrap().is_some());
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

/// Grants leases and says so too late.
#[derive(Debug)]
struct LateLeases {
    tier: MemoryTier,
}

#[async_trait::async_trait]
impl SharedTier for LateLeases {
    async fn read(&self, keys: &[String]) -> barge_core::Result<Vec<Option<bytes::Bytes>>> {
        self.tier.read(keys).await
    }

    async fn lease(
        &self,
        keys: &[String],
        token: &str,
        time: Duration,
    ) -> barge_core::Result<Vec<barge_core::cache::Lease>> {
        let leases = self.tier.lease(keys, token, time).await;
        sleep(Duration::from_secs(1)).await;
        leases
    }

    async fn fill(&self, entries: &[barge_core::cache::Entry], token: &str) -> barge_core::Result<()> {
        self.tier.fill(entries, token).await
    }

    async fn release(&self, keys: &[String], token: &str) -> barge_core::Result<()> {
        self.tier.release(keys, token).await
    }

    async fn invalidate(&self, keys: &[String], bar: Duration) -> barge_core::Result<()> {
        self.tier.invalidate(keys, bar).await
    }

    async fn mark(&self, marks: &[(String, bytes::Bytes)], time: Duration) -> barge_core::Result<()> {
        self.tier.mark(marks, time).await
    }

    async fn close(&self) {}
}

/// With lanes free, a key doesn't wait for a look-up that hangs: neither for the first one, nor for as long as one took before.
#[tokio::test(start_paused = true)]
async fn a_look_up_that_hangs_holds_no_other_up() {
    let handler = |keys: Requests<u64>| async move {
        if keys.contains(&0) {
            sleep(Duration::from_secs(3_600)).await;
        }
        Ok(keys.iter().map(|key| Ok(Some(key * 2))).collect())
    };
    let loader = Loader::builder(handler).in_flight(3).timeout(Duration::from_secs(20)).start();
    for _ in 0..2 {
        let hanging = tokio::spawn({
            let loader = loader.clone();
            async move { loader.load(0).await }
        });
        sleep(Duration::from_millis(1)).await;
        for key in 1..10 {
            let started = Instant::now();
            assert_eq!(loader.load(key).await.unwrap(), Some(key * 2));
            assert!(started.elapsed() < Duration::from_millis(20), "{:?}", started.elapsed());
        }
        assert_eq!(hanging.await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    }
}

/// A wait without end is for whoever asks to flush, or for a full batch.
#[tokio::test(start_paused = true)]
async fn a_wait_that_never_ends_is_ended_by_a_full_batch() {
    let handler = |keys: Requests<u64>| async move { Ok(keys.iter().map(|key| Ok(Some(key * 2))).collect()) };
    let loader = Loader::builder(handler).linger(Duration::MAX).max_keys(3).start();
    let waiting = tokio::spawn({
        let loader = loader.clone();
        async move { loader.load_many([1, 2]).await }
    });
    sleep(Duration::from_secs(3_600)).await;
    assert!(!waiting.is_finished());
    assert_eq!(loader.load(3).await.unwrap(), Some(6));
    assert_eq!(waiting.await.unwrap().unwrap(), [Some(2), Some(4)]);
}

/// In real time, as memory's own.
#[tokio::test]
async fn what_is_over_leaves_memory() {
    let db = filled(100).await;
    let loader = |time| db.loader::<Task>().cache(Cache::new(time).absent(Duration::ZERO)).start::<i64>();
    let short = loader(Duration::from_millis(200));
    let long = loader(Duration::from_secs(600));
    for loader in [&short, &long] {
        loader.load_many(0..100).await.unwrap();
        loader.load_many(0..100).await.unwrap();
    }
    sleep(Duration::from_millis(400)).await;
    assert_eq!((short.statistics().entries, long.statistics().entries), (0, 100));
    long.clear_all();
    assert_eq!(long.statistics().entries, 0);
    long.load_many(0..100).await.unwrap();
    assert_eq!(long.statistics().entries, 100, "and what is read after that is kept");
}
