//! Barge moves rows between applications and databases in batches.
//!
//! Code goes on saying *insert this row*, *get that key*; Barge gathers such calls into batches, runs a fixed number of
//! statements a batch, never one a row, and hands every row its own outcome.
//!
//! ```
//! use barge::{FromRow, Outcome, Record};
//!
//! #[derive(Record, FromRow)]
//! #[record(table = "tasks")]
//! struct Task {
//!     #[record(key)]
//!     id: i64,
//!     task_type: String,
//!     status: String,
//! }
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
//! let db = barge::open("sqlite::memory:").await?;
//! db.create_table::<Task>().await?;
//!
//! let writer = db.writer().max_rows(1_000).start(); // one writer, any number of tables; cheap to clone and share
//! for id in 0..10_000 {
//!     let task = Task { id, task_type: "email".into(), status: "PENDING".into() };
//!     let _ = writer.insert(&task).await?; // buffered; waits while the buffer is full
//! }
//! let receipt = writer.update(&TaskDone { id: 7, status: "COMPLETED" }).await?;
//! assert_eq!(receipt.await?, Outcome::Updated); // this row's outcome, or its error
//! let report = writer.close().await?; // flushes, then accounts for every row
//! assert_eq!(report.into_result()?.committed, 10_001);
//!
//! let found: Vec<Option<Task>> = db.get_all(&[7, 99_999]).await?; // one statement, in the order of the keys
//! assert_eq!(found[0].as_ref().unwrap().status, "COMPLETED");
//! assert!(found[1].is_none());
//! # Ok(())
//! # }
//! ```
//!
//! # Where to go from here
//! - [`open`] a database, then [`Database::writer`] for rows that come one by one, [`Database::insert_all`] and its like for
//!   rows at hand, [`Database::begin`] for several operations in one transaction.
//! - [`Record`](derive@Record) and [`FromRow`](derive@FromRow) say what a row is.
//! - [`Batcher`] gathers requests of any kind, not only rows.

extern crate self as barge;

pub use arrow;
pub use barge_core::*;
#[cfg(feature = "sqlite")]
pub use barge_sqlite as sqlite;

/// The URL schemes that this build opens.
const SCHEMES: &[(&str, bool)] = &[("sqlite:", cfg!(feature = "sqlite"))];

/// Opens a database.
///
/// - `sqlite:PATH` or `sqlite:///PATH`: a file, made where it isn't there; `sqlite::memory:`: in memory. Settings follow a `?`,
///   for example `sqlite:tasks.db?profile=durable&busy_timeout=10s`: see [`sqlite::SqliteOptions`].
///
/// # Errors
/// `InvalidConfig` for an unknown scheme or setting; `Unsupported` for a store that this build leaves out; `Permission`, `Io` or
/// `Busy` where the database can't be opened.
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
    if let Some((scheme, _)) = SCHEMES.iter().find(|(scheme, built)| !built && url.starts_with(scheme)) {
        let name = scheme.trim_end_matches(':');
        let message =
            format!("{scheme} needs the feature `{name}` of the crate `barge`, which this build leaves out");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let known: Vec<&str> = SCHEMES.iter().filter(|(_, built)| *built).map(|(scheme, _)| *scheme).collect();
    // A password may stand in the URL, so only the scheme is repeated.
    let scheme = url.split_once(':').map_or(url, |(scheme, _)| scheme);
    let message = format!("the database URL begins with '{scheme}'; this build opens {}", known.join(", "));
    Err(Error::new(ErrorKind::InvalidConfig, message))
}
