//! Loaders over real stores. Here over SQLite, where a removed row's key is drawn again and keys may be equal that differ; over each in `stores`.
//!
//! Needs PostgreSQL's programs, and with the feature `duckdb` its library.

// The helpers of the tests may unwrap as the tests do.
#![allow(clippy::unwrap_used)]
#![cfg(feature = "sqlite")]

mod stores;

use std::sync::Arc;
use std::time::Duration;

use barge::{Cache, Database, FromRow, Loader, Record};

const TTL: Duration = Duration::from_secs(600);

#[derive(Record, FromRow, Debug, PartialEq, Clone)]
#[record(table = "notes")]
struct Note {
    #[record(key, generated)]
    id: Option<i64>,
    text: String,
}

#[derive(Record, FromRow, Debug, PartialEq, Clone)]
#[record(table = "users")]
struct User {
    #[record(key)]
    name: String,
    age: i64,
}

/// One file, through two databases: what the one writes the other isn't told.
async fn twice(create: &str) -> (Database, Database, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("a.db").display());
    let here = barge::open(&url).await.unwrap();
    here.execute(create).await.unwrap();
    (here, barge::open(&url).await.unwrap(), directory)
}

fn note(text: &str) -> Note {
    Note { id: None, text: text.to_owned() }
}

/// How a row is added: all at once, by a writer whose receipt is awaited, and by one where nobody waits for the key.
async fn add(db: &Database, way: usize, text: &str) {
    let writer = db.writer().start();
    match way {
        0 => drop(db.insert_all(&[note(text)]).await.unwrap()),
        1 => drop(writer.insert(&note(text)).await.unwrap().await.unwrap()),
        _ => drop(writer.insert(&note(text)).await.unwrap()),
    }
    let _ = writer.close().await.unwrap();
}

#[tokio::test]
async fn a_key_that_is_drawn_again_gives_the_new_row() {
    let (here, there, _directory) =
        twice("CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT NOT NULL)").await;
    let loader: Loader<i64, Arc<Note>> = here.loader::<Note>().cache(Cache::new(TTL)).start();
    let text = async |key: i64| loader.load(key).await.unwrap().map(|note| note.text.clone());
    assert_eq!(text(1).await, None, "it hears of writes from here on");
    for way in 0..3 {
        add(&here, way, &format!("old {way}")).await;
        assert_eq!(text(1).await, Some(format!("old {way}")));
        there.execute("DELETE FROM notes").await.unwrap();
        assert_eq!(text(1).await, Some(format!("old {way}")), "kept: nobody told of the removal");
        add(&here, way, &format!("new {way}")).await;
        assert_eq!(text(1).await, Some(format!("new {way}")));
        here.execute("DELETE FROM notes").await.unwrap();
    }
}

/// Another process found no row under keys that the database draws here, and said so in the cache they share.
#[tokio::test]
async fn a_key_that_is_drawn_has_its_row_whatever_others_say() {
    let (there, here, _directory) =
        twice("CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT NOT NULL)").await;
    let tier = barge_testkit::MemoryTier::new();
    let start = |db: &Database| {
        let cache = Cache::new(TTL).absent(TTL).entries(0).shared(Arc::new(tier.another()));
        db.loader::<Note>().cache(cache).start::<i64>()
    };
    let (own, other) = (start(&here), start(&there));
    assert!(own.load(99).await.unwrap().is_none(), "it hears of writes from here on");
    assert!(other.load_many(1..10).await.unwrap().iter().all(Option::is_none));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = tier.snapshot();
    assert!(own.load(1).await.unwrap().is_none() && own.statistics().shared_hits == 1);
    for (way, key) in (1..=3).enumerate() {
        add(&here, way, &format!("note {key}")).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        tier.restore(&before);
        assert!(own.load(key).await.unwrap().is_some(), "way {way}");
    }
    assert_eq!(own.statistics().shared_hits, 1);
}

