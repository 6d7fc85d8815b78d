//! What is kept, and how long.

use barge_testkit::{Effect, Fault, FaultPlan, FaultStore, Point};
use tokio::time::{Instant, advance, sleep};

use super::*;

const TTL: Duration = Duration::from_secs(30);

fn loader(db: &Database, cache: Cache) -> Loader<i64, Arc<Task>> {
    db.loader::<Task>().cache(cache).start()
}

/// Another program's write, of which nobody here is told.
async fn write_elsewhere(db: &Database, task: Task) {
    Database::over(Arc::clone(db.store())).upsert_all(&[task]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn entries_live_as_long_as_they_should_and_no_longer() {
    let db = filled(10).await;
    let loader = loader(&db, Cache::new(TTL).refresh_after(1.0));
    let load = async |key| name(loader.load(key).await.unwrap());
    assert_eq!(load(1).await.as_deref(), Some("task 1"));
    write_elsewhere(&db, task(1, "elsewhere")).await;
    advance(TTL.mul_f64(0.85)).await;
    assert_eq!(load(1).await.as_deref(), Some("task 1"), "nothing told of the write");
    advance(TTL.mul_f64(0.2)).await;
    assert_eq!(load(1).await.as_deref(), Some("elsewhere"));
    let statistics = loader.statistics();
    assert_eq!((statistics.memory_hits, statistics.look_ups, statistics.entries <= 1), (1, 2, true));
    assert!((statistics.hit_rate() - 1.0 / 3.0).abs() < 1e-9, "{statistics:?}");
}

#[tokio::test(start_paused = true)]
async fn expiries_are_spread() {
    let db = filled(1_000).await;
    let loader = loader(&db, Cache::new(TTL).jitter(0.5).refresh_after(1.0));
    loader.load_many(0..1_000).await.unwrap();
    advance(TTL.mul_f64(0.75)).await;
    let before = loader.statistics().store_keys;
    loader.load_many(0..1_000).await.unwrap();
    let expired = loader.statistics().store_keys - before;
    assert!((300..700).contains(&expired), "{expired} of 1000 are expired halfway through the spread");
}

#[tokio::test(start_paused = true)]
async fn that_there_is_no_row_is_remembered_for_a_moment_and_until_one_is_written() {
    let db = filled(1).await;
    let loader = loader(&db, Cache::new(TTL).absent(Duration::from_secs(1)).jitter(0.0));
    let load = async |key| name(loader.load(key).await.unwrap());
    assert_eq!((load(77).await, load(77).await), (None, None));
    assert_eq!(loader.statistics().look_ups, 1);
    write_elsewhere(&db, task(77, "elsewhere")).await;
    assert_eq!(load(77).await, None);
    advance(Duration::from_secs(1)).await;
    assert_eq!(load(77).await.as_deref(), Some("elsewhere"));
    assert_eq!(load(78).await, None);
    db.insert_all(&[task(78, "here")]).await.unwrap();
    assert_eq!(load(78).await.as_deref(), Some("here"));
    let forgetful = db.loader::<Task>().cache(Cache::new(TTL).absent(Duration::ZERO)).start();
    for _ in 0..2 {
        assert!(forgetful.load(99_i64).await.unwrap().is_none());
    }
    assert_eq!(forgetful.statistics().look_ups, 2);
}

#[tokio::test(start_paused = true)]
async fn keys_in_demand_never_expire_and_are_read_once_each_time() {
    let db = filled(10).await;
    let loader = loader(&db, Cache::new(TTL).refresh_after(0.5).jitter(0.0));
    loader.load(1).await.unwrap();
    let end = Instant::now() + TTL * 10;
    while Instant::now() < end {
        sleep(Duration::from_millis(250)).await;
        let started = Instant::now();
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let loader = loader.clone();
                tokio::spawn(async move { loader.load(1).await.unwrap().is_some() })
            })
            .collect();
        for task in tasks {
            assert!(task.await.unwrap());
        }
        assert!(started.elapsed().is_zero(), "waited for the store");
    }
    let statistics = loader.statistics();
    assert!((18..=22).contains(&statistics.look_ups), "twice a time to live: {statistics:?}");
    assert_eq!(statistics.refreshes + 1, statistics.look_ups);
}

