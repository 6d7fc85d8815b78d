//! Keys are looked up together, and what is kept of them is never older than what was written.

mod absence;
mod caching;
mod damaged;
mod freshness;
mod liveness;
mod numbers;
mod refreshing;
mod sharing;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use barge_core::{Cache, Error, ErrorKind, Loader, LookUpBy, Requests, WarmOptions, WhenFull};
use barge_testkit::{Effect, Fault, FaultPlan, FaultStore, Point};

use super::*;

const LATENCY: Duration = Duration::from_millis(20);

/// A store behind a network, with tasks 0 to `rows`.
async fn filled(rows: i64) -> Database {
    let store = MemoryStore::new().latency(LATENCY);
    store.create(MemoryTable::new(Task::table())).unwrap();
    let database = Database::new(store);
    let tasks: Vec<Task> = (0..rows).map(|id| task(id, &format!("task {id}"))).collect();
    database.insert_all(&tasks).await.unwrap();
    database
}

fn name(task: Option<Arc<Task>>) -> Option<String> {
    task.map(|task| task.name.clone())
}

#[tokio::test(start_paused = true)]
async fn keys_in_flight_are_one_look_up_in_the_order_asked() {
    let loader = filled(50).await.loader::<Task>().start();
    let first = tokio::spawn({
        let loader = loader.clone();
        async move { loader.load(0).await.map(name) }
    });
    tokio::task::yield_now().await;
    // While the first is under way, these gather: repeated ones and missing ones among them.
    let keys: Vec<i64> = (0..100).chain(0..100).rev().collect();
    let found = loader.load_many(keys.clone()).await.unwrap();
    for (key, found) in keys.iter().zip(found) {
        assert_eq!(name(found), (*key < 50).then(|| format!("task {key}")));
    }
    assert_eq!(first.await.unwrap().unwrap().as_deref(), Some("task 0"));
    let statistics = loader.close().await;
    assert_eq!((statistics.look_ups, statistics.batches), (2, 2), "{statistics:?}");
    assert_eq!((statistics.requests, statistics.store_keys, statistics.joined), (201, 101, 100));
    assert_eq!((statistics.absent, statistics.errors, statistics.waiting), (50, 0, 0));
    assert_eq!(statistics.look_ups_saved(), 199);
    assert_eq!(loader.load(1).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_lone_key_leaves_at_once_and_tasks_share_the_next() {
    let loader = filled(1_000).await.loader::<Task>().start();
    let tasks: Vec<_> = (0..1_000_i64)
        .map(|key| {
            let loader = loader.clone();
            tokio::spawn(async move { name(loader.load(key).await.unwrap()) })
        })
        .collect();
    for (key, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap(), Some(format!("task {key}")));
    }
    assert!(loader.statistics().look_ups <= 3, "{:?}", loader.statistics());
}

#[tokio::test(start_paused = true)]
async fn many_keys_are_cut_and_a_full_loader_waits_or_refuses() {
    let db = filled(100).await;
    let loader = db.loader::<Task>().max_keys(10).start();
    let found = loader.load_many(0..1_000_i64).await.unwrap();
    assert_eq!(found.iter().filter(|task| task.is_some()).count(), 100);
    assert!(loader.statistics().keys_per_batch() <= 20.0, "{:?}", loader.statistics());

    let refusing = db.loader::<Task>().max_keys(2).when_full(WhenFull::Reject).start();
    let asked: Vec<_> = (0..10_i64)
        .map(|key| {
            let loader = refusing.clone();
            tokio::spawn(async move { loader.load(key).await.map(drop).map_err(|error| error.kind()) })
        })
        .collect();
    let mut refused = 0;
    for asked in asked {
        match asked.await.unwrap() {
            Ok(()) => {}
            Err(kind) => {
                assert_eq!(kind, ErrorKind::BufferFull);
                refused += 1;
            }
        }
    }
    assert!((1..10).contains(&refused), "{refused}");
}

/// Rows whose reading fails where a column is NULL.
#[derive(Debug, PartialEq, Record, FromRow)]
#[record(table = "accounts")]
struct Strict {
    #[record(key)]
    id: i64,
    email: String,
}

#[tokio::test(start_paused = true)]
async fn one_keys_error_is_that_keys_alone() {
    let store = MemoryStore::new();
    store.create(MemoryTable::new(Account::table())).unwrap();
    let db = Database::new(store);
    let account = |id: i64| Account { id, email: (id != 2).then(|| format!("{id}@example.org")) };
    db.insert_all(&[account(1), account(2), account(3)]).await.unwrap();
    let loader = db.loader::<Strict>().start();
    let answers = loader.load_each([1_i64, 2, 3, 4]).await;
    let error = answers[1].as_ref().unwrap_err();
    assert_eq!((error.kind(), error.column()), (ErrorKind::InvalidValue, Some("email")));
    assert!(matches!(&answers[0], Ok(Some(account)) if account.id == 1));
    assert!(matches!(&answers[2], Ok(Some(account)) if account.id == 3));
    assert!(matches!(&answers[3], Ok(None)));
    assert_eq!(loader.load_many([1_i64, 2]).await.unwrap_err().kind(), ErrorKind::InvalidValue);
    assert_eq!(loader.statistics().errors, 2);
}

#[tokio::test(start_paused = true)]
async fn keys_of_several_columns_and_of_other_types() {
    #[derive(Clone, Debug, PartialEq, Record, FromRow)]
    #[record(table = "balances")]
    struct Balance {
        #[record(key)]
        user: i64,
        #[record(key)]
        currency: String,
        amount: i64,
    }
    let store = MemoryStore::new();
    store.create(MemoryTable::new(Balance::table())).unwrap();
    let db = Database::new(store);
    let balance = |user, currency: &str, amount| Balance { user, currency: currency.to_owned(), amount };
    db.insert_all(&[balance(1, "EUR", 5), balance(1, "BTC", 7), balance(2, "EUR", 9)]).await.unwrap();
    let cache = Cache::new(Duration::from_secs(60));
    let loader = db.loader::<Balance>().cache(cache).start();
    // Users as i32: number types need not match.
    let amount = async |user: i32, currency: &str| {
        loader.load((user, currency.to_owned())).await.unwrap().map(|balance| balance.amount)
    };
    assert_eq!(amount(1, "BTC").await, Some(7));
    assert_eq!(amount(2, "BTC").await, None);
    db.upsert_all(&[balance(1, "BTC", 8), balance(2, "BTC", 1)]).await.unwrap();
    assert_eq!(
        (amount(1, "BTC").await, amount(2, "BTC").await, amount(2, "EUR").await),
        (Some(8), Some(1), Some(9))
    );
    let error = db.loader::<Balance>().try_start::<i64>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
}

#[tokio::test(start_paused = true)]
async fn rows_by_another_column() {
    let store = MemoryStore::new();
    store.create(MemoryTable::new(Order::table())).unwrap();
    let db = Database::new(store);
    let order = |id, account| Order { id, account, amount: 1 };
    db.insert_all(&[order(1, Some(7)), order(2, Some(8)), order(3, Some(7)), order(4, None)]).await.unwrap();
    let newest = LookUpBy::from("account").order_by("id", barge_core::Direction::Descending).limit(2);
    let cache = Cache::new(Duration::from_secs(60));
    let loader = db.loader_by::<Order>(newest).cache(cache).start();
    let ids = async |account: i64| -> Vec<i64> {
        loader.load(account).await.unwrap().unwrap_or_default().iter().map(|order| order.id).collect()
    };
    assert_eq!((ids(7).await, ids(8).await, ids(9).await), (vec![3, 1], vec![2], vec![]));
    assert_eq!(ids(7).await, [3, 1]);
    assert_eq!(loader.statistics().memory_hits, 1);
    // A write of any key of the table may be another row of this one.
    db.insert_all(&[order(5, Some(7)), order(6, Some(9))]).await.unwrap();
    assert_eq!((ids(7).await, ids(9).await), (vec![5, 3], vec![6]));
    let error = db.loader_by::<Order>("nowhere").start::<i64>().load(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MissingColumn, "{error}");
}

#[tokio::test]
async fn handlers_of_the_applications_own() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let loader = Loader::builder(move |keys: Requests<u32>| {
        let call = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            if call == 0 {
                return Err(Error::new(ErrorKind::Busy, "try again"));
            }
            assert!(!keys.contains(&666), "made up");
            let answer = |key: &u32| match key {
                13 => Err(Error::new(ErrorKind::InvalidValue, "thirteen")),
                key => Ok((key % 2 == 0).then_some(key * 10)),
            };
            Ok(keys.iter().map(answer).collect())
        }
    })
    .start();
    assert_eq!(loader.load_many([2, 3, 2]).await.unwrap(), [Some(20), None, Some(20)]);
    let answers = loader.load_each([4, 13]).await;
    assert_eq!(answers[0].as_ref().unwrap(), &Some(40));
    assert_eq!(answers[1].as_ref().unwrap_err().to_string(), "thirteen");
    assert_eq!(calls.load(Ordering::Relaxed), 3, "a failure that passes is tried again");
    assert_eq!(loader.load(666).await.unwrap_err().kind(), ErrorKind::Handler);
    assert_eq!(loader.load(8).await.unwrap(), Some(80), "it goes on after a panic");
}