#[tokio::test]
async fn a_write_drops_every_spelling_of_a_key() {
    let (here, there, _directory) =
        twice("CREATE TABLE users(name TEXT PRIMARY KEY COLLATE NOCASE, age INTEGER NOT NULL)").await;
    let user = |name: &str, age| User { name: name.to_owned(), age };
    here.insert_all(&[user("Ada", 36)]).await.unwrap();
    let loader: Loader<String, Arc<User>> = here.loader::<User>().cache(Cache::new(TTL)).start();
    let age = async |name: &str| loader.load(name.to_owned()).await.unwrap().map(|user| user.age);
    for name in ["Ada", "ada", "ADA"] {
        assert_eq!(age(name).await, Some(36));
    }
    here.upsert_all(&[user("ada", 37)]).await.unwrap();
    for name in ["Ada", "ada", "ADA"] {
        assert_eq!(age(name).await, Some(37));
    }
    there.upsert_all(&[user("ada", 38)]).await.unwrap();
    loader.clear(&"Ada".to_owned());
    assert_eq!((age("Ada").await, age("ADA").await), (Some(38), Some(37)), "a spelling alone");
    loader.clear_all();
    assert_eq!(age("ADA").await, Some(38));
}

/// A column of numbers finds rows by other spellings of them than their own.
#[tokio::test]
async fn a_row_that_was_found_by_another_spelling_is_not_kept_under_it() {
    let (here, _there, _directory) =
        twice("CREATE TABLE users(name NUMERIC PRIMARY KEY, age INTEGER NOT NULL)").await;
    here.execute("INSERT INTO users VALUES (1, 36)").await.unwrap();
    let loader: Loader<i64, Arc<Numbered>> = here.loader::<Numbered>().cache(Cache::new(TTL)).start();
    let by_text: Loader<String, Arc<User>> = here.loader::<User>().cache(Cache::new(TTL)).start();
    let age = async |name: &str| by_text.load(name.to_owned()).await.unwrap().map(|user| user.age);
    for age_now in [36, 37, 38] {
        assert_eq!(loader.load(1).await.unwrap().map(|user| user.age), Some(age_now));
        for name in ["1", "01", "1.0"] {
            assert_eq!(age(name).await, Some(age_now), "{name}");
        }
        here.upsert_all(&[Numbered { name: 1, age: age_now + 1 }]).await.unwrap();
    }
}

#[derive(Record, FromRow, Debug, PartialEq, Clone)]
#[record(table = "users")]
struct Numbered {
    #[record(key)]
    name: i64,
    age: i64,
}

/// Where the table has no primary key, its record's is the one that an insert names.
#[tokio::test]
async fn an_insert_into_a_table_without_a_primary_key_drops_its_own_keys_alone() {
    let (here, _there, _directory) =
        twice("CREATE TABLE users(name TEXT NOT NULL UNIQUE, age INTEGER NOT NULL)").await;
    let user = |name: &str| User { name: name.to_owned(), age: 36 };
    here.insert_all(&[user("Ada")]).await.unwrap();
    let loader: Loader<String, Arc<User>> = here.loader::<User>().cache(Cache::new(TTL)).start();
    for name in ["Bob", "Cy", "Dee"] {
        assert!(loader.load("Ada".to_owned()).await.unwrap().is_some());
        assert!(loader.load(name.to_owned()).await.unwrap().is_none());
        here.insert_all(&[user(name)]).await.unwrap();
        assert!(loader.load(name.to_owned()).await.unwrap().is_some());
    }
    assert_eq!(loader.statistics().store_keys, 1 + 6);
}

/// A transaction that changes settings, sets points to come back to or only reads is no reason to read everything anew.
#[tokio::test]
async fn statements_that_change_no_rows_drop_nothing() {
    let (here, _there, _directory) =
        twice("CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT NOT NULL)").await;
    add(&here, 0, "kept").await;
    let loader: Loader<i64, Arc<Note>> = here.loader::<Note>().cache(Cache::new(TTL)).start();
    let look_ups = async || {
        assert!(loader.load(1).await.unwrap().is_some());
        loader.statistics().look_ups
    };
    assert_eq!((look_ups().await, look_ups().await), (1, 1));
    let mut tx = here.begin().await.unwrap();
    for statement in [
        "SAVEPOINT here",
        "WITH n AS (SELECT count(*) AS n FROM notes) SELECT n FROM n",
        "ROLLBACK TO here",
        "RELEASE here",
        "EXPLAIN DELETE FROM notes",
    ] {
        tx.execute(statement).await.unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(look_ups().await, 1, "nothing was changed");
    let mut tx = here.begin().await.unwrap();
    let add = "WITH n AS (SELECT 2 AS id) INSERT INTO notes SELECT id, 'new' FROM n";
    tx.execute(add).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(look_ups().await, 2, "and here it was");
}
