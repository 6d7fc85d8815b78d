//! Barge beside what users would write or pick instead: on the same rows, interleaved in one run, as ratios.
//!
//! Absolute figures are this machine's in this minute. A ratio compares runs that alternate, so a machine whose speed
//! drifts does not favour one side; each is the median over the rounds.

#![allow(clippy::print_stdout, reason = "the tables are the program's output")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails should stop where it fails")]

mod commits;
mod load;
mod measure;
mod own_cost;
mod rows;
mod sqlite;

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
    /// All of them.
    All,
}

fn main() {
    let arguments = Arguments::parse();
    let rounds = arguments.rounds | 1;
    match arguments.benchmark {
        Benchmark::Sqlite { short, only } => sqlite::run(rounds, short, only.as_deref()),
        Benchmark::OwnCost => own_cost::run(rounds),
        Benchmark::Commits => commits::run(rounds),
        Benchmark::Load => load::run(rounds),
        Benchmark::All => {
            own_cost::run(rounds);
            sqlite::run(rounds, false, None);
            commits::run(rounds);
            load::run(rounds);
        }
    }
}
