//! Barge moves rows between applications and databases in batches.
//!
//! Code goes on saying *insert this row*, *get that key*; Barge gathers such calls into batches, writes each in one
//! transaction, by statements over the whole batch instead of one a row, and hands every row its own outcome.
//!
//! ```
//! use barge::record::batch_of;
//! use barge::Direction::Descending;
//! use barge::{FromRow, LookUpBy, Outcome, Record};
//! use chrono::{DateTime, Utc};
//!
//! #[derive(Record, FromRow)]
//! #[record(table = "tasks")]
//! struct Task {
//!     #[record(key)]
//!     id: i64,
//!     task_type: String,
//!     status: String,
//!     data: serde_json::Value,
//!     #[record(created_at)]
//!     created_at: Option<DateTime<Utc>>, // filled by the writer where it is None; never overwritten by an upsert
//! }
//! # impl Task {
//! #     fn new(id: i64) -> Self {
//! #         Task { id, task_type: "email".into(), status: "PENDING".into(), data: serde_json::json!({}), created_at: None }
//! #     }
//! # }
//!
//! /// A partial update: the key, and the columns that change. Fields may be borrowed.
//! #[derive(Record)]
//! #[record(table = "tasks")]
//! struct TaskDone<'a> {
//!     #[record(key)]
//!     id: i64,
//!     status: &'a str,
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> barge::Result<()> {
//! let db = barge::open("sqlite::memory:").await?; // or sqlite:tasks.db
//! db.create_table::<Task>().await?;
//! # let tasks: Vec<Task> = (0..5_000).map(Task::new).collect();
//! # let more_tasks: Vec<Task> = (5_000..6_000).map(Task::new).collect();
//! # let one_more = Task::new(7);
//!
//! // Rows that come one by one go through a writer. One takes any number of tables, and is cheap to clone and share.
//! let writer = db.writer().max_rows(1_000).start();
//! for task in &tasks {
//!     writer.insert(task).await?; // buffered; waits while the buffer is full
//! }
//! let receipt = writer.upsert(&one_more).await?;
//! assert_eq!(receipt.await?, Outcome::Updated); // a receipt: this row's outcome, or its error
//! writer.update(&TaskDone { id: 7, status: "COMPLETED" }).await?;
//! let report = writer.close().await?; // flushes, then accounts for every row
//! let numbers = report.into_result()?; // Err if any row was rejected
//! assert_eq!(numbers.committed, 5_002);
//!
//! // Rows at hand: one transaction, all or nothing. So upsert_all, update_all, delete_all.
//! db.insert_all(&more_tasks).await?;
//!
//! // Look-ups: one statement, in the order of the keys.
//! let found: Vec<Option<Task>> = db.get_all(&[7, 99_999]).await?;
//! assert_eq!(found[0].as_ref().map(|task| task.status.as_str()), Some("COMPLETED"));
//! assert!(found[1].is_none());
//!
//! // By other columns: all rows of each key, or so many in an order. Large results stream: `look_up`.
//! let newest = LookUpBy::from("status").order_by("created_at", Descending).limit(10);
//! let found: Vec<Vec<Task>> = db.get_by(newest, &["PENDING", "COMPLETED", "LOST"]).await?;
//! assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [10, 1, 0]);
//!
//! // Several operations in one transaction, your own SQL over a batch among them. Dropping it rolls back.
//! let done: Vec<TaskDone> = (100..200).map(|id| TaskDone { id, status: "COMPLETED" }).collect();
//! let batch = batch_of(&done)?;
//! let mut tx = db.begin().await?;
//! tx.update_all(&done).await?;
//! let rows = tx.over(&batch, "SELECT b._ordinal, t.* FROM {batch} AS b JOIN tasks t ON t.id = b.id").await?;
//! tx.commit().await?;
//! assert_eq!(Task::from_batch(&rows)?.len(), 100);
//! # Ok(())
//! # }
//! ```
//!
//! # Where to go from here
//! - [`open`] a database, then [`Database::writer`] for rows that come one by one, [`Database::insert_all`] and its like for
//!   rows at hand, [`Database::begin`] for several operations in one transaction.
//! - [`Database::get_all`] and [`Database::get_by`] read rows by key and by other columns; [`LookUpBy`] says in which order and how many of each key.
//! - [`Database::loader`] looks keys up together that many tasks ask for one by one, and keeps their rows in a [`Cache`]; [`Loader`] says what is promised of them.
//! - [`Writer`] says when rows are flushed, what happens to a row that fails, and what closing and dropping do.
//! - [`Statistics`] are the numbers of a writer; the same go to the [`metrics`](https://docs.rs/metrics) facade.
//! - [`Batcher`] gathers requests of any kind, not only rows.
//! - The examples `task_store`, `audit_log` and `backtest_trades` are whole programs, and so is `exchange_reads`: `cargo run --example task_store -p barge`.
//!
//! # What a row is
//! A struct with named fields, each the column of its name. [`Record`](derive@Record) lets it be written,
//! [`FromRow`](derive@FromRow) lets it be read, and an enum with [`TextEnum`](derive@TextEnum) is a column of text; their
//! pages list the attributes. A record may have fewer columns than its table: an update then sets those alone, an insert
//! leaves the others to their defaults. A record without a key can be inserted; update, upsert, delete and look-up need
//! one. `Option` stands for NULL.

extern crate self as barge;

pub use arrow;
pub use barge_core::*;
#[cfg(feature = "duckdb")]
pub use barge_duckdb as duckdb;
#[cfg(feature = "postgres")]
pub use barge_postgres as postgres;
#[cfg(feature = "redis")]
pub use barge_redis as redis;
#[cfg(feature = "sqlite")]
pub use barge_sqlite as sqlite;

/// The schemes of URLs, the feature that opens each, and whether this build has it.
const SCHEMES: &[(&str, &str, bool)] = &[
    ("duckdb:", "duckdb", cfg!(feature = "duckdb")),
    ("postgres:", "postgres", cfg!(feature = "postgres")),
    ("postgresql:", "postgres", cfg!(feature = "postgres")),
    ("sqlite:", "sqlite", cfg!(feature = "sqlite")),
];

/// Opens a database.
///
/// - `sqlite:PATH` or `sqlite:///PATH`: a file, made where it isn't there; `sqlite::memory:`: in memory. Settings follow a `?`,
///   for example `sqlite:tasks.db?profile=durable&busy_timeout=10s`: see [`sqlite::SqliteOptions`].
/// - `postgres://USER@HOST:PORT/DATABASE`: a server. What the URL leaves out comes from the environment (`PGHOST`, `PGUSER` and the others
///   that libpq knows) and from `.pgpass`. Settings follow a `?`, for example
///   `postgres://app@db.example.com/shop?sslmode=verify-full&pool_size=20`: see [`postgres::PostgresOptions`].
/// - `duckdb:PATH` or `duckdb::memory:`, as for SQLite, where the feature `duckdb` is on. Settings follow a `?`, for example
///   `duckdb:market.duckdb?set.memory_limit=4GB`.
///
/// # Errors
/// `InvalidConfig` for an unknown scheme or setting; `Unsupported` for a store that this build leaves out; `Permission`, `Io`,
/// `Busy` or `ConnectionLost` where the database can't be opened.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> barge::Result<()> {
/// let db = barge::open("sqlite::memory:").await?;
/// assert!(db.tables().await?.is_empty());
///
/// let error = barge::open("oracle://host/db").await.unwrap_err();
/// assert_eq!(error.kind(), barge::ErrorKind::InvalidConfig);
/// # Ok(())
/// # }
/// ```
pub async fn open(url: &str) -> Result<Database> {
    #[cfg(feature = "sqlite")]
    if url.starts_with("sqlite:") {
        return Ok(Database::new(sqlite::SqliteStore::open(url).await?));
    }
    #[cfg(feature = "duckdb")]
    if url.starts_with("duckdb:") {
        return Ok(Database::new(duckdb::DuckDbStore::open(url).await?));
    }
    #[cfg(feature = "postgres")]
    if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        return Ok(Database::new(postgres::PostgresStore::open(url).await?));
    }
    if let Some((scheme, name, _)) =
        SCHEMES.iter().find(|(scheme, _, built)| !built && url.starts_with(scheme))
    {
        let message =
            format!("{scheme} needs the feature `{name}` of the crate `barge`, which this build leaves out");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let known: Vec<&str> = SCHEMES.iter().filter(|(.., built)| *built).map(|(scheme, ..)| *scheme).collect();
    // A password may stand in the URL, so only the scheme is repeated.
    let scheme = url.split_once(':').map_or(url, |(scheme, _)| scheme);
    let message = format!("the database URL begins with '{scheme}'; this build opens {}", known.join(", "));
    Err(Error::new(ErrorKind::InvalidConfig, message))
}

// The README's program, compiled and run with the documentation tests.
#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
