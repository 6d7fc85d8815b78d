//! A task store: thousands of tasks are queued, many workers report them done one by one, and the database sees a few
//! transactions.
//!
//! ```console
//! $ cargo run --example task_store -p barge
//! ```

#![allow(clippy::print_stdout)] // What an example has to say goes to the terminal.

use barge::record::batch_of;
use barge::{Database, ErrorKind, FromRow, Outcome, Record, Result, Statistics, Writer};
use chrono::{DateTime, Utc};
use serde_json::json;

const TASKS: i64 = 10_000;
const WORKERS: i64 = 8;

/// A row of the table `tasks`, to write and to read.
#[derive(Record, FromRow, Debug)]
#[record(table = "tasks")]
struct Task {
    #[record(key)]
    id: i64,
    task_type: String,
    status: String,
    data: serde_json::Value,
    /// Filled in where it is `None`, and never overwritten by an upsert.
    #[record(created_at)]
    created_at: Option<DateTime<Utc>>,
    /// Filled in where it is `None`, by every write.
    #[record(updated_at)]
    updated_at: Option<DateTime<Utc>>,
}

impl Task {
    fn pending(id: i64) -> Self {
        Task {
            id,
            task_type: if id % 3 == 0 { "email" } else { "invoice" }.into(),
            status: "PENDING".into(),
            data: json!({"attempt": 1, "customer": id % 100}),
            created_at: None,
            updated_at: None,
        }
    }
}

/// A partial update: the key, and the columns that change. The text is borrowed, so reporting a task done allocates nothing.
#[derive(Record)]
#[record(table = "tasks")]
struct TaskStatus<'a> {
    #[record(key)]
    id: i64,
    status: &'a str,
    #[record(updated_at)]
    updated_at: Option<DateTime<Utc>>,
}

