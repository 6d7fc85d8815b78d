//! After a write was acknowledged, no look-up by key that begins later gives an older row.

use barge_testkit::{FaultPlan, FaultStore, History, Point};
use futures::FutureExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use super::*;

pub(super) const KEYS: i64 = 6;

/// A row whose number grows with each write.
#[derive(Clone, Debug, PartialEq, Record, FromRow)]
#[record(table = "versions")]
pub(super) struct Version {
    #[record(key)]
    pub(super) id: i64,
    pub(super) version: i64,
}

fn versions(fault_seed: Option<u64>) -> Database {
    let store = MemoryStore::new().commit_can_be_unknown().latency(Duration::from_millis(10));
    store.create(MemoryTable::new(Version::table())).unwrap();
    match fault_seed {
        // What strikes at reads only makes them slower.
        Some(seed) => {
            Database::new(FaultStore::new(Arc::new(store), FaultPlan::from_seed(seed).sparing(Point::Read)))
        }
        None => Database::new(store),
    }
}

/// Writes and removes rows of each key, with growing numbers, in one of several ways.
pub(super) async fn write(db: Database, history: Arc<History>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let writer = db.writer().start();
    let (mut version, mut waiting) = (0, Vec::new());
    for _ in 0..60 {
        sleep(Duration::from_millis(random.random_range(0..12))).await;
        let key = random.random_range(0..KEYS);
        version += 1;
        let row = Version { id: key, version };
        let (removes, alone) = (random.random_range(0..4) == 0, random.random_range(0..4) == 0);
        if alone {
            // One at a time, so that numbers grow in the database as they do here.
            writer.flush().await.unwrap();
        }
        let adds = !history.has_row(key);
        let place = history.write(key, (!removes).then_some(version));
        if alone {
            let written = match removes {
                true => db.delete_all(&[row]).await,
                false => db.upsert_all(&[row]).await,
            };
            if written.is_ok() {
                history.acknowledge(key, place);
            }
            continue;
        }
        let receipt = match (removes, adds) {
            (true, _) => writer.delete(&row).await,
            (false, true) => writer.insert(&row).await,
            (false, false) => writer.upsert(&row).await,
        };
        let (receipt, history) = (receipt.unwrap(), history.clone());
        waiting.push(tokio::spawn(async move {
            if receipt.await.is_ok() {
                history.acknowledge(key, place);
            }
        }));
    }
    for waiting in waiting {
        waiting.await.unwrap();
    }
    let _ = writer.close().await.unwrap();
}

pub(super) async fn read(loader: Loader<i64, Arc<Version>>, history: Arc<History>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let scope = loader.scope();
    for _ in 0..150 {
        sleep(Duration::from_micros(random.random_range(0..8_000))).await;
        let key = random.random_range(0..KEYS);
        let began = history.acknowledged(key);
        let found = match random.random_range(0..3) {
            0 => scope.load(key).await.unwrap(),
            1 => loader.load_many([key, (key + 1) % KEYS]).await.unwrap().swap_remove(0),
            _ => loader.load(key).await.unwrap(),
        };
        let found = found.map(|row| row.version);
        assert!(
            history.allows(key, began, found),
            "seed {seed}, key {key}: {found:?} is read after write {began} of {history:?}"
        );
    }
}

async fn race(seed: u64, cache: Cache, faults: bool) -> u64 {
    let db = versions(faults.then_some(seed));
    let history = Arc::new(History::of(KEYS as usize));
    let mut tasks = vec![tokio::spawn(write(db.clone(), history.clone(), seed))];
    // Loaders that begin while commits are under way.
    sleep(Duration::from_millis(seed % 30)).await;
    let mut loaders = Vec::new();
    for reader in 0..4 {
        let loader = db.loader::<Version>().cache(cache.clone()).in_flight(1 + reader % 3).start();
        for reader in 0..2 {
            tasks.push(tokio::spawn(read(loader.clone(), history.clone(), seed * 10 + reader)));
        }
        loaders.push(loader);
        sleep(Duration::from_millis(40)).await;
    }
    for task in tasks {
        task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    }
    loaders.iter().map(|loader| loader.statistics().memory_hits).sum()
}

#[tokio::test(start_paused = true)]
async fn memory_never_gives_an_older_row_than_was_written() {
    let mut hits = 0;
    for seed in 0..150 {
        // That there is no row is kept as long as a row, and so isn't right by its time alone.
        let cache = Cache::new(Duration::from_secs(30)).absent(Duration::from_secs(30));
        hits += race(seed, cache, seed % 2 == 1).await;
    }
    assert!(hits > 5_000, "{hits} hits: the cache had little to do with it");
}

