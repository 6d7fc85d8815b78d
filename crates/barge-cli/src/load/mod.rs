//! `barge load`: files into tables, every row accounted for.
//!
//! A thread reads and parses files (`reader`); a short channel brings its chunks to one loop, which adds them to the writer and
//! settles their receipts a few chunks later (`pipeline`). So reading runs beside writing, and what is in memory is bounded:
//! the chunks in the channel, those whose receipts are open, and the writer's two batches. `plan` finds the table
//! for rows, `replace` swaps all rows of one, `letters` keeps rejected rows, `progress` and `summary` tell. The writer's flushes run in `writing`.

mod letters;
mod pipeline;
mod plan;
mod progress;
mod reader;
mod replace;
mod summary;
mod writing;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use barge::{Database, Error, ErrorKind, Result, WriterConfig};
use barge_files::{ReadOptions, Source};

use crate::args::{self, BatchLimits, Load, Mode};
use crate::table::Named;
use crate::url::Url;
use crate::{Status, Stop, output};
use letters::Letters;
use pipeline::{Pipeline, Sink};
use plan::Planner;
use progress::Progress;
use summary::Summary;
use writing::Writing;

/// Chunks whose rows are with the writer beside those that are being written: one in its buffer, and one that is looked at meanwhile.
const CHUNKS_BEHIND: usize = 2;

/// Runs a load.
pub(crate) async fn run(load: Load) -> Result<Status, Stop> {
    let key = args::names(&load.key).map_err(|error| Stop::Usage(format!("--key {error}")))?;
    let url = Url::parse(&load.url)?;
    let limits = load.batch_limits(url.batch_limits());
    let options = load.read_options(limits).map_err(|error| Stop::Usage(format!("--columns {error}")))?;
    let connections = match load.mode.unwrap_or(Mode::Append) {
        mode if mode.is_unordered() => url.connections(load.connections)?,
        mode if load.connections.is_some_and(|connections| connections > 1) => {
            return Err(Stop::Usage(format!(
                "--connections: rows of --mode {} go in order, over one connection",
                mode.as_str()
            )));
        }
        _ => 1,
    };
    let config = writer_config(limits, connections);
    config.validate().and(options.validate()).map_err(|error| Stop::Usage(error.message().to_owned()))?;
    if matches!(load.mode, Some(Mode::Create | Mode::Replace)) && load.table.is_none() {
        return Err(Stop::Usage("--mode create and replace need --table".into()));
    }
    check_files(&load, &options)?;
    // Opened before anything is read: an unwritable path shows at once.
    let letters = load.dead_letter.as_deref().map(Letters::open).transpose()?;

    let started = Instant::now();
    let database = url.open(connections).await?;
    let table = match load.table.clone() {
        Some(name) => Some(Named { schema: load.schema.clone(), name }.find(&database).await?),
        None => None,
    };
    let mut planner = Planner::new(database.clone(), table, load.mode, key).await?;
    let options = planner.read_options(options);
    check_all_files(&load.files, &options, &mut planner)?;

    let progress = Arc::new(Progress::new(&load));
    let reader = reader::start(load.files.clone(), options, Arc::clone(&progress))?;
    let writing = Arc::new(Writing::new()?);
    let sink = Sink {
        writer: writing.writer(&database, config)?,
        writing: Arc::clone(&writing),
        open_max: connections + CHUNKS_BEHIND,
    };
    let pipeline = Pipeline::new(sink, &mut planner, letters, load.max_rejects, Arc::clone(&progress))?;
    let ticker = progress.show(&load);
    let mut ended = pipeline.run(reader).await;
    ended.finish(planner.finish(ended.is_complete()).await, planner.is_replacing());
    drop(ticker);

    let summary = Summary::new(&load, &planner, &ended, started.elapsed());
    close(&database).await;
    if let Some(error) = &ended.failure {
        output::complain(&error.to_string());
    }
    // A load that failed before its first row has nothing to account for.
    if !load.quiet && (ended.is_complete() || ended.interrupted || ended.rows_read > 0) {
        output::print(&if load.json { summary.to_json() } else { summary.to_text() })?;
    }
    match ended.usage {
        Some(message) => Err(Stop::Usage(message)),
        None => Ok(ended.status()),
    }
}

fn writer_config(limits: BatchLimits, connections: usize) -> WriterConfig {
    let mut config = WriterConfig { unordered_flushes: connections, ..WriterConfig::default() };
    config.limits.max_rows = limits.rows;
    config.limits.max_bytes = limits.bytes;
    // The summary's own account is kept by the pipeline, which knows files and lines.
    config.max_reported = 1;
    config
}

/// Refuses files that can't be, before a database is touched.
fn check_files(load: &Load, options: &ReadOptions) -> Result<(), Stop> {
    if load.files.iter().filter(|file| file.as_path() == Path::new("-")).count() > 1 {
        return Err(Stop::Usage("standard input (-) can be read only once".into()));
    }
    for file in load.files.iter().filter(|file| file.as_path() != Path::new("-")) {
        if std::fs::metadata(file).is_err() {
            // Opening it says what is wrong.
            open(file, options)?;
        }
        if let Some(letter) = &load.dead_letter
            && let (Ok(file), Ok(letter)) = (file.canonicalize(), letter.canonicalize())
            && file == letter
        {
            let message = format!(
                "{} is read and is the dead letter file too: give --dead-letter another path",
                file.display()
            );
            return Err(Stop::Usage(message));
        }
    }
    Ok(())
}

/// Opens a file. What it says against the options is said of the command line.
fn open(file: &Path, options: &ReadOptions) -> Result<Source, Stop> {
    Source::open(file, options).map_err(|error| match error.kind() {
        ErrorKind::InvalidConfig => Stop::Usage(error.message().to_owned()),
        _ => Stop::Failure(error),
    })
}

/// Where there are several files, all of them are looked at before a row is written: columns, key, format. A pipe can be read only
/// once, and is left out.
fn check_all_files(files: &[PathBuf], options: &ReadOptions, planner: &mut Planner) -> Result<(), Stop> {
    if files.len() < 2 {
        return Ok(());
    }
    for file in files.iter().filter(|file| file.is_file()) {
        planner.check(&open(file, options)?)?;
    }
    Ok(())
}

/// Ends the connections. Everything is committed by then, so that a failure here loses nothing.
async fn close(database: &Database) {
    if let Err(error) = database.store().close().await {
        output::complain(&error.context("closing the database").to_string());
    }
}

/// A failure that ends a load because too many rows were rejected.
fn too_many_rejected(rejected: u64, allowed: u64) -> Error {
    let message = format!(
        "stopped: {} rejected, and --max-rejects allows {}",
        output::counted(rejected, "row"),
        output::grouped(allowed)
    );
    Error::new(ErrorKind::InvalidValue, message)
}
