//! That a key has no row is shared, too, and believed of others for as long as it is right.

use barge_testkit::MemoryTier;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::sleep;

use super::sharing::{Moment, TTL, clock, elsewhere, shared, tasks_of};
use super::*;

#[tokio::test(start_paused = true)]
async fn that_a_key_has_no_row_is_shared_for_a_moment_and_until_one_is_written() {
    clock();
    let (store, tier) = (filled(10).await, MemoryTier::new());
    let (db, there) = (elsewhere(&store), elsewhere(&store));
    let (here, there_loads) = (tasks_of(&db, shared(&tier, TTL)), tasks_of(&there, shared(&tier, TTL)));
    let absent = async |loader: &Loader<i64, Arc<Task>>, key| {
        let found = loader.load(key).await.unwrap();
        sleep(Duration::from_millis(5)).await;
        let statistics = loader.statistics();
        (found.is_none(), statistics.shared_hits, statistics.store_keys)
    };
    assert_eq!(absent(&here, 77).await, (true, 0, 1));
    assert_eq!(absent(&there_loads, 77).await, (true, 1, 0));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(absent(&there_loads, 77).await, (true, 1, 1), "for a second");
    // Told to others by its key, and known here.
    db.insert_all(&[task(77, "written")]).await.unwrap();
    assert_eq!(name(here.load(77).await.unwrap()).as_deref(), Some("written"));
    sleep(Duration::from_millis(5)).await;
    assert_eq!(name(there_loads.load(77).await.unwrap()).as_deref(), Some("written"));
    // Whoever wrote lately finds out for itself which keys have no row.
    assert_eq!(absent(&there_loads, 78).await, (true, 1, 3));
    assert_eq!(absent(&here, 78).await, (true, 0, 3));
    sleep(Duration::from_secs(7)).await;
    assert_eq!(absent(&there_loads, 78).await, (true, 1, 4));
    assert_eq!(absent(&here, 78).await, (true, 1, 3));
}

/// A time with more digits than the column has no row, and then one whose commit names it otherwise.
#[tokio::test(start_paused = true)]
async fn that_a_key_has_no_row_is_not_believed_of_others_after_a_write() {
    clock();
    let (store, tier) = (MemoryStore::new(), MemoryTier::new());
    store.create(MemoryTable::new(Moment::table())).unwrap();
    let db = Database::new(store);
    let at = DateTime::from_timestamp_micros(1_700_000_000_000_001).unwrap();
    let cache = || shared(&tier, TTL).absent(TTL);
    let here = db.loader::<Moment>().cache(cache()).start::<DateTime<Utc>>();
    let there = elsewhere(&db).loader::<Moment>().cache(cache()).start::<DateTime<Utc>>();
    let key = at + TimeDelta::nanoseconds(7);
    assert!(here.load(at + TimeDelta::days(1)).await.unwrap().is_none(), "it hears of writes from here on");
    assert!(there.load(key).await.unwrap().is_none());
    sleep(Duration::from_millis(5)).await;
    let before = tier.snapshot();
    db.insert_all(&[Moment { at, name: "one".to_owned() }]).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    // It has lost what it was told.
    tier.restore(&before);
    assert_eq!(here.load(key).await.unwrap().map(|moment| moment.name.clone()).as_deref(), Some("one"));
}
