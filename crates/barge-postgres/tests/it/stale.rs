//! Tables that changed after they were described: what is answered is true all the same.

use std::sync::Arc;

use arrow::datatypes::DataType::{Int64, Utf8};
use barge_core::Operation::{self, Insert, InsertIfAbsent, Upsert};
use barge_core::{Database, ErrorKind, FromRow, Outcome, Record, Table};
use barge_postgres::PostgresStore;

use crate::support::{Fresh, batch, words};

/// A trigger on `t` that keeps out rows whose `n` is a multiple of 100.
const KEEP_OUT: [&str; 2] = [
    "CREATE FUNCTION keep_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
     IF new.n % 100 = 0 THEN RETURN NULL; END IF; RETURN new; END $$",
    "CREATE TRIGGER keep_out BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION keep_out()",
];

#[derive(Clone, Debug, Record)]
#[record(table = "t")]
struct Row {
    n: i64,
    place: String,
}

fn rows(numbers: std::ops::Range<i64>) -> Vec<Row> {
    numbers.map(|n| Row { n, place: "10.0.0.1".to_owned() }).collect()
}

/// Some of the rows are kept out, and nothing tells which: every receipt says so, the counts are right, and no row comes twice. Then the table is
/// described anew.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_new_trigger_keeps_out_are_not_said_to_be_there() {
    // Which go by COPY, and which don't: for the type, or for their number.
    for (place, count) in [("inet", 250), ("inet", 7), ("text", 250), ("text", 7)] {
        let fresh = Fresh::with(&[&format!("CREATE TABLE t(n bigint, place {place})")]).await;
        let writer = fresh.db.writer().start();
        writer.insert(&rows(1..2)[0]).await.unwrap().await.unwrap();
        for sql in KEEP_OUT {
            fresh.run(sql).await;
        }
        let what = format!("{count} rows, {place}");
        // Of both kinds; each alone; then the table is known again.
        for (first, known) in [(1_000, false), (2_000, true)] {
            let sent = rows(first..first + count);
            let schema = barge_core::record::batch_of(&sent).unwrap();
            let table = Arc::new(Row::table().clone());
            let answers = writer.add_batch(&table, Insert, &schema).await.unwrap().outcomes().await;
            let there =
                fresh.rows(&format!("SELECT count(*), count(DISTINCT n) FROM t WHERE n >= {first}")).await;
            let written = (first..first + count).filter(|n| n % 100 != 0).count();
            assert_eq!(there, [format!("{written}|{written}")], "{what}");
            for (row, answer) in sent.iter().zip(&answers) {
                match answer {
                    Ok(outcome) if known => {
                        let expected = if row.n % 100 == 0 { Outcome::Unchanged } else { Outcome::Inserted };
                        assert_eq!(*outcome, expected, "{what}");
                    }
                    Err(error) if !known => {
                        assert_eq!(error.kind(), ErrorKind::Unsupported, "{what}: {error:?}");
                        assert!(error.message().contains(&format!("{written} of {count} rows were written")));
                    }
                    answer => panic!("{what}: {answer:?}"),
                }
            }
        }
        // One that is kept out, and one that is not, are known by their number.
        let statistics = writer.close().await.unwrap().statistics;
        assert_eq!((statistics.rejected, statistics.retries), (0, 0), "{what}: {statistics:?}");
        let kept_out = (1_000..1_000 + count).filter(|n| n % 100 == 0).count() as u64;
        assert_eq!(statistics.without_effect, 2 * kept_out, "{what}: {statistics:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_liners_over_a_new_trigger_say_what_was_written() {
    for place in ["inet", "text"] {
        let fresh = Fresh::with(&[&format!("CREATE TABLE t(n bigint, place {place})")]).await;
        // Through another database, so that this one remembers the table as it was.
        let db = Database::new(PostgresStore::open(&fresh.url()).await.unwrap());
        db.insert_all(&rows(1..2)).await.unwrap();
        for sql in KEEP_OUT {
            fresh.run(sql).await;
        }
        let mut tx = db.begin().await.unwrap();
        let written = tx.insert_all(&rows(99..302)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(
            (written.count(Outcome::Unchanged), written.count(Outcome::Inserted)),
            (3, 200),
            "{place}"
        );
        let error = db.insert_all(&rows(1_000..1_003)).await.unwrap_err();
        assert!(error.message().contains("2 of 3 rows were written and committed"), "{place}: {error:?}");
        assert!(!error.is_retryable());
        let written = db.insert_all(&rows(2_000..2_003)).await.unwrap();
        assert_eq!(written.outcomes(), [Outcome::Unchanged, Outcome::Inserted, Outcome::Inserted], "{place}");
        let counts = "SELECT count(*), count(DISTINCT n) FROM t";
        assert_eq!(fresh.rows(counts).await, ["205|205"], "{place}");
    }
}

/// Before COMMIT nothing is lost by going row by row.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_trigger_that_changes_keys_is_noticed() {
    let fresh = Fresh::with(&["CREATE TABLE mails(id text PRIMARY KEY, n bigint)"]).await;
    let columns = [("id", Utf8), ("n", Int64)];
    let writer = fresh.db.writer().start();
    let write = async |operation: Operation, keys: &[&str]| {
        let rows: Vec<[Option<&str>; 2]> = keys.iter().map(|key| [Some(*key), Some("1")]).collect();
        let rows: Vec<&[Option<&str>]> = rows.iter().map(|row| &row[..]).collect();
        let batch = batch(&columns, &rows);
        let table = Arc::new(Table::of_schema("mails", &batch.schema(), &["id"]).unwrap());
        words(&writer.add_batch(&table, operation, &batch).await.unwrap().outcomes().await)
    };
    assert_eq!(write(Upsert, &["a"]).await, ["Inserted"]);
    assert_eq!(write(InsertIfAbsent, &["a"]).await, ["Unchanged"]);
    fresh
        .run(
            "CREATE FUNCTION lower_key() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN NEW.id := lower(NEW.id); RETURN NEW; END $$",
        )
        .await;
    fresh.run("CREATE TRIGGER low BEFORE INSERT ON mails FOR EACH ROW EXECUTE FUNCTION lower_key()").await;
    assert_eq!(write(Upsert, &["A", "B"]).await, ["Updated", "Inserted"]);
    assert_eq!(write(InsertIfAbsent, &["B", "C"]).await, ["Unchanged", "Inserted"]);
    // The trigger is known by now.
    assert_eq!(fresh.db.describe(&"mails".into()).await.unwrap().triggers, ["low"]);
    assert_eq!(write(InsertIfAbsent, &["C", "D", "d"]).await, ["Unchanged", "Inserted", "Unchanged"]);
    assert_eq!(fresh.rows("SELECT id FROM mails ORDER BY id").await, ["a", "b", "c", "d"]);
}

#[derive(Clone, Debug, PartialEq, Record, FromRow)]
#[record(table = "words")]
struct Word {
    #[record(key)]
    id: i64,
    word: String,
}

#[derive(Clone, Debug, PartialEq, Record, FromRow)]
#[record(table = "words")]
struct Counted {
    #[record(key)]
    id: i64,
    n: i64,
}

fn word(id: i64, word: &str) -> Word {
    Word { id, word: word.to_owned() }
}

/// A look-up in a transaction that changed the table sees it so, and nobody else does before its commit.
#[tokio::test(flavor = "multi_thread")]
async fn look_ups_see_what_their_transaction_changed() {
    let fresh = Fresh::with(&["CREATE TABLE words(id bigint PRIMARY KEY, word text)"]).await;
    let db = &fresh.db;
    db.insert_all(&[word(1, "a")]).await.unwrap();
    assert_eq!(db.get_all::<Word, _>(&[1]).await.unwrap(), [Some(word(1, "a"))]);
    for commits in [false, true] {
        let mut tx = db.begin().await.unwrap();
        assert_eq!(tx.get_all::<Word, _>(&[1]).await.unwrap(), [Some(word(1, "a"))]);
        tx.execute("ALTER TABLE words ADD COLUMN n bigint NOT NULL DEFAULT 3").await.unwrap();
        assert_eq!(tx.get_all::<Counted, _>(&[1]).await.unwrap(), [Some(Counted { id: 1, n: 3 })]);
        match commits {
            true => tx.commit().await.unwrap(),
            false => tx.rollback().await.unwrap(),
        }
        let found = db.get_all::<Counted, _>(&[1]).await;
        match commits {
            true => assert_eq!(found.unwrap(), [Some(Counted { id: 1, n: 3 })]),
            false => assert_eq!(found.unwrap_err().kind(), ErrorKind::MissingColumn),
        }
        assert_eq!(db.get_all::<Word, _>(&[1]).await.unwrap(), [Some(word(1, "a"))]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_see_what_somebody_else_changed() {
    let fresh = Fresh::with(&["CREATE TABLE words(id bigint PRIMARY KEY, word text)"]).await;
    let db = Database::new(PostgresStore::open(&fresh.url()).await.unwrap());
    db.insert_all(&[word(1, "10.0.0.1")]).await.unwrap();
    assert_eq!(db.get_all::<Word, _>(&[1]).await.unwrap(), [Some(word(1, "10.0.0.1"))]);
    fresh.run("ALTER TABLE words ADD COLUMN n bigint NOT NULL DEFAULT 3").await;
    let mut tx = db.begin().await.unwrap();
    assert_eq!(tx.get_all::<Counted, _>(&[1]).await.unwrap(), [Some(Counted { id: 1, n: 3 })]);
    assert_eq!(tx.get_all::<Word, _>(&[1]).await.unwrap(), [Some(word(1, "10.0.0.1"))]);
    tx.commit().await.unwrap();
    // inet is read as text, which has to be asked for.
    let inet = "ALTER TABLE words ALTER COLUMN word TYPE inet USING word::inet";
    fresh.run(inet).await;
    assert_eq!(db.get_all::<Word, _>(&[1]).await.unwrap(), [Some(word(1, "10.0.0.1/32"))]);
    let text = "ALTER TABLE words ALTER COLUMN word TYPE text USING 'was ' || host(word)";
    fresh.run(text).await;
    fresh.run("ALTER TABLE words ALTER COLUMN id TYPE text").await;
    let mut tx = db.begin().await.unwrap();
    assert_eq!(tx.get_all::<Word, _>(&[1]).await.unwrap(), [Some(word(1, "was 10.0.0.1"))]);
    tx.commit().await.unwrap();
    fresh.run("DROP TABLE words").await;
    assert_eq!(db.get_all::<Word, _>(&[1]).await.unwrap_err().kind(), ErrorKind::MissingTable);
}

/// `over` changes tables as `execute` does.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_over_changes_are_described_anew() {
    let fresh = Fresh::with(&["CREATE TABLE words(id bigint PRIMARY KEY, word text)"]).await;
    let db = &fresh.db;
    db.insert_all(&[word(1, "a")]).await.unwrap();
    let given = barge_core::record::batch_of(&[word(5, "five"), word(6, "six")]).unwrap();
    #[derive(Clone, Debug, PartialEq, Record, FromRow)]
    #[record(table = "made")]
    struct Made {
        id: i64,
        word: String,
    }
    let mut tx = db.begin().await.unwrap();
    tx.over(&given, "ALTER TABLE words ADD COLUMN n bigint NOT NULL DEFAULT 3").await.unwrap();
    tx.insert_all(&[Counted { id: 2, n: 4 }]).await.unwrap();
    let made = tx.over(&given, "CREATE TABLE made AS SELECT b.id, b.word FROM {batch} AS b").await.unwrap();
    assert_eq!(made.num_columns(), 0);
    tx.insert_all(&[Made { id: 7, word: "seven".to_owned() }]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(fresh.rows("SELECT id FROM made ORDER BY id").await, ["5", "6", "7"]);
    db.insert_all(&[Counted { id: 3, n: 5 }]).await.unwrap();
    db.insert_all(&[Made { id: 8, word: "eight".to_owned() }]).await.unwrap();
    assert_eq!(db.get_all::<Counted, _>(&[2, 3]).await.unwrap().iter().flatten().count(), 2);
}
