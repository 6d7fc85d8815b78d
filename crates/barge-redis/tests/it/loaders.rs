//! Loaders over a Redis that is killed, and comes back with what it held long ago.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use barge_core::{Cache, Database, FromRow, Loader, Record};
use barge_redis::RedisTier;
use barge_testkit::servers::{self, OwnRedis};
use barge_testkit::{History, MemoryStore, MemoryTable};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

/// So many that most of them were not written lately, and are asked of Redis.
const KEYS: i64 = 60;
/// Short, so that keys which were written are asked of Redis again while the test runs, and longer than what a snapshot is taken back by.
const TTL: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Record, FromRow)]
#[record(table = "versions")]
struct Version {
    #[record(key)]
    id: i64,
    version: i64,
}

fn store() -> Database {
    let store = MemoryStore::new().latency(Duration::from_millis(4));
    store.create(MemoryTable::new(Version::table())).unwrap();
    Database::new(store)
}

/// The same store as another process sees it.
fn elsewhere(db: &Database) -> Database {
    Database::over(Arc::clone(db.store()))
}

fn loader(db: &Database, server: &OwnRedis, time_to_live: Duration) -> Loader<i64, Arc<Version>> {
    let tier = Arc::new(RedisTier::open(&server.url()).unwrap());
    let cache = Cache::new(time_to_live).entries(0).shared(tier).clock_skew(Duration::ZERO);
    db.loader::<Version>().cache(cache).start()
}

/// A snapshot of an hour ago, as far as the test has an hour.
#[tokio::test]
async fn an_old_snapshot_gives_no_older_row_than_was_written() {
    let (server, db) = (servers::own_redis(), store());
    let (long, version) = (Duration::from_secs(600), |id, version| Version { id, version });
    db.insert_all(&(0..KEYS).map(|id| version(id, 1)).collect::<Vec<_>>()).await.unwrap();
    let (here, there) = (loader(&elsewhere(&db), &server, long), loader(&elsewhere(&db), &server, long));
    let writing = elsewhere(&db);
    let own = loader(&writing, &server, long);
    for loader in [&here, &there, &own] {
        loader.load_many(0..KEYS).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((there.statistics().shared_hits, own.statistics().shared_hits), (KEYS as u64, KEYS as u64));
    server.save_aside();
    writing.upsert_all(&[version(1, 2), version(2, 2)]).await.unwrap();
    writing.delete_all(&[version(3, 1)]).await.unwrap();
    let expected = |id| match id {
        1 | 2 => Some(2),
        3 => None,
        _ => Some(1),
    };
    // As it should be, while it is away, and with what it held before the writes.
    for state in ["told", "killed", "started with what it held", "gone back"] {
        match state {
            "killed" => server.kill(),
            "started with what it held" => server.start(),
            "gone back" => server.go_back(),
            _ => {}
        }
        for id in 0..KEYS {
            let found = own.load(id).await.unwrap().map(|row| row.version);
            assert_eq!(found, expected(id), "{state}: key {id}");
        }
        sleep(Duration::from_millis(300)).await;
    }
    let statistics = own.statistics();
    assert!(statistics.shared_errors > 0 && statistics.errors == 0, "{statistics:?}");
    // What Redis had of them is older indeed, as whoever wrote nothing finds before it is filled again.
    server.go_back();
    let found = here.load(1).await.unwrap().map(|row| row.version);
    assert_eq!((found, here.statistics().errors), (Some(1), 0), "bounded by time alone");
}

/// A user who may read and lease, and not fill.
#[tokio::test]
async fn what_cannot_be_filled_is_waited_for_by_nobody() {
    let server = servers::own_redis();
    server.command(&["ACL", "SETUSER", "shop", "on", ">secret", "~barge:*", "+get", "+mget", "+set"]);
    let db = store();
    db.insert_all(&[Version { id: 1, version: 1 }]).await.unwrap();
    let tier = RedisTier::open(&server.url().replace("://", "://shop:secret@")).unwrap();
    let long = Duration::from_secs(600);
    let cache = Cache::new(long).entries(0).shared(Arc::new(tier));
    let loader = elsewhere(&db).loader::<Version>().cache(cache).start::<i64>();
    for _ in 0..40 {
        assert_eq!(loader.load(1).await.unwrap().unwrap().version, 1);
        sleep(Duration::from_millis(20)).await;
    }
    let statistics = loader.statistics();
    assert!(statistics.shared_errors > 0 && statistics.errors == 0, "{statistics:?}");
    // The first ones' leases can't be given back, as that takes a script, too: they are waited out, and hardly any more are taken.
    assert!(statistics.shared_waits < 10, "{statistics:?}");
}

/// Over a cluster, whose nodes have a part of the keys each.
#[tokio::test]
async fn what_one_process_read_another_finds_in_a_cluster() {
    const MANY: i64 = 300;
    let (url, db) = (servers::redis_cluster().fresh_url(), store());
    let rows: Vec<_> = (0..MANY).map(|id| Version { id, version: 1 }).collect();
    db.insert_all(&rows).await.unwrap();
    let start = |db: &Database| {
        let tier = Arc::new(RedisTier::open(&url).unwrap());
        let long = Duration::from_secs(600);
        let cache = Cache::new(long).absent(long).entries(0).shared(tier);
        db.loader::<Version>().cache(cache.shared_timeout(Duration::from_secs(5))).start::<i64>()
    };
    let writing = elsewhere(&db);
    let (here, there) = (start(&writing), start(&elsewhere(&db)));
    let versions = async |loader: &Loader<i64, Arc<Version>>| -> Vec<Option<i64>> {
        let found = loader.load_many(0..MANY + 10).await.unwrap();
        found.into_iter().map(|row| row.map(|row| row.version)).collect()
    };
    let expected =
        |of_seven| (0..MANY + 10).map(move |id| (id < MANY).then_some(if id == 7 { of_seven } else { 1 }));
    assert!(versions(&here).await.into_iter().eq(expected(1)));
    sleep(Duration::from_millis(500)).await;
    assert!(versions(&there).await.into_iter().eq(expected(1)));
    let statistics = there.statistics();
    assert_eq!((statistics.shared_hits, statistics.store_keys), (MANY as u64 + 10, 0), "{statistics:?}");
    // Told to the node that has the key.
    writing.upsert_all(&[Version { id: 7, version: 2 }]).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    assert!(versions(&there).await.into_iter().eq(expected(2)));
    assert_eq!(there.statistics().shared_errors, 0);
}

/// Writes until it is told to stop, each write after the one before was acknowledged.
async fn write(db: Database, history: Arc<History>, stop: Arc<AtomicBool>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    for version in 1.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (key, removes) = (random.random_range(0..KEYS), random.random_range(0..4) == 0);
        let row = Version { id: key, version };
        let place = history.write(key, (!removes).then_some(version));
        match removes {
            true => db.delete_all(&[row]).await.unwrap(),
            false => db.upsert_all(&[row]).await.unwrap(),
        };
        history.acknowledge(key, place);
        sleep(Duration::from_millis(random.random_range(0..60))).await;
    }
}

