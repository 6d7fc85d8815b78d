//! Barge beside what users would write or pick instead: on the same rows, interleaved in one run, as ratios.
//!
//! Absolute figures are this machine's in this minute. A ratio compares runs that alternate, so a machine whose speed
//! drifts does not favour one side; each is the median over the rounds.

#![allow(clippy::print_stdout, reason = "the tables are the program's output")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails should stop where it fails")]

mod commits;
#[cfg(feature = "duckdb")]
mod duckdb;
mod load;
mod loader;
mod measure;
mod own_cost;
mod peers;
mod postgres;
mod rows;
mod sqlite;

#[cfg(feature = "duckdb")]
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Runs Barge's benchmarks and prints Markdown tables")]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
    /// How often each comparison alternates; an odd number.
    #[arg(long, default_value_t = 5, global = true)]
    rounds: usize,
}

#[derive(Subcommand)]
enum Benchmark {
    /// Insert, update, upsert and look-up by key against a hand-written rusqlite loop.
    Sqlite {
        /// Only a million rows at 1,000 a batch, and look-ups.
        #[arg(long)]
        short: bool,
        /// Only one operation: insert, update, upsert or look-up.
        #[arg(long)]
        only: Option<String>,
    },
    /// What the writer itself costs: rows into the buffers, with no store beneath.
    OwnCost,
    /// Many tasks, each inserting a row and waiting for its receipt.
    Commits,
    /// `barge load` against `sqlite3 .import`, a million rows of CSV. Needs `cargo build --release` and the sqlite3 program.
    Load,
    /// The loader: its cost a key against other batching loaders, hits against moka, and pages of rows on each store.
    Loader {
        /// Only one part.
        #[arg(long, value_parser = PossibleValuesParser::new(loader::PARTS))]
        only: Option<String>,
    },
    /// PostgreSQL: COPY, batches, updates, waiting tasks, bad rows, against psql, tokio-postgres and the Python peers of bench/peers.
    Postgres {
        /// Fewer rows.
        #[arg(long)]
        short: bool,
        /// Only one part.
        #[arg(long, value_parser = PossibleValuesParser::new(postgres::PARTS))]
        only: Option<String>,
        /// A server instead of one of the benchmark's own; its tables `tasks`, `filled` and `accounts` are dropped.
        #[arg(long)]
        url: Option<String>,
    },
    /// DuckDB: the Appender, statements over Arrow tables and DuckDB's own reading of files.
    #[cfg(feature = "duckdb")]
    Duckdb {
        /// Fewer rows.
        #[arg(long)]
        short: bool,
        /// Only one part.
        #[arg(long, value_parser = PossibleValuesParser::new(duckdb::PARTS))]
        only: Option<String>,
    },
    /// One statement over a file of DuckDB, as a process of its own.
    #[cfg(feature = "duckdb")]
    #[command(hide = true)]
    DuckdbStatement { file: PathBuf, sql: String },
    /// All of them.
    All,
}

fn main() {
    if std::env::var_os("TMPDIR").is_none() {
        // The testkit's servers live in memory where nothing is said, and commits cost nothing there.
        // SAFETY: no other thread runs yet that could read the environment.
        unsafe { std::env::set_var("TMPDIR", std::env::temp_dir()) };
    }
    let arguments = Arguments::parse();
    let rounds = arguments.rounds | 1;
    match arguments.benchmark {
        Benchmark::Sqlite { short, only } => sqlite::run(rounds, short, only.as_deref()),
        Benchmark::OwnCost => own_cost::run(rounds),
        Benchmark::Commits => commits::run(rounds),
        Benchmark::Load => load::run(rounds),
        Benchmark::Loader { only } => loader::run(rounds, only.as_deref()),
        Benchmark::Postgres { short, only, url } => {
            postgres::run(rounds, short, only.as_deref(), url.as_deref());
        }
        #[cfg(feature = "duckdb")]
        Benchmark::Duckdb { short, only } => duckdb::run(rounds, short, only.as_deref()),
        #[cfg(feature = "duckdb")]
        Benchmark::DuckdbStatement { file, sql } => duckdb::run_statement(&file, &sql),
        Benchmark::All => {
            own_cost::run(rounds);
            sqlite::run(rounds, false, None);
            commits::run(rounds);
            load::run(rounds);
            loader::run(rounds, None);
            postgres::run(rounds, false, None, None);
            #[cfg(feature = "duckdb")]
            duckdb::run(rounds, false, None);
        }
    }
}