impl<'a> TaskStatus<'a> {
    fn new(id: i64, status: &'a str) -> Self {
        TaskStatus { id, status, updated_at: None }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    run(&format!("sqlite:{}/tasks.db", directory.path().display())).await?;
    Ok(())
}

async fn run(url: &str) -> Result<()> {
    let db = barge::open(url).await?;
    db.create_table::<Task>().await?;

    // One writer for the whole program. It is cheap to clone, and takes rows of any table and any operation.
    let writer = db.writer().max_rows(1_000).start();
    queue(&writer).await?;
    complete(&writer).await?;
    receipts(&writer).await?;
    one_wrong_row(&writer).await?;

    // Closing flushes, and accounts for every row.
    let report = writer.close().await?;
    show(&report.statistics);
    assert_eq!((report.rejected.len(), report.rejected[0].row["id"].as_i64()), (1, Some(5)));
    // A report with a rejected row becomes an error here, so that a `?` can't pass over it.
    let error = report.into_result().expect_err("task 5 was queued twice");
    println!("into_result says: {error}");

    look_up(&db).await?;
    all_or_nothing(&db).await?;
    transaction(&db).await
}

/// Queues the tasks. Each `insert` returns when the row is in the buffer, and waits only while the buffer is full. The receipts
/// are dropped: the report at the end accounts for these rows.
async fn queue(writer: &Writer) -> Result<()> {
    for id in 0..TASKS {
        writer.insert(&Task::pending(id)).await?;
    }
    println!("queued {TASKS} tasks");
    Ok(())
}

/// Many workers finish tasks at the same time. Each of them says *this task is done* and waits for the answer; what
/// they say while a flush is under way leaves together in the next one.
async fn complete(writer: &Writer) -> Result<()> {
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..WORKERS {
        let writer = writer.clone();
        workers.spawn(async move {
            let mut receipts = Vec::new();
            for id in (worker..TASKS).step_by(WORKERS as usize) {
                receipts.push(writer.update(&TaskStatus::new(id, "COMPLETED")).await?);
            }
            let mut updated = 0;
            for receipt in receipts {
                updated += u64::from(receipt.await? == Outcome::Updated);
            }
            Result::<u64>::Ok(updated)
        });
    }
    let completed: u64 = workers.join_all().await.into_iter().sum::<Result<u64>>()?;
    assert_eq!(completed, TASKS as u64);
    println!("{WORKERS} workers completed {completed} tasks");
    Ok(())
}

/// A receipt, awaited, is the row's own outcome.
async fn receipts(writer: &Writer) -> Result<()> {
    let there = writer.upsert(&Task::pending(7)).await?;
    let new = writer.upsert(&Task::pending(TASKS)).await?;
    let nowhere = writer.update(&TaskStatus::new(-1, "COMPLETED")).await?;
    let outcomes = [there.await?, new.await?, nowhere.await?];
    println!("an upsert of a row that is there, of a new one, an update of none: {outcomes:?}");
    assert_eq!(outcomes, [Outcome::Updated, Outcome::Inserted, Outcome::NotFound]);
    Ok(())
}

/// A row that can't be written is answered alone. Those before and after it are written.
async fn one_wrong_row(writer: &Writer) -> Result<()> {
    let before = writer.insert(&Task::pending(TASKS + 1)).await?;
    let wrong = writer.insert(&Task::pending(5)).await?;
    let after = writer.insert(&Task::pending(TASKS + 2)).await?;
    assert_eq!((before.await?, after.await?), (Outcome::Inserted, Outcome::Inserted));
    let error = wrong.await.expect_err("task 5 is there already");
    println!("rejected alone: {error}");
    assert_eq!((error.kind(), error.table()), (ErrorKind::UniqueViolation, Some("tasks")));
    Ok(())
}

/// What batching saved: a commit and a statement a row is what the same calls would have cost without it. (SQLite applies an
/// update row by row, with one prepared statement and one commit a flush; its statements are counted so.)
fn show(statistics: &Statistics) {
    println!(
        "{} rows: {} committed, {} rejected; {} flushes of {:.0} rows on average; {} statements, {} round trips saved",
        statistics.added,
        statistics.committed,
        statistics.rejected,
        statistics.flushes,
        statistics.rows_per_batch(),
        statistics.statements,
        statistics.round_trips_saved,
    );
    // 10,000 inserts, as many updates, three rows with receipts, and three of which one is wrong.
    assert_eq!(statistics.added, 2 * TASKS as u64 + 6);
    assert_eq!((statistics.committed, statistics.rejected), (statistics.added - 1, 1));
    assert!(statistics.flushes < statistics.added && statistics.round_trips_saved > 0);
}

/// Many keys cost one statement. The rows come in the order of the keys, and `None` where there is no row.
async fn look_up(db: &Database) -> Result<()> {
    let found: Vec<Option<Task>> = db.get_all(&[9_999, -1, 7]).await?;
    let status = |task: &Option<Task>| task.as_ref().map(|task| task.status.clone());
    assert_eq!(status(&found[0]).as_deref(), Some("COMPLETED"));
    assert!(found[1].is_none());
    assert_eq!(status(&found[2]).as_deref(), Some("PENDING"), "the upsert queued it anew");
    if let Some(Task { task_type, data, created_at, updated_at, .. }) = &found[2] {
        println!("task 7, an {task_type} for customer {}, is queued again", data["customer"]);
        assert_ne!(created_at, updated_at, "an upsert leaves created_at as it was");
    }
    Ok(())
}

/// Rows at hand need no writer: one transaction, which writes all of them or none.
async fn all_or_nothing(db: &Database) -> Result<()> {
    let tasks = [Task::pending(20_000), Task::pending(20_001), Task::pending(5)];
    let error = db.insert_all(&tasks).await.expect_err("task 5 is there already");
    assert_eq!((error.kind(), error.row()), (ErrorKind::UniqueViolation, Some(2)));
    let found: Vec<Option<Task>> = db.get_all(&[20_000, 20_001]).await?;
    assert!(found.iter().all(Option::is_none));

    let written = db.insert_all(&tasks[..2]).await?;
    assert_eq!(written.count(Outcome::Inserted), 2);
    Ok(())
}

/// What came back from the transaction's own statement.
#[derive(FromRow)]
struct Reopened {
    id: i64,
    task_type: String,
}

/// Several operations in one transaction, one of them your own SQL over a batch. `{batch}` stands for the rows: their
/// columns, and `_ordinal`, each row's place.
async fn transaction(db: &Database) -> Result<()> {
    let reopened: Vec<TaskStatus<'_>> = (100..200).map(|id| TaskStatus::new(id, "PENDING")).collect();
    let batch = batch_of(&reopened)?;
    let sql = "SELECT t.id, t.task_type FROM {batch} AS b JOIN tasks AS t ON t.id = b.id \
               WHERE t.status = 'COMPLETED' ORDER BY b._ordinal";

    let mut tx = db.begin().await?;
    let written = tx.update_all(&reopened).await?;
    assert_eq!(written.count(Outcome::Updated), 100);
    let left = tx.over(&batch, sql).await?;
    assert_eq!(left.num_rows(), 0, "the transaction sees its own writes");
    drop(tx); // rolls back

    let mut tx = db.begin().await?;
    let rows = Reopened::from_batch(&tx.over(&batch, sql).await?)?;
    assert_eq!((rows.len(), rows[0].id), (100, 100), "the first transaction left nothing behind");
    tx.update_all(&reopened).await?;
    tx.commit().await?;
    let emails = rows.iter().filter(|row| row.task_type == "email").count();
    println!("reopened {} tasks in one transaction, {emails} of them emails", rows.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    #[tokio::test(flavor = "multi_thread")]
    async fn it_does_what_it_says() {
        let directory = tempfile::tempdir().unwrap();
        super::run(&format!("sqlite:{}/tasks.db", directory.path().display())).await.unwrap();
        super::run("sqlite::memory:").await.unwrap();
    }
}