async fn read(loader: Loader<i64, Arc<Version>>, history: Arc<History>, stop: Arc<AtomicBool>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    while !stop.load(Ordering::Relaxed) {
        let key = random.random_range(0..KEYS);
        let began = history.acknowledged(key);
        let found = loader.load(key).await.unwrap().map(|row| row.version);
        assert!(
            history.allows(key, began, found),
            "seed {seed}, key {key}: {found:?} is read after write {began} of {history:?}"
        );
        sleep(Duration::from_millis(random.random_range(0..6))).await;
    }
}

/// Kills the server, starts it again, and takes it back to what it held some time ago.
fn trouble(server: &OwnRedis, until: Instant, seed: u64) -> u32 {
    let mut random = StdRng::seed_from_u64(seed);
    let mut restarts = 0;
    server.save_aside();
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(random.random_range(100..600)));
        match random.random_range(0..4) {
            0 => server.save_aside(),
            1 => {
                server.kill();
                std::thread::sleep(Duration::from_millis(random.random_range(0..200)));
                server.start();
                restarts += 1;
            }
            _ => {
                server.go_back();
                restarts += 1;
            }
        }
    }
    restarts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_becomes_of_the_server_no_older_row_is_given_than_was_written() {
    let seed = rand::random::<u64>() >> 1;
    let (server, db) = (Arc::new(servers::own_redis()), store());
    let (history, stop) = (Arc::new(History::of(KEYS as usize)), Arc::new(AtomicBool::new(false)));
    let own: Vec<_> = (0..2).map(|_| loader(&db, &server, TTL)).collect();
    // Another process, whose look-ups fill Redis with what it read before a write here.
    let other = loader(&elsewhere(&db), &server, TTL);
    let mut tasks = vec![tokio::spawn(write(db.clone(), history.clone(), stop.clone(), seed))];
    for (number, loader) in own.iter().enumerate() {
        tasks.push(tokio::spawn(read(loader.clone(), history.clone(), stop.clone(), seed + number as u64)));
    }
    tasks.push(tokio::spawn({
        let (other, stop) = (other.clone(), stop.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                other.load_many(0..KEYS).await.unwrap();
                sleep(Duration::from_millis(3)).await;
            }
        }
    }));
    let until = Instant::now() + Duration::from_secs(8);
    let troubled = Arc::clone(&server);
    let restarts = tokio::task::spawn_blocking(move || trouble(&troubled, until, seed)).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    }
    let sum = |count: fn(&barge_core::LoaderStatistics) -> u64| -> u64 {
        own.iter().map(|loader| count(&loader.statistics())).sum()
    };
    let (hits, bypasses) = (sum(|own| own.shared_hits), sum(|own| own.bypasses));
    assert!(
        restarts >= 3 && hits > 50 && bypasses > 50,
        "{restarts} restarts, {hits} hits, {bypasses} bypasses"
    );
    // Another process's rows are older for no longer than they live, and its look-up takes.
    sleep(2 * TTL).await;
    for key in 0..KEYS {
        let found = other.load(key).await.unwrap().map(|row| row.version);
        assert!(history.allows(key, history.acknowledged(key), found), "key {key}: {found:?} of {history:?}");
    }
}