/// Statements of the application's own: of all tables, unless it says which.
#[tokio::test(start_paused = true)]
async fn statements_that_say_nothing_drop_everything() {
    let db = filled(3).await;
    let loader = db.loader::<Task>().cache(Cache::new(Duration::from_secs(30))).start();
    let look_ups = async |wanted: u64, why: &str| {
        loader.load(1_i64).await.unwrap();
        assert_eq!(loader.statistics().look_ups, wanted, "{why}");
    };
    look_ups(1, "the first").await;
    look_ups(1, "kept").await;
    let mut tx = db.begin().await.unwrap();
    tx.writes("elsewhere");
    tx.commit().await.unwrap();
    look_ups(1, "another table").await;
    let mut tx = db.begin().await.unwrap();
    tx.writes("Tasks");
    tx.commit().await.unwrap();
    look_ups(2, "this one").await;
    let mut tx = db.begin().await.unwrap();
    tx.writes("tasks");
    tx.rollback().await.unwrap();
    look_ups(2, "rolled back").await;
    let mut tx = db.begin().await.unwrap();
    tx.writes("main.tasks");
    tx.commit().await.unwrap();
    look_ups(3, "with its schema, as one writes it").await;
}

/// A commit whose end nobody knows may come to be only after what it would change was read again.
#[tokio::test(start_paused = true)]
async fn a_commit_that_comes_late_is_seen_when_it_has_come() {
    for keys in [vec![1_i64], vec![1, 2]] {
        let inner = filled(3).await;
        let late = Effect::CutLate(Duration::from_secs(5));
        let plan = FaultPlan::new([Fault { point: Point::Commit, nth: 1, effect: late }]);
        let db = Database::new(FaultStore::new(Arc::clone(inner.store()), plan));
        let loader = db.loader::<Task>().cache(Cache::new(Duration::from_secs(600))).start();
        loader.load_many([1, 2]).await.unwrap();
        let mut tx = db.begin().await.unwrap();
        tx.upsert_all(&keys.iter().map(|&id| task(id, "late")).collect::<Vec<_>>()).await.unwrap();
        tx.commit().await.unwrap_err();
        assert_eq!(name(loader.load(1).await.unwrap()).as_deref(), Some("task 1"), "not yet");
        // Who begins only now wasn't told.
        let later = db.loader::<Task>().cache(Cache::new(Duration::from_secs(600))).start();
        let scope = later.scope();
        for _ in 0..2 {
            assert_eq!(name(later.load(1).await.unwrap()).as_deref(), Some("task 1"), "not yet");
            assert_eq!(name(scope.load(1_i64).await.unwrap()).as_deref(), Some("task 1"), "not yet");
        }
        // Other keys are none of its business.
        for _ in 0..2 {
            loader.load(0).await.unwrap();
        }
        assert_eq!(loader.statistics().memory_hits, 1);
        sleep(Duration::from_secs(6)).await;
        assert_eq!(name(loader.load(1).await.unwrap()).as_deref(), Some("late"));
        assert_eq!(name(later.load(1).await.unwrap()).as_deref(), Some("late"));
        assert_eq!(name(scope.load(1).await.unwrap()).as_deref(), Some("late"));
        sleep(Duration::from_secs(30)).await;
        let look_ups = async || {
            loader.load(1).await.unwrap();
            loader.statistics().look_ups
        };
        assert_eq!(look_ups().await, look_ups().await, "kept again");
    }
}

/// Nobody waits for a commit that was asked for: it is carried out, and known to be.
#[tokio::test(start_paused = true)]
async fn a_commit_that_nobody_waits_for_ends_as_others_do() {
    let db = filled(3).await;
    let loader = db.loader::<Task>().cache(Cache::new(Duration::from_secs(30))).start();
    loader.load(2_i64).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    tx.upsert_all(&[task(1, "written")]).await.unwrap();
    assert!(tx.commit().now_or_never().is_none(), "and dropped");
    sleep(Duration::from_secs(1)).await;
    for _ in 0..2 {
        assert_eq!(name(loader.load(1).await.unwrap()).as_deref(), Some("written"));
    }
    assert_eq!(loader.statistics().memory_hits, 1, "it is kept at once");
}
