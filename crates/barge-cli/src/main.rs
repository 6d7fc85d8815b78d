//! The program `barge`: moves rows between files and databases in batches, and shows what is in them.
//!
//! Results go to standard output; progress, messages and logs to standard error. `args` is the command line; `load`, `copy`, `export` and
//! `inspect` are the commands, `query` is what copy and export read.

mod args;
mod copy;
mod export;
mod inspect;
mod load;
mod logs;
mod output;
mod progress;
mod query;
mod signals;
mod table;
mod url;

use std::process::ExitCode;

use barge::{Error, ErrorKind, Result};
use clap::Parser;

use args::{Arguments, Command};
use table::Named;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Everything was done; every row was written.
    Done = 0,
    /// Something failed, and a message says what.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The load or copy ran to its end and left rejected rows.
    Rejected = 3,
    /// A signal ended the command; of a load or copy, what was buffered is written.
    Interrupted = 130,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> ExitCode {
        ExitCode::from(status as u8)
    }
}

/// What ends a command early: a failure, or a command line that only proves wrong on a closer look.
pub(crate) enum Stop {
    Failure(Error),
    Usage(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failure(error)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    logs::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::from(error).context("the program's threads can't start"));
    let ended = runtime.map_err(Stop::from).and_then(|runtime| runtime.block_on(run(arguments.command)));
    let status = match ended {
        Ok(status) => status,
        Err(Stop::Failure(error)) => {
            output::complain(&error.to_string());
            Status::Failed
        }
        Err(Stop::Usage(message)) => {
            output::complain(&format!("{message}\n\nFor more information, try '--help'."));
            Status::Usage
        }
    };
    // Threads may still wait for a pipe or a terminal; they have nothing left to do.
    status.into()
}

async fn run(command: Command) -> Result<Status, Stop> {
    match command {
        Command::Load(load) => load::run(*load).await,
        Command::Export(export) => export::run(*export).await,
        Command::Copy(copy) => copy::run(*copy).await,
        Command::Tables { url, json } => inspect::tables(&url, json).await,
        Command::Describe { url, table, schema, json } => {
            inspect::describe(&url, Named { schema, name: table }, json).await
        }
    }
}

/// Whether a failure says that a table is not there.
pub(crate) fn is_missing_table(error: &Error) -> bool {
    error.kind() == ErrorKind::MissingTable
}
