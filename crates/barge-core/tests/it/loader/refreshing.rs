//! Keys in demand are read anew before they expire, by one of the processes that share them.

use barge_core::LoaderStatistics;
use barge_testkit::MemoryTier;
use tokio::time::{Instant, sleep};

use super::sharing::{TTL, clock, elsewhere, shared, tasks_of};
use super::*;

const PROCESSES: usize = 6;
const LIVES: u32 = 10;
/// How long entries live: not so long that there are very many requests.
const LIFE: Duration = Duration::from_secs(3);

fn sum(loaders: &[Loader<i64, Arc<Task>>], count: fn(&LoaderStatistics) -> u64) -> u64 {
    loaders.iter().map(|loader| count(&loader.statistics())).sum()
}

/// Asks for a key over and over in each process, and says how long the slowest request waited, but for the first.
async fn demand(loaders: &[Loader<i64, Arc<Task>>]) -> Duration {
    loaders[0].load(1).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    let end = Instant::now() + LIFE * LIVES;
    let demanding = loaders.iter().enumerate().map(|(number, loader)| {
        let loader = loader.clone();
        tokio::spawn(async move {
            let mut slowest = Duration::ZERO;
            sleep(Duration::from_millis(number as u64)).await;
            while Instant::now() < end {
                let started = Instant::now();
                assert_eq!(name(loader.load(1).await.unwrap()).as_deref(), Some("task 1"));
                slowest = slowest.max(started.elapsed());
                // Not in step with each other, and so often that several find it due while one reads it.
                sleep(Duration::from_millis(11 + number as u64)).await;
            }
            slowest
        })
    });
    let mut slowest = Duration::ZERO;
    for demanding in demanding.collect::<Vec<_>>() {
        slowest = slowest.max(demanding.await.unwrap());
    }
    slowest
}

/// Between once each life and once each shortest time after which it is due.
fn assert_read_by_one(loaders: &[Loader<i64, Arc<Task>>]) {
    let read = sum(loaders, |statistics| statistics.store_keys);
    let most = u64::from(LIVES) * 100 / 72 + 2;
    assert!((u64::from(LIVES)..=most).contains(&read), "{read} times in {LIVES} lives");
}

#[tokio::test(start_paused = true)]
async fn of_all_processes_one_reads_a_key_in_demand_anew() {
    clock();
    let (db, tier) = (filled(10).await, MemoryTier::new());
    let start = || tasks_of(&elsewhere(&db), shared(&tier, LIFE).entries(100));
    let loaders: Vec<_> = (0..PROCESSES).map(|_| start()).collect();
    let slowest = demand(&loaders).await;
    assert!(slowest < LATENCY / 2, "{slowest:?}: somebody waited for the store");
    assert_read_by_one(&loaders);
}

#[tokio::test(start_paused = true)]
async fn so_it_is_where_memory_keeps_nothing() {
    clock();
    let (db, tier) = (filled(10).await, MemoryTier::new());
    let loaders: Vec<_> = (0..PROCESSES).map(|_| tasks_of(&elsewhere(&db), shared(&tier, LIFE))).collect();
    let slowest = demand(&loaders).await;
    assert!(slowest < LATENCY / 2, "{slowest:?}: somebody waited for the store");
    assert_read_by_one(&loaders);
    assert!(sum(&loaders, |statistics| statistics.refreshes) >= u64::from(LIVES));
}

#[tokio::test(start_paused = true)]
async fn what_processes_share_expires_apart() {
    clock();
    let (db, tier) = (filled(1_000).await, MemoryTier::new());
    let loader = tasks_of(&elsewhere(&db), shared(&tier, TTL).jitter(0.5).refresh_after(1.0));
    loader.load_many(0..1_000).await.unwrap();
    sleep(TTL.mul_f64(0.75)).await;
    let before = loader.statistics().store_keys;
    loader.load_many(0..1_000).await.unwrap();
    let expired = loader.statistics().store_keys - before;
    assert!((300..700).contains(&expired), "{expired} of 1000 are expired halfway through the spread");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_costs_nobody_an_error() {
    clock();
    let inner = filled(10).await;
    let lost = |nth| Fault { point: Point::Read, nth, effect: Effect::Fail(ErrorKind::Permission) };
    let faulty = FaultStore::new(Arc::clone(inner.store()), FaultPlan::new((2..100).map(lost)));
    let (db, tier) = (Database::new(faulty), MemoryTier::new());
    let loader = tasks_of(&db, shared(&tier, TTL).refresh_after(0.5));
    loader.load(1).await.unwrap();
    sleep(TTL.mul_f64(0.6)).await;
    for _ in 0..10 {
        assert!(loader.load(1).await.unwrap().is_some());
        sleep(Duration::from_millis(100)).await;
    }
    let statistics = loader.statistics();
    assert!(statistics.refreshes > 5 && statistics.look_ups > 5, "{statistics:?}");
    assert_eq!(statistics.errors, 0);
    sleep(TTL).await;
    assert_eq!(loader.load(1).await.unwrap_err().kind(), ErrorKind::Permission);
}
