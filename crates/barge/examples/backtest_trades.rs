//! A backtest that keeps its records: runs, trades and the equity curve go into three tables through one writer.
//!
//! ```console
//! $ cargo run --example backtest_trades -p barge
//! $ cargo run --example backtest_trades -p barge -- sqlite:backtests.db
//! ```
//!
//! The strategy buys the S&P 500 index when its mean of 5 days crosses above that of 20, and sells when it crosses below. It is
//! here for its records, not for its merits.

#![allow(clippy::print_stdout)] // What an example has to say goes to the terminal.

use std::time::Duration;

use anyhow::{Context, ensure};
use barge::{Database, ErrorKind, FromRow, Outcome, Record, TextEnum, Writer};
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

const PRICES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/sp500-2000.csv");
const CASH: i64 = 100_000;
const FAST: usize = 5;
const SLOW: usize = 20;

#[derive(Record, FromRow)]
#[record(table = "runs")]
struct Run {
    /// Drawn by the database where it is `None`.
    #[record(key, generated)]
    id: Option<i64>,
    strategy: String,
    parameters: Value,
    #[record(created_at)]
    started_at: Option<DateTime<Utc>>,
    #[record(decimal(18, 6))]
    result: Option<Decimal>,
}

/// What is known only when the run is over: a partial update of `runs`.
#[derive(Record)]
#[record(table = "runs")]
struct RunResult {
    #[record(key)]
    id: i64,
    #[record(decimal(18, 6))]
    result: Decimal,
}

#[derive(Record, FromRow, Clone, Debug, PartialEq)]
#[record(table = "trades")]
struct Trade {
    #[record(key)]
    id: Uuid,
    run_id: i64,
    symbol: String,
    side: Side,
    quantity: i64,
    /// Exact: 18 digits, 6 of them after the point. A value that doesn't fit is refused, never rounded.
    #[record(decimal(18, 6))]
    price: Decimal,
    executed_at: DateTime<Utc>,
    /// Why: JSON, as the strategy saw it.
    signal: Value,
}

/// Stored as text: `BUY`, `SELL`.
#[derive(TextEnum, Clone, Copy, Debug, PartialEq)]
#[text(rename_all = "SCREAMING_SNAKE_CASE")]
enum Side {
    Buy,
    Sell,
}

/// A day of the equity curve. Its key has two columns.
#[derive(Record, FromRow, Clone, Debug, PartialEq)]
#[record(table = "equity")]
struct Equity {
    #[record(key)]
    run_id: i64,
    #[record(key)]
    day: NaiveDate,
    #[record(decimal(18, 6))]
    value: Decimal,
    /// The trade of that day, where there was one.
    trade_id: Option<Uuid>,
}

/// `create_table` makes a table with its key; foreign keys are for your own DDL. Decimals, timestamps, UUIDs and JSON are text on
/// SQLite (docs/types.md).
const TABLES: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS runs(
        id INTEGER NOT NULL PRIMARY KEY, strategy TEXT NOT NULL, parameters TEXT NOT NULL, started_at TEXT NOT NULL, result TEXT)",
    "CREATE TABLE IF NOT EXISTS trades(
        id TEXT NOT NULL PRIMARY KEY, run_id INTEGER NOT NULL REFERENCES runs(id), symbol TEXT NOT NULL,
        side TEXT NOT NULL CHECK (side IN ('BUY', 'SELL')), quantity INTEGER NOT NULL CHECK (quantity > 0), price TEXT NOT NULL,
        executed_at TEXT NOT NULL, signal TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS equity(
        run_id INTEGER NOT NULL REFERENCES runs(id), day TEXT NOT NULL, value TEXT NOT NULL,
        trade_id TEXT REFERENCES trades(id), PRIMARY KEY (run_id, day))",
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run(&std::env::args().nth(1).unwrap_or_else(|| "sqlite::memory:".into())).await
}

async fn run(url: &str) -> anyhow::Result<()> {
    let prices = read_prices()?;
    let db = barge::open(url).await?;
    for table in TABLES {
        db.execute(table).await?;
    }
    // A flush takes rows in any order: a row may come before the one that its foreign key names, if both are in it. Limits wide
    // enough for the whole run and an explicit flush make sure of that here. Elsewhere, write the parent first: it costs nothing.
    let writer = db.writer().max_rows(50_000).linger(Duration::from_secs(60)).start();
    let run_id = begin_run(&writer).await?;
    let (trades, curve) = simulate(run_id, &prices);
    record(&writer, &trades, &curve).await?;
    finish_run(&writer, run_id, &curve).await?;
    unknown_run(&writer, &trades[0]).await?;

    let report = writer.close().await?;
    let statistics = &report.statistics;
    println!(
        "{} rows in {} flushes and {} statements: {} round trips saved",
        statistics.added, statistics.flushes, statistics.statements, statistics.round_trips_saved
    );
    ensure!(statistics.committed == (trades.len() + curve.len() + 2) as u64 && statistics.rejected == 1);
    read_back(&db, run_id, &trades, &curve).await
}

/// The key that the database drew comes with the receipt.
async fn begin_run(writer: &Writer) -> anyhow::Result<i64> {
    let parameters = json!({"fast": FAST, "slow": SLOW, "cash": CASH});
    let run = Run { id: None, strategy: "mean crossover".into(), parameters, started_at: None, result: None };
    let receipt = writer.insert(&run).await?;
    writer.flush().await?;
    let (outcome, id) = receipt.with_key().await?;
    ensure!(outcome == Outcome::Inserted);
    id.context("the run has a generated key")
}

