//! What loaders do the same over every store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use barge::Direction::Descending;
use barge::{Cache, Database, ErrorKind, FromRow, Loader, LookUpBy, Record, WarmOptions};
use barge_testkit::History;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::TTL;

const CURRENCIES: [&str; 3] = ["EUR", "USD", "BTC"];

#[derive(Record, FromRow, Debug, PartialEq, Clone)]
#[record(table = "balances")]
struct Balance {
    #[record(key)]
    user_id: i64,
    #[record(key)]
    currency: String,
    amount: i64,
}

fn balance(user_id: i64, currency: &str, amount: i64) -> Balance {
    Balance { user_id, currency: currency.to_owned(), amount }
}

/// Users 0 to `users`, each with a balance in each currency: `user * 10`, and one more for each currency.
async fn filled(url: &str, users: i64) -> Database {
    let db = barge::open(url).await.unwrap();
    db.create_table::<Balance>().await.unwrap();
    let all = (0..users).flat_map(|user| {
        CURRENCIES.iter().zip(0..).map(move |(currency, more)| balance(user, currency, user * 10 + more))
    });
    db.insert_all(&all.collect::<Vec<_>>()).await.unwrap();
    db
}

fn cache() -> Cache {
    Cache::new(TTL).absent(TTL)
}

async fn rows_by_key_and_by_column(url: &str) {
    let db = filled(url, 100).await;
    let loader: Loader<(i64, String), Arc<Balance>> = db.loader::<Balance>().cache(cache()).start();
    // Repeated and missing ones among them, in an order of the caller's.
    let keys: Vec<(i64, String)> =
        (50..150).rev().chain(50..60).map(|user| (user, CURRENCIES[user as usize % 3].to_owned())).collect();
    let found = loader.load_many(keys.clone()).await.unwrap();
    for ((user, currency), found) in keys.iter().zip(found) {
        let expected = (*user < 100).then(|| balance(*user, currency, user * 10 + user % 3));
        assert_eq!(found.as_deref(), expected.as_ref(), "{user} {currency}");
    }
    assert_eq!(loader.statistics().look_ups, 1);

    let newest = LookUpBy::from("user_id").order_by("amount", Descending).limit(2);
    let by_user: Loader<i64, Arc<[Balance]>> = db.loader_by::<Balance>(newest).cache(cache()).start();
    let amount = async |user, currency: &str| {
        loader.load((user, currency.to_owned())).await.unwrap().map(|balance| balance.amount)
    };
    let amounts = async |user: i64| -> Vec<i64> {
        by_user.load(user).await.unwrap().iter().flat_map(|rows| rows.iter()).map(|row| row.amount).collect()
    };
    assert_eq!((amounts(7).await, amounts(700).await), (vec![72, 71], vec![]));
    // What is written is seen at once: changed, added where there was none, and removed.
    db.upsert_all(&[balance(7, "EUR", 99)]).await.unwrap();
    db.insert_all(&[balance(700, "EUR", 5)]).await.unwrap();
    assert_eq!((amount(7, "EUR").await, amount(700, "EUR").await), (Some(99), Some(5)));
    assert_eq!((amounts(7).await, amounts(700).await), (vec![99, 72], vec![5]));
    db.delete_all(&[balance(7, "EUR", 0), balance(700, "EUR", 0)]).await.unwrap();
    assert_eq!((amount(7, "EUR").await, amount(700, "EUR").await), (None, None));
    assert_eq!((amounts(7).await, amounts(700).await), (vec![72, 71], vec![]));
    // By SQL of the application's own, which says nothing of rows.
    db.execute("UPDATE balances SET amount = 1 WHERE user_id = 8").await.unwrap();
    assert_eq!((amount(8, "EUR").await, amounts(8).await), (Some(1), vec![1, 1]));
    let look_ups = loader.statistics().look_ups;
    assert_eq!((amount(8, "EUR").await, loader.statistics().look_ups), (Some(1), look_ups), "kept");
}