#[tokio::test(start_paused = true)]
async fn what_is_expired_is_served_only_while_the_store_cannot_be_reached() {
    let store = MemoryStore::new();
    store.create(MemoryTable::new(Task::table())).unwrap();
    let faults =
        (2..60).map(|nth| Fault { point: Point::Read, nth, effect: Effect::Fail(ErrorKind::ConnectionLost) });
    let db = Database::new(FaultStore::new(Arc::new(store), FaultPlan::new(faults)));
    db.insert_all(&[task(1, "one"), task(2, "two")]).await.unwrap();
    let cache = Cache::new(TTL).refresh_after(1.0).stale_while_unavailable(TTL * 2);
    let loader = db.loader::<Task>().cache(cache).timeout(Duration::from_secs(1)).start::<i64>();
    assert_eq!(name(loader.load(1).await.unwrap()).as_deref(), Some("one"));
    advance(TTL * 2).await;
    assert_eq!(
        name(loader.load(1).await.unwrap()).as_deref(),
        Some("one"),
        "expired, and better than nothing"
    );
    assert_eq!(loader.load(2).await.unwrap_err().kind(), ErrorKind::ConnectionLost, "never read before");
    // What this process wrote is never served older.
    db.upsert_all(&[task(1, "written")]).await.unwrap();
    assert_eq!(loader.load(1).await.unwrap_err().kind(), ErrorKind::ConnectionLost);
    assert_eq!(loader.statistics().stale, 1);
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_by_entries_or_bytes() {
    let db = filled(5_000).await;
    for cache in [Cache::new(TTL).entries(100), Cache::new(TTL).bytes(40_000)] {
        let loader = loader(&db, cache);
        for _ in 0..3 {
            loader.load_many(0..5_000).await.unwrap();
        }
        let statistics = loader.statistics();
        assert!(statistics.entries <= 250 && statistics.evictions > 1_000, "{statistics:?}");
    }
    let nothing = loader(&db, Cache::new(TTL).entries(0));
    nothing.load_many([1, 2]).await.unwrap();
    nothing.load_many([1, 2]).await.unwrap();
    assert_eq!(nothing.statistics().memory_hits, 0);
}

/// What bytes bound also counts what didn't come from the store, keys, and that there is no row.
#[tokio::test(start_paused = true)]
async fn whatever_memory_keeps_counts_by_its_bytes() {
    const LARGE: usize = 10_000;
    let cache = || Cache::new(TTL).bytes(50 * LARGE as u64).absent(TTL);
    let db = filled(0).await;
    let primed = loader(&db, cache());
    primed.load(-1).await.unwrap();
    for id in 0..1_000 {
        primed.prime(id, Arc::new(task(id, &"x".repeat(LARGE))));
    }
    // Too few of these take their room to be counted in rows.
    let handled = Loader::builder(|keys: Requests<i64>| async move {
        Ok(keys.iter().map(|_| Ok(Some(Arc::<str>::from("x".repeat(LARGE))))).collect())
    })
    .weigh(|_, value| value.map_or(0, |value| value.len()))
    .cache(cache())
    .start();
    handled.load_many(0..1_000).await.unwrap();
    let store = MemoryStore::new();
    store.create(MemoryTable::new(Named::table())).unwrap();
    let named = Database::new(store).loader::<Named>().cache(cache()).start::<String>();
    named.load_many((0..1_000).map(|id| format!("{id}{}", "x".repeat(LARGE)))).await.unwrap();
    for (what, statistics) in
        [("primed", primed.statistics()), ("handled", handled.statistics()), ("absent", named.statistics())]
    {
        assert!((20..=55).contains(&statistics.entries), "{what}: {statistics:?}");
    }
}

#[derive(Clone, Debug, PartialEq, Record, FromRow)]
#[record(table = "named")]
struct Named {
    #[record(key)]
    name: String,
}

#[tokio::test]
async fn values_of_a_handler_that_nobody_weighs_are_not_bounded_by_bytes() {
    let handler = |keys: Requests<i64>| async move { Ok(keys.iter().map(|_| Ok(Some(1_u8))).collect()) };
    let refused = Loader::builder(handler).cache(Cache::new(TTL).bytes(1_000)).try_start().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidConfig, "{refused}");
    assert!(refused.to_string().contains("weigh"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn primed_and_cleared() {
    let db = filled(10).await;
    let loader = loader(&db, Cache::new(TTL));
    let load = async |key| name(loader.load(key).await.unwrap());
    loader.prime(3, Arc::new(task(3, "too early")));
    assert_eq!(
        load(3).await.as_deref(),
        Some("task 3"),
        "before the first look-up nothing tells it of writes"
    );
    loader.clear(&3);
    loader.prime(3, Arc::new(task(3, "primed")));
    assert_eq!(load(3).await.as_deref(), Some("primed"));
    loader.clear(&3);
    assert_eq!(load(3).await.as_deref(), Some("task 3"));
    loader.prime(3, Arc::new(task(3, "primed")));
    loader.clear_all();
    assert_eq!(load(3).await.as_deref(), Some("task 3"));
}

#[tokio::test]
async fn times_that_no_clock_can_tell_are_refused() {
    let db = filled(1).await;
    let most = Duration::from_secs(10 * 365 * 24 * 60 * 60);
    let caches = |time| {
        [
            Cache::new(time),
            Cache::new(TTL).absent(time),
            Cache::new(TTL).stale_while_unavailable(time),
            Cache::new(TTL).lease(time),
            Cache::new(TTL).clock_skew(time),
        ]
    };
    for cache in caches(Duration::MAX).into_iter().chain(caches(most + Duration::from_secs(1))) {
        let refused = db.loader::<Task>().cache(cache.clone()).try_start::<i64>().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidConfig, "{refused}");
        assert!(refused.to_string().contains("ten years"), "{refused}");
        let handler = |keys: Requests<i64>| async move { Ok(keys.iter().map(|_| Ok(Some(1))).collect()) };
        let refused = Loader::builder(handler).cache(cache).try_start().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidConfig, "{refused}");
    }
    for cache in caches(most) {
        let loader = loader(&db, cache);
        assert!(loader.load(0).await.unwrap().is_some() && loader.load(1).await.unwrap().is_none());
        assert!(loader.load(0).await.unwrap().is_some());
    }
}

/// A value that the application has is not replaced by what a look-up read before.
#[tokio::test(start_paused = true)]
async fn what_is_primed_is_not_replaced_by_what_was_read_before() {
    let handler = |keys: Requests<i64>| async move {
        sleep(LATENCY).await;
        Ok(keys.iter().map(|_| Ok(Some("read"))).collect())
    };
    let loader = Loader::builder(handler).cache(Cache::new(TTL)).start();
    let reading = tokio::spawn({
        let loader = loader.clone();
        async move { loader.load(7).await.unwrap() }
    });
    sleep(LATENCY / 2).await;
    loader.prime(7, "primed");
    assert_eq!(reading.await.unwrap(), Some("read"));
    assert_eq!(loader.load(7).await.unwrap(), Some("primed"));
}

/// Under a key that isn't the value's, a commit would not find it.
#[tokio::test(start_paused = true)]
async fn a_value_is_primed_under_its_own_key_alone() {
    let db = filled(10).await;
    let loader = loader(&db, Cache::new(TTL));
    loader.load(0).await.unwrap();
    loader.prime(3, Arc::new(task(4, "primed")));
    assert_eq!(name(loader.load(3).await.unwrap()).as_deref(), Some("task 3"));
}

#[tokio::test(start_paused = true)]
async fn one_key_is_forgotten_without_the_others() {
    let store = MemoryStore::new();
    store.create(MemoryTable::new(Order::table())).unwrap();
    let db = Database::new(store);
    let order = |id, account| Order { id, account: Some(account), amount: id };
    db.insert_all(&[order(1, 7), order(2, 8)]).await.unwrap();
    let by_account = db.loader_by::<Order>("account").cache(Cache::new(TTL)).start::<i64>();
    let by_key = db.loader::<Order>().cache(Cache::new(TTL).absent(TTL)).start::<i64>();
    let scope = by_key.scope();
    by_account.load_many([7, 8]).await.unwrap();
    by_key.load_many([1, 2, 3]).await.unwrap();
    scope.load(1).await.unwrap();
    Database::over(Arc::clone(db.store())).upsert_all(&[order(1, 8), order(2, 9)]).await.unwrap();
    by_account.clear(&7);
    by_key.clear(&1);
    assert!(by_account.load(7).await.unwrap().is_none());
    assert_eq!(by_account.load(8).await.unwrap().unwrap().len(), 1, "kept");
    assert_eq!(by_account.statistics().store_keys, 3);
    let account = |order: Option<Arc<Order>>| order.and_then(|order| order.account);
    assert_eq!(account(scope.load(1).await.unwrap()), Some(8), "a scope hears of it, too");
    assert_eq!(account(by_key.load(2).await.unwrap()), Some(8), "kept");
    assert!(by_key.load(3).await.unwrap().is_none());
    assert_eq!(by_key.statistics().store_keys, 4);
}

/// A refresh that failed is tried again after a moment, and not with each request.
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_not_asked_again_with_each_request() {
    let inner = filled(10).await;
    let fail = |nth| Fault { point: Point::Read, nth, effect: Effect::Fail(ErrorKind::Permission) };
    let db = Database::new(FaultStore::new(Arc::clone(inner.store()), FaultPlan::new((2..10_000).map(fail))));
    let loader = loader(&db, Cache::new(TTL).refresh_after(0.5).jitter(0.0));
    loader.load(1).await.unwrap();
    advance(TTL.mul_f64(0.6)).await;
    for _ in 0..500 {
        assert!(loader.load(1).await.unwrap().is_some());
        sleep(Duration::from_millis(10)).await;
    }
    let statistics = loader.statistics();
    assert!((4..=7).contains(&statistics.refreshes), "in five seconds: {statistics:?}");
}

/// Who may be served what is expired doesn't wait for all attempts to reach the store.
#[tokio::test(start_paused = true)]
async fn what_is_expired_is_served_soon() {
    let hour = Duration::from_secs(3_600);
    for (effect, most) in [
        (Effect::Fail(ErrorKind::ConnectionLost), Duration::from_millis(50)),
        (Effect::Delay(hour), Duration::from_millis(1_050)),
    ] {
        let inner = filled(10).await;
        let faults = (2..1_000).map(|nth| Fault { point: Point::Read, nth, effect: effect.clone() });
        let db = Database::new(FaultStore::new(Arc::clone(inner.store()), FaultPlan::new(faults)));
        let cache = Cache::new(TTL).refresh_after(1.0).stale_while_unavailable(TTL * 4);
        let loader = loader(&db, cache);
        loader.load_many([1, 2]).await.unwrap();
        advance(TTL * 2).await;
        let load = async |key| {
            let started = Instant::now();
            assert!(loader.load(key).await.unwrap().is_some());
            started.elapsed()
        };
        let first = load(1).await;
        assert!(first <= most, "{first:?}");
        for key in [1, 2, 1, 2] {
            let next = load(key).await;
            assert!(next.is_zero(), "{next:?}: it is known by now");
        }
        assert_eq!(loader.statistics().stale, 5);
        // A key of which nothing is kept doesn't hold the others up for long.
        sleep(Duration::from_secs(2)).await;
        let started = Instant::now();
        let answers = loader.load_each([1, 9]).await;
        assert!(answers[0].is_ok() && answers[1].is_err());
        assert!(started.elapsed() <= Duration::from_millis(2_100), "{:?}", started.elapsed());
    }
}

/// A look-up fails over one key's row, and then the store says nothing any more.
#[tokio::test(start_paused = true)]
async fn what_was_answered_before_the_store_fell_silent_stays_answered() {
    let hour = Duration::from_secs(3_600);
    let silent_from = |nth, failing| {
        let unreadable = Effect::Fail(ErrorKind::InvalidValue);
        let silent = (nth..1_000).map(|nth| Fault { point: Point::Read, nth, effect: Effect::Delay(hour) });
        FaultPlan::new(silent.chain([Fault { point: Point::Read, nth: failing, effect: unreadable }]))
    };
    let inner = filled(10).await;
    let db = Database::new(FaultStore::new(Arc::clone(inner.store()), silent_from(3, 1)));
    let started = Instant::now();
    let answers = db.loader::<Task>().start().load_each([1_i64, 2]).await;
    assert_eq!(name(answers[0].clone().unwrap()).as_deref(), Some("task 1"));
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::Timeout);
    assert!((10.0..10.1).contains(&started.elapsed().as_secs_f64()), "{:?}", started.elapsed());

    // Of which something is kept, it is served soon.
    let inner = filled(10).await;
    let db = Database::new(FaultStore::new(Arc::clone(inner.store()), silent_from(3, 2)));
    let loader = loader(&db, Cache::new(TTL).refresh_after(1.0).stale_while_unavailable(TTL * 4));
    loader.load_many([1, 2]).await.unwrap();
    advance(TTL * 2).await;
    let started = Instant::now();
    assert!(loader.load_many([1, 2]).await.unwrap().iter().all(Option::is_some));
    assert!(started.elapsed() <= Duration::from_millis(1_050), "{:?}", started.elapsed());
    assert_eq!((loader.statistics().stale, loader.statistics().errors), (2, 0));
}

/// A store that takes longer than its answers are waited for is read all the same.
#[tokio::test(start_paused = true)]
async fn a_slow_store_is_read_in_the_background() {
    let inner = filled(10).await;
    let slow = (2..1_000).map(|nth| Fault {
        point: Point::Read,
        nth,
        effect: Effect::Delay(Duration::from_secs(3)),
    });
    let db = Database::new(FaultStore::new(Arc::clone(inner.store()), FaultPlan::new(slow)));
    let cache = Cache::new(TTL).stale_while_unavailable(TTL * 100);
    let loader = loader(&db, cache);
    loader.load(1).await.unwrap();
    let mut now = 0;
    for _ in 0..5 {
        advance(TTL * 2).await;
        now += 1;
        write_elsewhere(&inner, task(1, &format!("{now}"))).await;
        let started = Instant::now();
        assert_ne!(name(loader.load(1).await.unwrap()).unwrap(), format!("{now}"), "what was kept");
        assert!(started.elapsed() <= Duration::from_millis(1_050), "{:?}", started.elapsed());
        sleep(Duration::from_secs(4)).await;
        assert_eq!(name(loader.load(1).await.unwrap()).unwrap(), format!("{now}"));
    }
    assert_eq!(loader.statistics().errors, 0);
}