/// One flush, three tables: the equity curve first, though its rows name trades that come after them.
async fn record(writer: &Writer, trades: &[Trade], curve: &[Equity]) -> barge::Result<()> {
    for point in curve {
        writer.insert(point).await?;
    }
    for trade in trades {
        writer.insert(trade).await?;
    }
    writer.flush().await?;
    println!("recorded {} days and {} trades", curve.len(), trades.len());
    Ok(())
}

async fn finish_run(writer: &Writer, run_id: i64, curve: &[Equity]) -> anyhow::Result<()> {
    let result = curve.last().context("the curve has a last day")?.value;
    let receipt = writer.update(&RunResult { id: run_id, result }).await?;
    writer.flush().await?;
    ensure!(receipt.await? == Outcome::Updated);
    Ok(())
}

/// A trade of a run that doesn't exist is rejected, and says why.
async fn unknown_run(writer: &Writer, trade: &Trade) -> anyhow::Result<()> {
    let stray = Trade { id: Uuid::new_v4(), run_id: -1, ..trade.clone() };
    let receipt = writer.insert(&stray).await?;
    writer.flush().await?;
    let error = receipt.await.err().context("there is no run -1")?;
    println!("rejected: {error}");
    ensure!(error.kind() == ErrorKind::ForeignKeyViolation);
    Ok(())
}

/// A result row of one's own: columns are found by name.
#[derive(FromRow)]
struct BySide {
    side: Side,
    trades: i64,
    first: DateTime<Utc>,
    last: DateTime<Utc>,
}

async fn read_back(db: &Database, run_id: i64, trades: &[Trade], curve: &[Equity]) -> anyhow::Result<()> {
    // By key, in the order of the keys; a key of two columns is a tuple.
    let days: Vec<(i64, NaiveDate)> = curve.iter().map(|point| (run_id, point.day)).collect();
    let found: Vec<Option<Equity>> = db.get_all(&days).await?;
    ensure!(found.into_iter().flatten().eq(curve.iter().cloned()), "what was written comes back equal");
    let runs: Vec<Option<Run>> = db.get_all(&[run_id]).await?;
    let run = runs.into_iter().flatten().next().context("the run is there")?;
    ensure!(run.parameters["fast"] == FAST && run.started_at.is_some());

    // By any statement that reads.
    let sql = format!("SELECT * FROM trades WHERE run_id = {run_id} ORDER BY executed_at");
    let found: Vec<Trade> = db.query_all(sql).await?;
    ensure!(found == trades, "what was written comes back equal");
    let sql = format!(
        "SELECT side, count(*) AS trades, min(executed_at) AS first, max(executed_at) AS last
         FROM trades WHERE run_id = {run_id} GROUP BY side ORDER BY side"
    );
    for row in db.query_all::<BySide>(sql).await? {
        let BySide { side, trades, first, last } = row;
        println!(
            "{trades} × {side:?} ({}) from {} to {}",
            side.as_text(),
            first.date_naive(),
            last.date_naive()
        );
    }

    // Decimals are exact as text, and SQLite can't add text: sums of them are made here.
    let turnover: Decimal = found.iter().map(|trade| trade.price * Decimal::from(trade.quantity)).sum();
    let result = run.result.context("the run is finished")?;
    println!("run {run_id}, {}: {CASH} became {result}, with a turnover of {turnover}", run.strategy);
    let last = curve.last().context("the curve has a last day")?;
    ensure!(result == last.value);
    Ok(())
}

/// The closing price of each day.
fn read_prices() -> anyhow::Result<Vec<(NaiveDate, Decimal)>> {
    let text = std::fs::read_to_string(PRICES).with_context(|| format!("{PRICES} can't be read"))?;
    let price = |line: &str| {
        let mut cells = line.split(',');
        let day = cells.next()?.parse().ok()?;
        Some((day, cells.nth(3)?.parse().ok()?))
    };
    text.lines().skip(1).map(|line| price(line).with_context(|| format!("not a price: {line}"))).collect()
}

/// Trades whole shares of the index at the close, all or nothing.
fn simulate(run_id: i64, prices: &[(NaiveDate, Decimal)]) -> (Vec<Trade>, Vec<Equity>) {
    let mean = |end: usize, days: usize| {
        let sum: Decimal = prices[end + 1 - days..=end].iter().map(|(_, close)| close).sum();
        (sum / Decimal::from(days)).round_dp(6)
    };
    let (mut cash, mut held) = (Decimal::from(CASH), 0_i64);
    let (mut trades, mut curve) = (Vec::new(), Vec::new());
    for (index, &(day, close)) in prices.iter().enumerate() {
        let mut trade_id = None;
        if index + 1 >= SLOW {
            let (fast, slow) = (mean(index, FAST), mean(index, SLOW));
            let affordable = i64::try_from((cash / close).floor()).unwrap_or(0);
            let order = match (fast > slow, held) {
                (true, 0) if affordable > 0 => Some((Side::Buy, affordable)),
                (false, 1..) => Some((Side::Sell, held)),
                _ => None,
            };
            if let Some((side, quantity)) = order {
                let change = if side == Side::Buy { quantity } else { -quantity };
                held += change;
                cash -= close * Decimal::from(change);
                let trade = Trade {
                    id: Uuid::new_v4(),
                    run_id,
                    symbol: "SPX".into(),
                    side,
                    quantity,
                    price: close,
                    executed_at: day.and_time(NaiveTime::MIN).and_utc() + chrono::TimeDelta::hours(21),
                    signal: json!({"fast": fast.to_string(), "slow": slow.to_string()}),
                };
                trade_id = Some(trade.id);
                trades.push(trade);
            }
        }
        curve.push(Equity { run_id, day, value: cash + close * Decimal::from(held), trade_id });
    }
    (trades, curve)
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn two_runs_are_kept_side_by_side() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/backtests.db", directory.path().display());
        super::run(&url).await.unwrap();
        super::run(&url).await.unwrap();
    }
}
