//! An audit log: events gather, and are flushed every N records, every T seconds, and on shutdown.
//!
//! ```console
//! $ cargo run --example audit_log -p barge
//! $ cargo run --example audit_log -p barge -- --records 100000 --to sqlite:audit.db
//! ```
//!
//! It ends by itself after three seconds, or after so many records, or with Ctrl-C or SIGTERM; either way every event is accounted for.

#![allow(clippy::print_stdout)] // What an example has to say goes to the terminal.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use barge::{Database, ErrorKind, FlushReason, FromRow, Outcome, Record, Report, TextEnum, Writer};
use chrono::{DateTime, Utc};
use serde_json::json;

/// Flush every N records …
const FLUSH_ROWS: usize = 500;
/// … and every T seconds, counted from the first record that waits.
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);
/// How long a shutdown may take before what is still buffered goes to the dead letter file.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);

/// What happened. The fields are borrowed: an event is gone once its values are in the buffer.
#[derive(Record)]
#[record(table = "audit_log")]
struct Event<'a> {
    /// Drawn by the database where it is `None`, and told on the receipt.
    #[record(key, generated)]
    id: Option<i64>,
    /// When it happened, by the clock of whoever saw it.
    at: DateTime<Utc>,
    actor: &'a str,
    action: Action,
    details: serde_json::Value,
    /// When its batch left the buffer.
    #[record(created_at)]
    written_at: Option<DateTime<Utc>>,
}

/// Stored as text: `LOGGED_IN`, `READ`, …
#[derive(TextEnum, Clone, Copy, Debug, PartialEq)]
#[text(rename_all = "SCREAMING_SNAKE_CASE")]
enum Action {
    LoggedIn,
    Read,
    Changed,
}

/// A table of one's own can say more than `create_table` does: here, that every event has an actor, and that nothing is ever
/// changed or removed.
const TABLE: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS audit_log(
        id INTEGER NOT NULL PRIMARY KEY,
        at TEXT NOT NULL,
        actor TEXT NOT NULL CONSTRAINT has_actor CHECK (actor <> ''),
        action TEXT NOT NULL,
        details TEXT NOT NULL,
        written_at TEXT NOT NULL)",
    "CREATE TRIGGER IF NOT EXISTS audit_log_no_update BEFORE UPDATE ON audit_log
     BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
    "CREATE TRIGGER IF NOT EXISTS audit_log_no_delete BEFORE DELETE ON audit_log
     BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
];

struct Options {
    url: String,
    dead_letter: PathBuf,
    /// How many events to write; `None` goes on until the shutdown.
    records: Option<u64>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut options = Options {
        url: format!("sqlite:{}/audit.db", directory.path().display()),
        dead_letter: directory.path().join("rejected.jsonl"),
        records: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--records" => options.records = Some(value()?.parse().context("--records needs a number")?),
            "--to" => options.url = value()?,
            "--dead-letter" => options.dead_letter = value()?.into(),
            _ => bail!("usage: audit_log [--records N] [--to URL] [--dead-letter FILE]"),
        }
    }
    run(&options, shutdown()).await
}

/// Ends at Ctrl-C, at SIGTERM, or after three seconds.
async fn shutdown() -> &'static str {
    #[cfg(unix)]
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        _ = tokio::signal::ctrl_c() => "Ctrl-C",
        _ = terminated => "SIGTERM",
        () = tokio::time::sleep(Duration::from_secs(3)) => "three seconds are over",
    }
}

/// Writes events until there are enough of them or `shutdown` ends. Whoever calls owns the signals; a test passes its own.
async fn run(options: &Options, shutdown: impl Future<Output = &'static str>) -> anyhow::Result<()> {
    let db = barge::open(&options.url).await?;
    for statement in TABLE {
        db.execute(statement).await?;
    }
    let (events_before, letters_before) = (count(&db).await?, lines(&options.dead_letter)?);

    // With a linger, a flush waits for more rows, and starts at `max_rows`, or when the first row has waited so long.
    // `try_start`, because the path of the dead letter file comes from outside and may not be writable.
    let writer = db
        .writer()
        .max_rows(FLUSH_ROWS)
        .linger(FLUSH_INTERVAL)
        .dead_letter(&options.dead_letter)
        .try_start()?;
    first_event(&writer).await?;

    // Dropping `produce` in the middle of an `insert` loses no accepted event: that one was not accepted yet.
    let reason = tokio::select! {
        produced = produce(&writer, options.records) => {
            produced?;
            "all records are written"
        }
        reason = shutdown => reason,
    };
    println!("shutting down: {reason}");
    let report = writer.close_within(SHUTDOWN_DEADLINE).await?;
    show(&report);

    // The claims: every accepted event is in the table or among the dead letters, and nothing in the table can be changed.
    let statistics = &report.statistics;
    let letters = lines(&options.dead_letter)? - letters_before;
    ensure!(report.dead_letter_failure.is_none(), "{:?}", report.dead_letter_failure);
    ensure!(statistics.added == statistics.committed + statistics.rejected);
    ensure!(count(&db).await? - events_before == statistics.committed as i64);
    ensure!(letters == statistics.rejected, "{letters} dead letters");
    let refused = db.execute("UPDATE audit_log SET actor = 'nobody'").await;
    ensure!(refused.is_err_and(|error| error.kind() == ErrorKind::CheckViolation), "append-only");
    println!("{} events in the table; {letters} rejected ones can be loaded again", statistics.committed);
    Ok(())
}

