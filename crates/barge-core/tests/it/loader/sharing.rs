//! Loaders over a cache that processes share, which does all that such a cache may do wrong.

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use barge_core::Result;
use barge_core::cache::{Entry, Lease, SharedTier};
use barge_testkit::{History, MemoryTier, TierFaults};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

use super::freshness::{KEYS, Version, read, write};
use super::*;

pub(super) const TTL: Duration = Duration::from_secs(30);

/// The time of all machines: the one that stands still and leaps in these tests.
pub(super) fn clock() -> i64 {
    static START: OnceLock<Instant> = OnceLock::new();
    1_700_000_000_000_000 + START.get_or_init(Instant::now).elapsed().as_micros() as i64
}

/// A cache over a client of its own, which keeps nothing in memory unless asked to.
pub(super) fn shared(tier: &MemoryTier, time_to_live: Duration) -> Cache {
    Cache::new(time_to_live).entries(0).shared(Arc::new(tier.another())).clock(clock)
}

pub(super) fn tasks_of(db: &Database, cache: Cache) -> Loader<i64, Arc<Task>> {
    db.loader::<Task>().cache(cache).start()
}

/// The same store as another process sees it.
pub(super) fn elsewhere(db: &Database) -> Database {
    Database::over(Arc::clone(db.store()))
}

#[tokio::test(start_paused = true)]
async fn what_one_process_read_another_finds() {
    clock();
    let (db, tier) = (filled(200).await, MemoryTier::new());
    let (here, there) = (tasks_of(&db, shared(&tier, TTL)), tasks_of(&elsewhere(&db), shared(&tier, TTL)));
    here.load_many(0..100).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    let found = there.load_many(0..150).await.unwrap();
    for (key, found) in found.into_iter().enumerate() {
        assert_eq!(name(found), Some(format!("task {key}")));
    }
    let statistics = there.statistics();
    assert_eq!((statistics.shared_hits, statistics.store_keys), (100, 50), "{statistics:?}");
    assert_eq!((statistics.shared_misses, statistics.memory_misses), (50, 0), "memory keeps nothing here");
    sleep(TTL).await;
    there.load_many(0..100).await.unwrap();
    assert_eq!(there.statistics().store_keys, 150, "expired");
}

#[tokio::test(start_paused = true)]
async fn however_many_processes_ask_a_key_is_looked_up_once() {
    clock();
    let (db, tier) = (filled(100).await, MemoryTier::new());
    let loaders: Vec<_> = (0..8).map(|_| tasks_of(&elsewhere(&db), shared(&tier, TTL))).collect();
    let loading: Vec<_> = loaders
        .iter()
        .map(|loader| {
            let loader = loader.clone();
            // Half of them have no row.
            tokio::spawn(async move { loader.load_many(50..150).await.unwrap().iter().flatten().count() })
        })
        .collect();
    for loading in loading {
        assert_eq!(loading.await.unwrap(), 50);
    }
    let sum = |count: fn(&barge_core::LoaderStatistics) -> u64| -> u64 {
        loaders.iter().map(|loader| count(&loader.statistics())).sum()
    };
    assert_eq!(sum(|statistics| statistics.store_keys), 100);
    assert_eq!(sum(|statistics| statistics.shared_waits), 700);
}

/// A cache whose answers to reading come late, where that is set.
#[derive(Debug)]
struct Late {
    tier: MemoryTier,
    is_late: AtomicBool,
}

#[async_trait::async_trait]
impl SharedTier for Late {
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>> {
        let found = self.tier.read(keys).await;
        if self.is_late.swap(false, Ordering::Relaxed) {
            sleep(LATENCY * 3).await;
        }
        found
    }

    async fn lease(&self, keys: &[String], token: &str, time: Duration) -> Result<Vec<Lease>> {
        self.tier.lease(keys, token, time).await
    }

    async fn fill(&self, entries: &[Entry], token: &str) -> Result<()> {
        self.tier.fill(entries, token).await
    }

    async fn release(&self, keys: &[String], token: &str) -> Result<()> {
        self.tier.release(keys, token).await
    }

    async fn invalidate(&self, keys: &[String], bar: Duration) -> Result<()> {
        self.tier.invalidate(keys, bar).await
    }

    async fn mark(&self, marks: &[(String, Bytes)], time: Duration) -> Result<()> {
        self.tier.mark(marks, time).await
    }

    async fn close(&self) {
        self.tier.close().await;
    }
}