#[tokio::test(start_paused = true)]
async fn a_scope_remembers_until_something_is_written() {
    let db = filled(10).await;
    let loader = db.loader::<Task>().start();
    let scope = loader.scope();
    let load = async |key: i64| name(scope.load(key).await.unwrap());
    // The first look-up begins before the loader is told of writes, and isn't remembered.
    assert_eq!(load(3).await.as_deref(), Some("task 3"));
    assert_eq!(load(1).await.as_deref(), Some("task 1"));
    assert_eq!((load(1).await.as_deref(), load(11).await), (Some("task 1"), None));
    assert_eq!(scope.load_many([1_i64, 2, 11]).await.unwrap().iter().flatten().count(), 2);
    assert_eq!(loader.statistics().store_keys, 4);
    db.upsert_all(&[task(1, "changed"), task(11, "new")]).await.unwrap();
    assert_eq!((load(1).await.as_deref(), load(11).await.as_deref()), (Some("changed"), Some("new")));
    scope.prime(5, Arc::new(task(5, "primed")));
    assert_eq!(load(5).await.as_deref(), Some("primed"));
    scope.clear(&5);
    assert_eq!(load(5).await.as_deref(), Some("task 5"));
}

/// A loader that keeps nothing and hears of nothing: clearing is the caller's, of all scopes at once.
#[tokio::test(start_paused = true)]
async fn what_a_loader_clears_its_scopes_forget() {
    let calls = Arc::new(AtomicUsize::new(0));
    let calling = calls.clone();
    let handler = move |keys: Requests<i64>| {
        let nth = calling.fetch_add(1, Ordering::Relaxed);
        async move { Ok(keys.iter().map(|_| Ok(Some(nth))).collect()) }
    };
    let keeping = Loader::builder(handler.clone()).cache(Cache::new(Duration::from_secs(60))).start();
    for loader in [Loader::builder(handler).start(), keeping] {
        let scope = loader.scope();
        let first = scope.load(1).await.unwrap();
        assert_eq!(scope.load(1).await.unwrap(), first);
        loader.clear(&1);
        let second = scope.load(1).await.unwrap();
        assert_ne!(second, first);
        loader.clear_all();
        assert_ne!(scope.load(1).await.unwrap(), second);
    }
}