async fn a_query_warms(url: &str) {
    let db = filled(url, 100).await;
    let loader: Loader<(i64, String), Arc<Balance>> = db.loader::<Balance>().cache(cache()).start();
    let options = || WarmOptions { batch: 20, per_second: None, ..WarmOptions::default() };
    // Columns by name, in any order and among others; a row with no key in part is no key.
    let sql = "SELECT amount, currency, user_id FROM balances WHERE user_id < 20 AND currency <> 'USD' \
               UNION ALL SELECT 1, 'EUR', NULL UNION ALL SELECT 2, 'EUR', 5000";
    let warmed = loader.warm_query(sql, options()).await.unwrap();
    assert_eq!((warmed.keys, warmed.found, warmed.failed), (41, 40, 0));
    let statistics = loader.statistics();
    assert_eq!((statistics.warmed, statistics.store_keys), (41, 41));
    for (user, currency) in [(0, "EUR"), (19, "BTC"), (5_000, "EUR")] {
        let found = loader.load((user, currency.to_owned())).await.unwrap();
        assert_eq!(found.is_some(), user < 20);
    }
    assert_eq!(loader.statistics().store_keys, 41, "warm");

    let few = WarmOptions { query_max_keys: 7, ..options() };
    let warmed = loader.warm_query("SELECT user_id, currency FROM balances", few).await.unwrap();
    assert_eq!((warmed.keys, warmed.found), (7, 7));
    let by_user: Loader<i64, Arc<[Balance]>> = db.loader_by::<Balance>("user_id").cache(cache()).start();
    let rate = WarmOptions { batch: 5, per_second: Some(50), ..WarmOptions::default() };
    let warmed = by_user.warm_query("SELECT DISTINCT user_id FROM balances WHERE user_id < 20", rate).await;
    let warmed = warmed.unwrap();
    assert_eq!((warmed.keys, warmed.found), (20, 20));
    assert!(warmed.elapsed >= Duration::from_millis(300), "{:?}: fifty a second", warmed.elapsed);
    assert_eq!(by_user.load(3).await.unwrap().unwrap().len(), 3);
    assert_eq!(by_user.statistics().store_keys, 20);

    let missing = loader.warm_query("SELECT user_id FROM balances", options()).await.unwrap_err();
    assert_eq!((missing.kind(), missing.column()), (ErrorKind::MissingColumn, Some("currency")), "{missing}");
    assert!(loader.warm_query("SELECT nothing FROM nowhere", options()).await.is_err());
}

#[derive(Record, FromRow, Debug, PartialEq, Clone)]
#[record(table = "tickets")]
struct Ticket {
    #[record(key, generated)]
    id: Option<i64>,
    code: String,
    text: String,
}

/// The same rows, known by another column.
#[derive(Record, FromRow, Debug, PartialEq, Clone)]
#[record(table = "tickets")]
struct Coded {
    #[record(key)]
    code: String,
    text: String,
}

/// The same, by a record that says nothing of keys.
#[derive(Record, Debug)]
#[record(table = "tickets")]
struct Plain<'a> {
    id: i64,
    code: &'a str,
    text: &'a str,
}