/// Another looks the key up after this one found nothing of it, and has filled it before this one asks for the lease.
#[tokio::test(start_paused = true)]
async fn what_was_filled_before_the_lease_was_asked_for_is_not_read_again() {
    clock();
    let (db, tier) = (filled(10).await, MemoryTier::new());
    let late = Arc::new(Late { tier: tier.another(), is_late: AtomicBool::new(false) });
    let here = tasks_of(&elsewhere(&db), shared(&tier, TTL));
    let there = tasks_of(&elsewhere(&db), shared(&tier, TTL).shared(late.clone()));
    for loader in [&here, &there] {
        loader.load(9).await.unwrap();
        sleep(Duration::from_millis(5)).await;
    }
    late.is_late.store(true, Ordering::Relaxed);
    let loading = tokio::spawn({
        let there = there.clone();
        async move { name(there.load(1).await.unwrap()) }
    });
    sleep(Duration::from_millis(1)).await;
    here.load(1).await.unwrap();
    assert_eq!(loading.await.unwrap().as_deref(), Some("task 1"));
    let statistics = there.statistics();
    assert_eq!((statistics.shared_hits, statistics.store_keys), (2, 0), "{statistics:?}");
    // The lease it got was given back.
    sleep(Duration::from_millis(5)).await;
    let names: Vec<String> = tier.keys().into_iter().filter(|name| name.ends_with(":1")).collect();
    let lease = tier.lease(&names, "another", TTL).await.unwrap();
    assert_eq!(lease, [Lease::Granted]);
}