#[tokio::test(start_paused = true)]
async fn warming_keeps_to_its_rate_and_tells_how_far_it_is() {
    let db = filled(500).await;
    let loader = db.loader::<Task>().cache(Cache::new(Duration::from_secs(60))).start();
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    let options = WarmOptions {
        batch: 100,
        per_second: Some(200),
        query_max_keys: 0,
        progress: Some(Box::new(move |warmed| heard.lock().unwrap().push(warmed.keys))),
    };
    let started = tokio::time::Instant::now();
    let warmed = loader.warm(0..600_i64, options).await.unwrap();
    assert_eq!((warmed.keys, warmed.found, warmed.failed), (600, 500, 0));
    assert!((2.5..2.7).contains(&started.elapsed().as_secs_f64()), "{:?}", started.elapsed());
    assert_eq!(*told.lock().unwrap(), [100, 200, 300, 400, 500, 600]);
    let look_ups = loader.statistics().look_ups;
    assert_eq!(name(loader.load(17).await.unwrap()).as_deref(), Some("task 17"));
    let statistics = loader.statistics();
    assert_eq!((statistics.look_ups, statistics.warmed, statistics.entries), (look_ups, 600, 600));
}

#[tokio::test]
async fn settings_out_of_bounds_are_refused() {
    let (_, db) = database().await;
    let day = Duration::from_secs(86_400);
    for cache in [Cache::new(Duration::ZERO), Cache::new(day).jitter(1.0), Cache::new(day).refresh_after(2.0)]
    {
        let error = db.loader::<Task>().cache(cache).try_start::<i64>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }
    let loader = || db.loader::<Task>();
    for builder in [loader().max_keys(0), loader().in_flight(0), loader().in_flight(usize::MAX)] {
        assert_eq!(builder.try_start::<i64>().unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
    let many = loader().max_keys(usize::MAX).try_start::<i64>().unwrap_err();
    assert!(many.to_string().contains("max_keys is"), "{many}");
    for options in [
        WarmOptions { per_second: Some(0), ..WarmOptions::default() },
        WarmOptions { batch: 0, ..WarmOptions::default() },
    ] {
        let refused = loader().start::<i64>().warm(0..10, options).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
}

#[tokio::test(start_paused = true)]
async fn keys_in_demand_are_warm_from_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tasks.keys");
    let db = filled(500).await;
    let start = || db.loader::<Task>().cache(Cache::new(Duration::from_secs(60))).remember(&file).start();
    let loader = start();
    for _ in 0..2_000 {
        loader.load_many([3_i64, 17, 400]).await.unwrap();
    }
    loader.close().await;
    let next = start();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(next.statistics().warmed, 3);
    let look_ups = next.statistics().look_ups;
    assert_eq!(name(next.load(17_i64).await.unwrap()).as_deref(), Some("task 17"));
    assert_eq!(next.statistics().look_ups, look_ups);
    // What isn't a file of this loader's is passed over.
    std::fs::write(&file, "something else").unwrap();
    let next = start();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((next.statistics().warmed, name(next.load(1_i64).await.unwrap()).is_some()), (0, true));
    // Nor is it written over.
    for _ in 0..2_000 {
        next.load_many([3_i64, 17, 400]).await.unwrap();
    }
    next.close().await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "something else");
    let error = db.loader::<Task>().remember(&file).try_start::<i64>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let handler = |keys: Requests<i64>| async move { Ok(keys.iter().map(|_| Ok(Some(1))).collect()) };
    let cache = Cache::new(Duration::from_secs(60));
    let error = Loader::builder(handler).cache(cache).remember(&file).try_start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

/// The store is away when the process starts, and comes back.
#[tokio::test(start_paused = true)]
async fn keys_in_demand_are_warmed_when_the_store_can_be_asked() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tasks.keys");
    let inner = filled(500).await;
    let start = |db: &Database| {
        let cache = Cache::new(Duration::from_secs(600));
        db.loader::<Task>().cache(cache).timeout(Duration::from_secs(1)).remember(&file).start()
    };
    let loader = start(&inner);
    for _ in 0..2_000 {
        loader.load_many([3_i64, 17, 400]).await.unwrap();
    }
    loader.close().await;
    let away = (1..30).map(|nth| Fault {
        point: Point::Describe,
        nth,
        effect: Effect::Fail(ErrorKind::ConnectionLost),
    });
    let db = Database::new(FaultStore::new(Arc::clone(inner.store()), FaultPlan::new(away)));
    let next: Loader<i64, _> = start(&db);
    // A run that ends before the file was read must not empty it.
    assert!(next.load(1).await.is_err());
    next.close().await;
    let next: Loader<i64, _> = start(&db);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(next.statistics().warmed, 3, "{:?}", next.statistics());
}

/// A record whose reading panics over several rows.
#[derive(Debug)]
struct Fragile;

impl Record for Fragile {
    type Columns = <Task as Record>::Columns;

    fn table() -> &'static barge_core::Table {
        Task::table()
    }

    fn append(&self, _: &mut Self::Columns) -> barge_core::Result<usize> {
        unreachable!()
    }
}