/// Another program removes a row, and this one adds one with its keys: by a batch in which other keys are drawn, by a record without a key.
async fn a_row_that_comes_back_is_seen(url: &str) {
    let db = barge::open(url).await.unwrap();
    db.create_table::<Ticket>().await.unwrap();
    db.execute("CREATE UNIQUE INDEX tickets_code ON tickets(code)").await.unwrap();
    let ticket = |id, code: &str, text: &str| Ticket { id, code: code.to_owned(), text: text.to_owned() };
    let elsewhere = Database::over(Arc::clone(db.store()));
    let by_id: Loader<i64, Arc<Ticket>> = db.loader::<Ticket>().cache(cache()).start();
    let by_code: Loader<String, Arc<Coded>> = db.loader::<Coded>().cache(cache()).start();
    let texts = async || {
        let by_id = by_id.load(500).await.unwrap().map(|ticket| ticket.text.clone());
        let by_code = by_code.load("A".to_owned()).await.unwrap().map(|ticket| ticket.text.clone());
        (by_id, by_code)
    };
    assert_eq!(texts().await, (None, None));
    for way in 0..4 {
        db.insert_all(&[ticket(Some(500), "A", "old")]).await.unwrap();
        let old = Some("old".to_owned());
        assert_eq!(texts().await, (old.clone(), old.clone()), "{way}");
        elsewhere.execute("DELETE FROM tickets").await.unwrap();
        assert_eq!(texts().await, (old.clone(), old), "kept: nobody told of the removal");
        let (text, other) = (format!("new {way}"), format!("B{way}"));
        let writer = db.writer().start();
        match way {
            0 => {
                drop(writer.insert(&ticket(Some(500), "A", &text)).await.unwrap());
                drop(writer.insert(&ticket(None, &other, "")).await.unwrap());
            }
            1 => drop(writer.insert(&Plain { id: 500, code: "A", text: &text }).await.unwrap()),
            2 => drop(db.insert_all(&[Plain { id: 500, code: "A", text: &text }]).await.unwrap()),
            _ => {
                let mut tx = db.begin().await.unwrap();
                tx.insert_all(&[Plain { id: 500, code: "A", text: &text }]).await.unwrap();
                tx.commit().await.unwrap();
            }
        }
        writer.close().await.unwrap().into_result().unwrap();
        assert_eq!(texts().await, (Some(text.clone()), Some(text)), "{way}");
        db.execute("DELETE FROM tickets").await.unwrap();
    }
    // With a key that is drawn, known by its other column alone.
    db.insert_all(&[ticket(None, "A", "old")]).await.unwrap();
    assert_eq!(texts().await.1.as_deref(), Some("old"));
    elsewhere.execute("DELETE FROM tickets").await.unwrap();
    let writer = db.writer().start();
    drop(writer.insert(&ticket(None, "A", "drawn")).await.unwrap());
    writer.close().await.unwrap().into_result().unwrap();
    assert_eq!(texts().await.1.as_deref(), Some("drawn"));
}

#[derive(FromRow, Record, Debug)]
#[record(table = "readings")]
struct Reading {
    #[record(key)]
    id: i64,
    taken: chrono::NaiveDateTime,
}

/// What can't be read of one row is no other key's error.
async fn an_unreadable_row_is_its_keys_error_alone(url: &str) {
    let db = barge::open(url).await.unwrap();
    db.execute("CREATE TABLE readings(id BIGINT PRIMARY KEY, taken TIMESTAMP NOT NULL)").await.unwrap();
    let taken = chrono::DateTime::from_timestamp(1_700_000_000, 0).unwrap().naive_utc();
    db.insert_all(&(0..1_000).map(|id| Reading { id, taken }).collect::<Vec<_>>()).await.unwrap();
    let nonsense = if url.starts_with("sqlite") { "nonsense" } else { "infinity" };
    db.execute(format!("UPDATE readings SET taken = '{nonsense}' WHERE id IN (17, 402, 403)")).await.unwrap();
    let loader: Loader<i64, Arc<Reading>> = db.loader::<Reading>().cache(cache()).start();
    let answers = loader.load_each(0..1_000).await;
    let failed: Vec<usize> = (0..1_000).filter(|&id| answers[id].is_err()).collect();
    assert_eq!(failed, [17, 402, 403]);
    assert_eq!(answers[17].as_ref().unwrap_err().kind(), ErrorKind::InvalidValue);
    let read =
        |answer: &barge::Result<Option<Arc<Reading>>>| matches!(answer, Ok(Some(row)) if row.taken == taken);
    assert_eq!(answers.iter().filter(|answer| read(answer)).count(), 997);
    // One that fails over each of them, and one without.
    assert_eq!(loader.statistics().look_ups, 4);
    let error = loader.load_many([400, 401, 402]).await.unwrap_err();
    assert_eq!((error.table(), error.column(), error.row()), (Some("readings"), Some("taken"), Some(2)));
    let scope = loader.scope();
    scope.load(401).await.unwrap();
    assert_eq!(scope.load_many([400, 401, 402]).await.unwrap_err().row(), Some(2));
    let error = db.get_all::<Reading, _>(&[5, 4, 5, 17]).await.unwrap_err();
    assert_eq!((error.kind(), error.row()), (ErrorKind::InvalidValue, Some(3)));
    // Also where they are many.
    db.execute(format!("UPDATE readings SET taken = '{nonsense}' WHERE id % 10 = 3")).await.unwrap();
    let answers = loader.load_each(0..1_000).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 100 + 2);
    // Where none can be read, it is not found out of each.
    db.execute(format!("UPDATE readings SET taken = '{nonsense}'")).await.unwrap();
    let answers = loader.load_each(0..1_000).await;
    assert!(answers.iter().all(|answer| answer.is_err()));
    assert!(
        answers[999].as_ref().unwrap_err().to_string().contains("many of the rows"),
        "{:?}",
        answers[999]
    );
    assert!(loader.statistics().look_ups < 4 + 1 + 110 + 130, "{:?}", loader.statistics());
}