/// Some events must be in the database before the program goes on: flush, then the receipt is answered. It also tells the key
/// that the database drew.
async fn first_event(writer: &Writer) -> anyhow::Result<()> {
    let receipt = writer.insert(&event("system", Action::LoggedIn, 0)).await?;
    writer.flush().await?;
    let (outcome, id) = receipt.with_key().await?;
    ensure!(outcome == Outcome::Inserted && id.is_some());
    println!("the first event is written, with id {}", id.unwrap_or_default());
    Ok(())
}

/// Events as an application has them: bursts, and quiet times between. With a number of records there are no quiet times. Every
/// thousandth event has no actor, which the table refuses.
async fn produce(writer: &Writer, records: Option<u64>) -> barge::Result<()> {
    const ACTIONS: [Action; 3] = [Action::LoggedIn, Action::Read, Action::Changed];
    for number in 1..=records.unwrap_or(u64::MAX) {
        let actor = if number % 1_000 == 0 { "" } else { ["ada", "grace", "edsger"][number as usize % 3] };
        writer.insert(&event(actor, ACTIONS[number as usize / 3 % 3], number)).await?;
        if records.is_none() && number % 1_250 == 0 {
            tokio::time::sleep(FLUSH_INTERVAL * 2).await;
        }
    }
    Ok(())
}

fn event(actor: &str, action: Action, request: u64) -> Event<'_> {
    Event { id: None, at: Utc::now(), actor, action, details: json!({"request": request}), written_at: None }
}

fn show(report: &Report) {
    let statistics = &report.statistics;
    println!(
        "{} events: {} committed, {} rejected",
        statistics.added, statistics.committed, statistics.rejected
    );
    println!(
        "{} flushes: {} full ({FLUSH_ROWS} rows), {} after {FLUSH_INTERVAL:?}, {} asked for, {} at the close",
        statistics.flushes,
        statistics.flushes_for(FlushReason::Rows),
        statistics.flushes_for(FlushReason::Linger),
        statistics.flushes_for(FlushReason::Explicit),
        statistics.flushes_for(FlushReason::Close),
    );
    println!(
        "{:.0} rows a flush, {:.0} % of what they could have held; {:.1?} a flush; {} round trips saved",
        statistics.rows_per_batch(),
        statistics.batch_efficiency() * 100.0,
        statistics.flush_time.div_f64(statistics.flushes.max(1) as f64),
        statistics.round_trips_saved,
    );
    if let Some(first) = report.rejected.first() {
        println!("the first rejected: request {}: {}", first.row["details"]["request"], first.error);
    }
}

#[derive(FromRow)]
struct Count {
    rows: i64,
}

async fn count(db: &Database) -> anyhow::Result<i64> {
    let counts: Vec<Count> = db.query_all("SELECT count(*) AS rows FROM audit_log").await?;
    Ok(counts.first().context("count(*) gives one row")?.rows)
}

/// A dead letter is one line of JSON: the row, its table, the operation and the error.
fn lines(path: &Path) -> anyhow::Result<u64> {
    if !path.exists() {
        return Ok(0);
    }
    Ok(std::fs::read_to_string(path)?.lines().count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(directory: &tempfile::TempDir, records: Option<u64>) -> Options {
        Options {
            url: format!("sqlite:{}/audit.db", directory.path().display()),
            dead_letter: directory.path().join("rejected.jsonl"),
            records,
        }
    }

    #[tokio::test]
    async fn every_record_is_accounted_for_twice_into_one_log() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            run(&options(&directory, Some(5_000)), std::future::pending()).await.unwrap();
        }
        assert_eq!(lines(&directory.path().join("rejected.jsonl")).unwrap(), 10);
    }

    #[tokio::test]
    async fn a_shutdown_in_the_middle_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let shutdown = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            "the test is over"
        };
        run(&options(&directory, None), shutdown).await.unwrap();
    }
}