impl FromRow for Fragile {
    fn schema() -> arrow::datatypes::SchemaRef {
        Task::schema()
    }

    fn from_batch(batch: &arrow::array::RecordBatch) -> barge_core::Result<Vec<Self>> {
        assert_eq!(batch.num_rows(), 1, "made up");
        Ok(vec![Fragile])
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_the_keys_of_its_look_up_and_no_more() {
    let loader = filled(3).await.loader::<Fragile>().start();
    let answers = loader.load_each([1_i64, 2]).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap_err().kind() == ErrorKind::Handler));
    assert!(loader.load(1).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn warming_keeps_to_its_rate_from_the_first_key() {
    let loader = filled(500).await.loader::<Task>().cache(Cache::new(Duration::from_secs(60))).start();
    let started = tokio::time::Instant::now();
    let options = WarmOptions { per_second: Some(100), ..WarmOptions::default() };
    let warmed = loader.warm(0..500_i64, options).await.unwrap();
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(4) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!((warmed.keys, loader.statistics().batches), (500, 5));
}

/// A commit that began before its loader began to listen is told to nobody.
#[tokio::test(start_paused = true)]
async fn a_scope_remembers_nothing_while_there_are_commits_that_its_loader_is_not_told_of() {
    let (_, db) = slow_database(Duration::from_secs(1)).await;
    db.insert_all(&[task(1, "old")]).await.unwrap();
    let writing = tokio::spawn({
        let db = db.clone();
        async move { db.upsert_all(&[task(1, "new")]).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let scope = db.loader::<Task>().start::<i64>().scope();
    for _ in 0..2 {
        assert_eq!(name(scope.load(1).await.unwrap()).as_deref(), Some("old"), "not committed yet");
    }
    writing.await.unwrap();
    assert_eq!(name(scope.load(1).await.unwrap()).as_deref(), Some("new"));
}

#[tokio::test(start_paused = true)]
async fn the_first_look_up_is_tried_again_and_ends_in_time() {
    let first = |effect| FaultPlan::new([Fault { point: Point::Describe, nth: 1, effect }]);
    let over = async |plan| {
        let inner = filled(3).await;
        let db = Database::new(FaultStore::new(Arc::clone(inner.store()), plan));
        db.loader::<Task>().timeout(Duration::from_secs(1)).start::<i64>()
    };
    let loader = over(first(Effect::Fail(ErrorKind::Busy))).await;
    assert_eq!(name(loader.load(1).await.unwrap()).as_deref(), Some("task 1"));

    let loader = over(first(Effect::Delay(Duration::from_secs(3_600)))).await;
    let started = tokio::time::Instant::now();
    assert_eq!(loader.load(1).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(name(loader.load(1).await.unwrap()).as_deref(), Some("task 1"));
}

#[tokio::test(start_paused = true)]
async fn what_comes_before_the_first_look_up_is_within_its_time() {
    let slow = |point| Fault { point, nth: 1, effect: Effect::Delay(Duration::from_millis(700)) };
    let inner = filled(3).await;
    let plan = FaultPlan::new([slow(Point::Describe), slow(Point::Read)]);
    let db = Database::new(FaultStore::new(Arc::clone(inner.store()), plan));
    for cache in [None, Some(Cache::new(Duration::from_secs(60)))] {
        let mut builder = db.loader::<Task>().timeout(Duration::from_secs(1));
        if let Some(cache) = cache {
            builder = builder.cache(cache);
        }
        let started = tokio::time::Instant::now();
        let loader = builder.start::<i64>();
        let loaded = loader.load(1).await.map(name);
        let took = started.elapsed();
        match loaded {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Timeout, "{error}"),
            // The second loader finds no faults any more.
            Ok(found) => assert_eq!(found.as_deref(), Some("task 1")),
        }
        assert!(took <= Duration::from_millis(1_001), "{took:?}");
    }
}

/// Waves of requests for keys whose look-up is under way, with lanes free to begin others.
#[tokio::test(start_paused = true)]
async fn of_several_look_ups_in_flight_one_reads_a_key() {
    let db = filled(10).await;
    let cache = Cache::new(Duration::from_secs(60));
    // A wave fills a look-up, which so begins beside the others.
    let loader = db.loader::<Task>().cache(cache).in_flight(4).max_keys(4).start::<i64>();
    loader.load(9).await.unwrap();
    let mut asked = Vec::new();
    for wave in 0..30_i64 {
        let loader = loader.clone();
        // Each wave has a key of its own, so that nothing but the others is shared.
        asked.push(tokio::spawn(async move { loader.load_many([1, 2, 77, 1_000 + wave]).await.unwrap() }));
        tokio::time::sleep(LATENCY / 8).await;
    }
    for asked in asked {
        let found = asked.await.unwrap();
        assert_eq!(found.iter().flatten().count(), 2, "{found:?}");
    }
    let statistics = loader.statistics();
    assert_eq!(statistics.store_keys, 1 + 3 + 30, "{statistics:?}");
    assert!(statistics.memory_waits > 3, "{statistics:?}");
}

/// A look-up that began before the write keeps nothing, and who waited for it reads by itself.
#[tokio::test(start_paused = true)]
async fn who_waits_for_another_look_up_gives_nothing_older_than_was_written() {
    let stored = Arc::new(AtomicUsize::new(1));
    let reading = stored.clone();
    let handler = move |keys: Requests<i64>| {
        let found = reading.load(Ordering::Relaxed);
        async move {
            tokio::time::sleep(LATENCY).await;
            Ok(keys.iter().map(|_| Ok(Some(found))).collect())
        }
    };
    let cache = Cache::new(Duration::from_secs(60));
    let loader = Loader::builder(handler).cache(cache).in_flight(2).max_keys(1).start();
    let load = || {
        let loader = loader.clone();
        tokio::spawn(async move { loader.load(7_i64).await.unwrap() })
    };
    let before = load();
    tokio::time::sleep(LATENCY / 4).await;
    stored.store(2, Ordering::Relaxed);
    loader.clear(&7);
    let after = load();
    assert_eq!((before.await.unwrap(), after.await.unwrap()), (Some(1), Some(2)));
    let statistics = loader.statistics();
    assert_eq!((statistics.store_keys, statistics.memory_waits), (2, 1), "{statistics:?}");
}