/// Readers of some keys, while one writer changes, adds and removes their rows.
async fn nothing_older_is_read_than_was_written(url: &str) {
    const KEYS: i64 = 5;
    let seed = rand::random::<u64>() >> 1;
    let (db, stop) = (filled(url, 0).await, Arc::new(AtomicBool::new(false)));
    let history = Arc::new(History::of(KEYS as usize));
    let mut readers = Vec::new();
    for reader in 0..4 {
        let loader = db.loader::<Balance>().cache(cache()).in_flight(1 + reader as usize % 2).start();
        let (history, stop) = (history.clone(), stop.clone());
        readers.push(tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed + reader);
            while !stop.load(Ordering::Relaxed) {
                let key = random.random_range(0..KEYS);
                let began = history.acknowledged(key);
                let found = loader.load((key, "EUR".to_owned())).await.unwrap().map(|row| row.amount);
                assert!(
                    history.allows(key, began, found),
                    "seed {seed}, key {key}: {found:?} is read after write {began} of {history:?}"
                );
                tokio::time::sleep(Duration::from_micros(random.random_range(0..500))).await;
            }
            loader.statistics().memory_hits
        }));
    }
    let mut random = StdRng::seed_from_u64(seed);
    let writer = db.writer().start();
    for amount in 0..120 {
        let (key, removes) = (random.random_range(0..KEYS), random.random_range(0..4) == 0);
        let row = balance(key, "EUR", amount);
        let place = history.write(key, (!removes).then_some(amount));
        match (removes, amount % 2) {
            (true, 0) => drop(db.delete_all(&[row]).await.unwrap()),
            (true, _) => drop(writer.delete(&row).await.unwrap().await.unwrap()),
            (false, 0) => drop(db.upsert_all(&[row]).await.unwrap()),
            (false, _) => drop(writer.upsert(&row).await.unwrap().await.unwrap()),
        }
        history.acknowledge(key, place);
        tokio::time::sleep(Duration::from_micros(random.random_range(0..4_000))).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut hits = 0;
    for reader in readers {
        hits += reader.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    }
    assert!(hits > 50, "{hits} hits: memory had little to do with it");
}

/// The tests over a store, each with a database of its own.
macro_rules! over {
    ($store:ident, $url:expr) => {
        mod $store {
            #[tokio::test]
            async fn rows_by_key_and_by_column() {
                let database = $url;
                super::rows_by_key_and_by_column(&database.1).await;
            }

            #[tokio::test]
            async fn a_row_that_comes_back_is_seen() {
                let database = $url;
                super::a_row_that_comes_back_is_seen(&database.1).await;
            }

            #[tokio::test]
            async fn an_unreadable_row_is_its_keys_error_alone() {
                let database = $url;
                super::an_unreadable_row_is_its_keys_error_alone(&database.1).await;
            }

            #[tokio::test]
            async fn a_query_warms() {
                let database = $url;
                super::a_query_warms(&database.1).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
            async fn nothing_older_is_read_than_was_written() {
                let database = $url;
                super::nothing_older_is_read_than_was_written(&database.1).await;
            }
        }
    };
}

fn in_file(scheme: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("{scheme}:{}", directory.path().join("a.db").display());
    (directory, url)
}

over!(sqlite, super::in_file("sqlite"));

#[cfg(feature = "postgres")]
over!(postgres, {
    let database = barge_testkit::servers::postgres().database();
    let url = database.url();
    (database, url)
});

#[cfg(feature = "duckdb")]
over!(duckdb, super::in_file("duckdb"));