#[tokio::test(start_paused = true)]
async fn whoever_took_a_lease_and_ended_is_waited_for_no_longer_than_it_lasts() {
    clock();
    let (db, tier) = (filled(10).await, MemoryTier::new());
    let loader = tasks_of(&elsewhere(&db), shared(&tier, TTL).lease(Duration::from_millis(300)));
    loader.load(1).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    // Another took the lease of a key whose name is like this one's, and is gone.
    let calls = tier.calls();
    let names = tier.keys();
    let name_of_one = names.iter().find(|name| name.ends_with(":1")).unwrap();
    let name_of_two = format!("{}2", &name_of_one[..name_of_one.len() - 1]);
    let gone = tier.another();
    gone.lease(&[name_of_two], "gone", Duration::from_secs(60)).await.unwrap();
    let started = Instant::now();
    assert_eq!(name(loader.load(2).await.unwrap()).as_deref(), Some("task 2"));
    let took = started.elapsed();
    assert!((0.3..0.6).contains(&took.as_secs_f64()), "{took:?} after {calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_starts_after_a_write_gives_no_older_row() {
    clock();
    let (db, tier) = (filled(10).await, MemoryTier::new());
    let there = tasks_of(&elsewhere(&db), shared(&tier, TTL));
    there.load_many([1, 2]).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    // Nobody here listens yet, so the shared cache goes on having the older row.
    db.upsert_all(&[task(1, "written")]).await.unwrap();
    let here = tasks_of(&db, shared(&tier, TTL));
    assert_eq!(name(here.load(1).await.unwrap()).as_deref(), Some("written"));
    assert_eq!(here.statistics().bypasses, 1, "{:?}", here.statistics());
    sleep(TTL + Duration::from_secs(6)).await;
    there.load(2).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    here.load(2).await.unwrap();
    let statistics = here.statistics();
    assert_eq!((statistics.bypasses, statistics.shared_hits), (1, 1), "long after: {statistics:?}");
}

/// Where nobody is to remember that a key has no row, its lease is given back.
#[tokio::test(start_paused = true)]
async fn a_lease_that_is_given_back_or_barred_is_not_waited_for() {
    clock();
    let (db, tier) = (filled(10).await, MemoryTier::new());
    let lease = Duration::from_secs(60);
    let loaders: Vec<_> = (0..4)
        .map(|_| tasks_of(&elsewhere(&db), shared(&tier, TTL).absent(Duration::ZERO).lease(lease)))
        .collect();
    let started = Instant::now();
    let loading: Vec<_> = loaders
        .iter()
        .map(|loader| {
            let loader = loader.clone();
            tokio::spawn(async move { loader.load(777).await.unwrap() })
        })
        .collect();
    for loading in loading {
        assert!(loading.await.unwrap().is_none());
    }
    assert!(started.elapsed() < Duration::from_secs(1), "given back: {:?}", started.elapsed());

    loaders[0].load(1).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    let names = tier.keys();
    let name_of_one = names.iter().find(|name| name.ends_with(":1")).unwrap();
    let name_of_two = format!("{}2", &name_of_one[..name_of_one.len() - 1]);
    let other = tier.another();
    other.lease(std::slice::from_ref(&name_of_two), "other", lease).await.unwrap();
    let started = Instant::now();
    let loading = tokio::spawn({
        let loader = loaders[1].clone();
        async move { name(loader.load(2).await.unwrap()) }
    });
    sleep(Duration::from_millis(50)).await;
    other.invalidate(&[name_of_two], lease).await.unwrap();
    assert_eq!(loading.await.unwrap().as_deref(), Some("task 2"));
    assert!(started.elapsed() < Duration::from_secs(1), "barred: {:?}", started.elapsed());
}

#[derive(Clone, Debug, PartialEq, Record, FromRow)]
#[record(table = "moments")]
pub(super) struct Moment {
    #[record(key)]
    pub(super) at: DateTime<Utc>,
    pub(super) name: String,
}

/// A time with more digits than the column has finds the row, and no commit will ever name it.
#[tokio::test(start_paused = true)]
async fn a_key_that_a_commit_names_otherwise_is_not_shared() {
    clock();
    let (store, tier) = (MemoryStore::new(), MemoryTier::new());
    store.create(MemoryTable::new(Moment::table())).unwrap();
    let db = Database::new(store);
    let at = DateTime::from_timestamp_micros(1_700_000_000_000_001).unwrap();
    db.insert_all(&[Moment { at, name: "one".to_owned() }]).await.unwrap();
    let cache = shared(&tier, TTL);
    let loader = elsewhere(&db).loader::<Moment>().cache(cache).start::<DateTime<Utc>>();
    let finer = at + TimeDelta::nanoseconds(7);
    for key in [at, finer, at, finer] {
        assert_eq!(loader.load(key).await.unwrap().unwrap().name, "one");
        sleep(Duration::from_millis(5)).await;
    }
    let statistics = loader.statistics();
    assert_eq!((statistics.shared_hits, statistics.store_keys), (1, 3), "{statistics:?}");
}

#[tokio::test(start_paused = true)]
async fn a_write_is_told_to_others() {
    clock();
    let (db, tier) = (filled(10).await, MemoryTier::new());
    let there = elsewhere(&db);
    let (here, there_loads) = (tasks_of(&db, shared(&tier, TTL)), tasks_of(&there, shared(&tier, TTL)));
    for loader in [&here, &there_loads] {
        loader.load_many([1, 2]).await.unwrap();
        sleep(Duration::from_millis(5)).await;
    }
    db.upsert_all(&[task(1, "written")]).await.unwrap();
    assert_eq!(name(here.load(1).await.unwrap()).as_deref(), Some("written"), "at once here");
    sleep(Duration::from_millis(5)).await;
    assert_eq!(name(there_loads.load(1).await.unwrap()).as_deref(), Some("written"), "and soon there");
    assert_eq!(there_loads.statistics().shared_hits, 2);
    // A statement that says only which table: every key.
    let mut tx = db.begin().await.unwrap();
    tx.upsert_all(&[task(2, "written")]).await.unwrap();
    tx.writes("tasks");
    tx.commit().await.unwrap();
    sleep(Duration::from_millis(5)).await;
    assert_eq!(name(there_loads.load(2).await.unwrap()).as_deref(), Some("written"));
}

#[tokio::test(start_paused = true)]
async fn rows_by_another_column_are_shared_and_told_of() {
    clock();
    let store = MemoryStore::new();
    store.create(MemoryTable::new(Order::table())).unwrap();
    let db = Database::new(store);
    let order = |id, account| Order { id, account: Some(account), amount: id * 2 };
    db.insert_all(&[order(1, 7), order(2, 7), order(3, 8)]).await.unwrap();
    let tier = MemoryTier::new();
    let there = elsewhere(&db);
    let start = |db: &Database| db.loader_by::<Order>("account").cache(shared(&tier, TTL)).start::<i64>();
    let (here, there) = (start(&db), start(&there));
    let amounts = async |loader: &Loader<i64, Arc<[Order]>>, account| {
        let orders = loader.load(account).await.unwrap().unwrap_or_default();
        let mut amounts: Vec<i64> = orders.iter().map(|order| order.amount).collect();
        amounts.sort();
        amounts
    };
    assert_eq!(amounts(&here, 7).await, [2, 4]);
    sleep(Duration::from_millis(5)).await;
    assert_eq!(amounts(&there, 7).await, [2, 4]);
    assert_eq!(there.statistics().shared_hits, 1);
    db.insert_all(&[order(4, 7)]).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    assert_eq!((amounts(&there, 7).await, amounts(&here, 7).await), (vec![2, 4, 8], vec![2, 4, 8]));
}

#[tokio::test(start_paused = true)]
async fn a_changed_record_never_reads_the_bytes_of_the_one_before() {
    #[derive(Clone, Debug, PartialEq, Record, FromRow)]
    #[record(table = "tasks")]
    struct Renamed {
        name: String,
        #[record(key)]
        id: i64,
    }
    clock();
    let (db, tier) = (filled(10).await, MemoryTier::new());
    let old = tasks_of(&elsewhere(&db), shared(&tier, TTL));
    old.load(3).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    let new = elsewhere(&db).loader::<Renamed>().cache(shared(&tier, TTL)).start::<i64>();
    let found = new.load(3).await.unwrap().unwrap();
    assert_eq!(*found, Renamed { name: "task 3".to_owned(), id: 3 });
    assert_eq!(new.statistics().shared_hits, 0);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_down_costs_its_timeout_a_few_times_and_no_error() {
    clock();
    let (db, tier) = (filled(2_000).await, MemoryTier::new());
    tier.set_faults(TierFaults { hang: 1_000, ..TierFaults::default() });
    let loader = tasks_of(&db, shared(&tier, TTL).shared_timeout(Duration::from_millis(100)));
    let started = Instant::now();
    for key in 0..1_000 {
        assert!(loader.load(key).await.unwrap().is_some());
        db.upsert_all(&[task(key, "written")]).await.unwrap();
    }
    let statistics = loader.statistics();
    assert_eq!(statistics.errors, 0);
    assert!(statistics.shared_errors < 60 && statistics.shared_skipped > 900, "{statistics:?}");
    let without = Duration::from_millis(60) * 1_000;
    assert!(started.elapsed() < without, "{:?}", started.elapsed());
    tier.set_faults(TierFaults::default());
    sleep(Duration::from_secs(11)).await;
    loader.load_many(1_500..1_600).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    loader.load_many(1_500..1_600).await.unwrap();
    assert!(loader.statistics().shared_hits > 90, "it is asked again: {:?}", loader.statistics());
}

/// The race of `freshness`, with another process that fills the shared cache, which forgets, loses and comes back with old contents.
async fn race(seed: u64, time_to_live: Duration) -> (u64, u64) {
    let store = MemoryStore::new().commit_can_be_unknown().latency(Duration::from_millis(10));
    store.create(MemoryTable::new(Version::table())).unwrap();
    let db = Database::new(store);
    let tier = MemoryTier::with_faults(TierFaults::from_seed(seed));
    let history = Arc::new(History::of(KEYS as usize));
    let cache = |entries| {
        shared(&tier, time_to_live)
            .entries(entries)
            .absent(time_to_live)
            .clock_skew(Duration::ZERO)
            .shared_timeout(Duration::from_millis(30))
    };
    let mut tasks = vec![tokio::spawn(write(db.clone(), history.clone(), seed))];
    let loaders: Vec<_> =
        [0, 100].map(|entries| db.loader::<Version>().cache(cache(entries)).start::<i64>()).into();
    for (reader, loader) in loaders.iter().enumerate() {
        tasks.push(tokio::spawn(read(loader.clone(), history.clone(), seed * 10 + reader as u64)));
    }
    // Another process, whose readers may see older rows, but not for ever.
    let other = elsewhere(&db).loader::<Version>().cache(cache(0)).start::<i64>();
    tasks.push(tokio::spawn({
        let other = other.clone();
        async move {
            let mut random = StdRng::seed_from_u64(seed);
            for _ in 0..150 {
                sleep(Duration::from_micros(random.random_range(0..8_000))).await;
                other.load(random.random_range(0..KEYS)).await.unwrap();
            }
        }
    }));
    tasks.push(tokio::spawn({
        let tier = tier.another();
        async move {
            let mut random = StdRng::seed_from_u64(seed + 1);
            let mut snapshot = tier.snapshot();
            for _ in 0..20 {
                sleep(Duration::from_millis(random.random_range(0..60))).await;
                match random.random_range(0..3) {
                    0 => tier.restore(&snapshot),
                    _ => snapshot = tier.snapshot(),
                }
            }
        }
    }));
    for task in tasks {
        task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    }
    tier.set_faults(TierFaults::default());
    sleep(time_to_live + Duration::from_secs(10)).await;
    for key in 0..KEYS {
        let found = other.load(key).await.unwrap().map(|row| row.version);
        let is_last = history.allows(key, history.acknowledged(key), found);
        assert!(is_last, "seed {seed}, key {key}: {found:?} in another process, long after {history:?}");
    }
    let hits = loaders.iter().map(|loader| loader.statistics().shared_hits).sum();
    (hits, loaders.iter().map(|loader| loader.statistics().bypasses).sum())
}

#[tokio::test(start_paused = true)]
async fn whatever_the_shared_cache_does_no_older_row_is_given_than_was_written() {
    clock();
    let (mut hits, mut bypasses) = (0, 0);
    for seed in 0..200 {
        // Also one in which entries expire while others are written.
        let time_to_live = if seed % 2 == 0 { TTL } else { Duration::from_millis(80) };
        let (own_hits, own_bypasses) = race(seed, time_to_live).await;
        hits += own_hits;
        bypasses += own_bypasses;
    }
    assert!(
        hits > 500 && bypasses > 2_000,
        "{hits} hits and {bypasses} bypasses: the cache had little to do with it"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_written_here_and_what_was_not_are_both_filled() {
    clock();
    let (db, tier) = (filled(10).await, MemoryTier::new());
    let here = tasks_of(&db, shared(&tier, TTL));
    here.load(9).await.unwrap();
    // The last of the keys is asked of the store alone; its lease comes first all the same.
    db.upsert_all(&[task(7, "written")]).await.unwrap();
    sleep(Duration::from_secs(11)).await;
    here.load_many([1, 2, 7, 3]).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    let there = tasks_of(&elsewhere(&db), shared(&tier, TTL));
    let found = there.load_many([1, 2, 7, 3]).await.unwrap();
    assert_eq!(name(found[2].clone()).as_deref(), Some("written"));
    assert_eq!(there.statistics().shared_hits, 4, "{:?}", there.statistics());
}

/// A tier that notes how many keys each of its calls has, and how many bytes.
#[derive(Clone, Debug, Default)]
struct Measured {
    tier: MemoryTier,
    calls: Arc<Mutex<Vec<(usize, usize)>>>,
}

impl Measured {
    fn note(&self, keys: usize, bytes: usize) {
        self.calls.lock().unwrap().push((keys, bytes));
    }
}

#[async_trait::async_trait]
impl SharedTier for Measured {
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>> {
        self.note(keys.len(), 0);
        self.tier.read(keys).await
    }

    async fn lease(&self, keys: &[String], token: &str, time: Duration) -> Result<Vec<Lease>> {
        self.note(keys.len(), 0);
        self.tier.lease(keys, token, time).await
    }

    async fn fill(&self, entries: &[Entry], token: &str) -> Result<()> {
        self.note(entries.len(), entries.iter().map(|entry| entry.value.len()).sum());
        self.tier.fill(entries, token).await
    }

    async fn release(&self, keys: &[String], token: &str) -> Result<()> {
        self.note(keys.len(), 0);
        self.tier.release(keys, token).await
    }

    async fn invalidate(&self, keys: &[String], bar: Duration) -> Result<()> {
        self.note(keys.len(), 0);
        self.tier.invalidate(keys, bar).await
    }

    async fn mark(&self, marks: &[(String, Bytes)], time: Duration) -> Result<()> {
        self.note(marks.len(), 0);
        self.tier.mark(marks, time).await
    }

    async fn close(&self) {}
}

/// What is asked for, filled and written at once doesn't hold a call of others up, nor the time of one call.
#[tokio::test(start_paused = true)]
async fn calls_have_a_thousand_keys_or_a_megabyte() {
    clock();
    let (db, tier) = (filled(0).await, Measured::default());
    let large = "x".repeat(2_000);
    let tasks: Vec<Task> = (0..3_500).map(|id| task(id, &large)).collect();
    db.insert_all(&tasks).await.unwrap();
    // Whose leases are given back: nobody remembers that there is no row.
    let cache = || {
        let cache = Cache::new(TTL).absent(Duration::ZERO).entries(0).clock(clock);
        cache.shared(Arc::new(tier.clone()))
    };
    let (here, there) = (tasks_of(&db, cache()), tasks_of(&elsewhere(&db), cache()));
    let keys = || (-200..3_500_i64).rev();
    there.load_many(keys()).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    assert_eq!(there.load_many(keys()).await.unwrap().iter().flatten().count(), 3_500);
    assert_eq!(there.statistics().shared_hits, 3_500, "{:?}", there.statistics());
    here.load(1).await.unwrap();
    db.upsert_all(&tasks).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    assert!(tier.tier.keys().iter().all(|key| tier.tier.value(key).is_none()), "told of each");
    let calls = tier.calls.lock().unwrap();
    assert!(calls.iter().all(|(keys, bytes)| *keys <= 1_000 && *bytes < 1_100_000), "{calls:?}");
    let filled: usize = calls.iter().map(|(_, bytes)| bytes).sum();
    assert!(filled > 7_000_000, "{filled}");
}
