//! `barge export`: a table, or what a query gives, into a file.
//!
//! Rows come as record batches from the store, as fast as they are asked for; a short channel brings them to a thread that encodes and
//! writes them. What is in memory is bounded: the batches in the channel, and what the format gathers. The file is there
//! under its name once it is whole; where anything fails or a signal comes, nothing of it is left.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use barge::arrow::array::RecordBatch;
use barge::arrow::datatypes::SchemaRef;
use barge::store::RecordStream;
use barge::{Error, ErrorKind, Result};
use barge_files::{Compression, Format, Sink, WriteOptions, Written};
use serde_json::json;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

use crate::args::Export;
use crate::output::{aligned, complain, grouped, print, right_aligned, shown, without_password};
use crate::progress::Progress;
use crate::query::{Reading, is_same_file, main_file};
use crate::signals::Signals;
use crate::{Status, Stop};

/// Batches that may wait for the thread that writes.
const BATCHES_WAITING: usize = 2;

/// How long a signal waits for that thread, which may itself wait for a pipe.
const END_MAX: Duration = Duration::from_secs(8);

/// What the thread that writes is told. One that hears no more without having heard of the end throws the file away.
enum Message {
    Rows(RecordBatch),
    End,
}

/// How an export ended.
#[derive(Default)]
struct Ended {
    /// What was written, where the file is whole.
    written: Option<Written>,
    interrupted: bool,
    /// Whether the thread that writes had not answered when it was waited for no longer.
    unanswered: bool,
    failure: Option<Error>,
}

impl Ended {
    fn status(&self) -> Status {
        match self {
            _ if self.failure.is_some() => Status::Failed,
            _ if self.interrupted => Status::Interrupted,
            _ => Status::Done,
        }
    }
}

/// Runs an export.
pub(crate) async fn run(export: Export) -> Result<Status, Stop> {
    let options = export.write_options();
    let usage = |error: Error| match error.kind() {
        ErrorKind::InvalidConfig => Stop::Usage(error.message().to_owned()),
        _ => Stop::Failure(error),
    };
    Sink::check(&export.file, &options).map_err(usage)?;
    let (format, compression) = options.settle(&export.file).map_err(usage)?;

    let started = Instant::now();
    let mut signals = Signals::new()?;
    let (reading, stream) = tokio::select! {
        begun = begin(&export) => begun?,
        () = signals.next() => {
            complain("stopped: nothing was written");
            return Ok(Status::Interrupted);
        }
    };
    let progress = Arc::new(Progress::new(None));
    let ticker = progress.show(&export.output);
    let ended = write(stream, (export.file.clone(), options), &mut signals, &progress).await?;
    drop(ticker);

    let summary = Summary {
        export: &export,
        name: &reading.name,
        ended: &ended,
        format,
        compression,
        rows: progress.rows.load(Ordering::Relaxed),
        elapsed: started.elapsed(),
    };
    if let Some(error) = &ended.failure {
        complain(&error.to_string());
    }
    summary.tell()?;
    if ended.failure.is_none() && !ended.interrupted {
        reading.close().await;
    }
    Ok(ended.status())
}

/// Begins to read.
async fn begin(export: &Export) -> Result<(Reading, RecordStream), Stop> {
    let reading = Reading::open(&export.from, None).await?;
    refuse_own_file(&reading, &export.file).await?;
    let stream = reading.start(|_| false, None).await?;
    Ok((reading, stream))
}

/// Refuses to write into the database that is read.
async fn refuse_own_file(reading: &Reading, file: &Path) -> Result<(), Stop> {
    let Some(own) = main_file(&reading.database).await? else { return Ok(()) };
    // What lies beside a database under its name is a part of it.
    let part = |ending: &str| {
        let mut path = own.clone().into_os_string();
        path.push(ending);
        PathBuf::from(path)
    };
    let is_own =
        ["", "-wal", "-shm", "-journal", ".wal"].into_iter().any(|ending| is_same_file(&part(ending), file));
    match is_own {
        true => {
            Err(Stop::Usage(format!("{} is the database that is read: choose another file", file.display())))
        }
        false => Ok(()),
    }
}

/// Writes what the stream brings, until it ends, anything fails, or a signal comes.
async fn write(
    stream: RecordStream,
    (file, options): (PathBuf, WriteOptions),
    signals: &mut Signals,
    progress: &Arc<Progress>,
) -> Result<Ended> {
    let (sender, receiver) = channel(BATCHES_WAITING);
    let mut written =
        start_writing(file, options, Arc::clone(stream.schema()), receiver, Arc::clone(progress))?;
    let mut ended = Ended::default();
    tokio::select! {
        biased;
        () = signals.next() => ended.interrupted = true,
        passed = pass_on(stream, sender) => ended.failure = passed.err(),
    }
    let written = loop {
        let end_in = if ended.interrupted { END_MAX } else { Duration::MAX };
        tokio::select! {
            written = &mut written => {
                break written.unwrap_or_else(|_| Err(Error::new(ErrorKind::Closed, "the writing thread ended")));
            }
            () = tokio::time::sleep(end_in) => {
                ended.unanswered = true;
                break Ok(None);
            }
            () = signals.next() => {
                if std::mem::replace(&mut ended.interrupted, true) {
                    std::process::exit(Status::Interrupted as i32);
                }
            }
        }
    };
    match written {
        Ok(written) => ended.written = written,
        Err(error) => ended.failure = Some(ended.failure.unwrap_or(error)),
    }
    // A signal that came when all was done changes nothing.
    ended.interrupted &= ended.written.is_none();
    if ended.interrupted {
        complain("stopped");
    }
    Ok(ended)
}

async fn pass_on(mut stream: RecordStream, sender: Sender<Message>) -> Result<()> {
    while let Some(batch) = stream.next().await? {
        if sender.send(Message::Rows(batch)).await.is_err() {
            // Writing failed, and says itself why.
            return Ok(());
        }
    }
    let _ = sender.send(Message::End).await;
    Ok(())
}

/// Starts the thread that writes. It tells what it wrote, or nothing where it was not told of the end.
fn start_writing(
    file: PathBuf,
    options: WriteOptions,
    schema: SchemaRef,
    mut messages: Receiver<Message>,
    progress: Arc<Progress>,
) -> Result<oneshot::Receiver<Result<Option<Written>>>> {
    let mut write = move || {
        let mut sink = Sink::create(&file, &schema, &options)?;
        while let Some(message) = messages.blocking_recv() {
            match message {
                Message::Rows(batch) => {
                    sink.write(&batch)?;
                    progress.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                }
                Message::End => return sink.finish().map(Some),
            }
        }
        Ok(None)
    };
    let (sender, written) = oneshot::channel();
    std::thread::Builder::new()
        .name("barge-file".into())
        .spawn(move || {
            // Nobody listens: then nobody needs to know.
            let _ = sender.send(write());
        })
        .map_err(|error| Error::from(error).context("the writing thread can't start"))?;
    Ok(written)
}

/// An export's account.
struct Summary<'a> {
    export: &'a Export,
    /// What was read.
    name: &'a str,
    ended: &'a Ended,
    format: Format,
    compression: Compression,
    /// Rows that were written, whether or not the file is whole.
    rows: u64,
    elapsed: Duration,
}

impl Summary<'_> {
    /// Prints it; to standard error where the rows went to standard output.
    fn tell(&self) -> Result<()> {
        let output = &self.export.output;
        // An export that failed before its first row has nothing to account for.
        let has_begun = self.ended.failure.is_none() || self.rows > 0;
        if output.quiet || !has_begun {
            return Ok(());
        }
        let text = if output.json { self.to_json() } else { self.to_text() };
        if self.is_standard_output() {
            crate::output::tell(&text);
            return Ok(());
        }
        print(&text)
    }

    fn is_standard_output(&self) -> bool {
        self.export.file == Path::new("-")
    }

    /// Whether what was written is gone where it isn't whole; what went to a pipe or a device can't be taken back.
    fn is_taken_back(&self) -> bool {
        !self.is_standard_output()
            && std::fs::metadata(&self.export.file).map_or(true, |found| found.is_file())
    }

    fn rate(&self) -> f64 {
        self.rows as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    fn to_text(&self) -> String {
        let verb = match self.ended {
            ended if ended.failure.is_some() => "Failed to export",
            ended if ended.interrupted => "Stopped exporting",
            _ => "Exported",
        };
        let file = match self.is_standard_output() {
            true => "standard output".to_owned(),
            false => shown(&self.export.file.display().to_string()),
        };
        let row = |name: &str, number: String, note: String| vec![name.to_owned(), number, note];
        let mut rows = Vec::new();
        match &self.ended.written {
            Some(written) => {
                let kind = match self.compression {
                    Compression::None => self.format.to_string(),
                    compression => format!("{}, {compression}", self.format),
                };
                rows.push(row("written", grouped(written.rows), String::new()));
                rows.push(row("bytes", grouped(written.bytes), kind));
            }
            None => {
                let left = match self.ended.unanswered {
                    _ if !self.is_taken_back() => "",
                    true => "the unfinished file may be left beside",
                    false => "nothing of the file is left",
                };
                rows.push(row("rows read", grouped(self.rows), left.into()));
            }
        }
        let rate = format!("{} rows/s", grouped(self.rate() as u64));
        rows.push(row("time", format!("{:.2} s", self.elapsed.as_secs_f64()), rate));
        format!("{verb} {} to {file}\n\n{}", self.name, aligned("  ", &right_aligned(rows)))
    }

    fn to_json(&self) -> String {
        let (from, ended) = (&self.export.from, self.ended);
        let value = json!({
            "url": without_password(&from.url),
            "table": from.table,
            "query": from.query,
            "file": self.export.file.display().to_string(),
            "format": self.format.to_string(),
            "compression": self.compression.to_string(),
            "rows_read": self.rows,
            "rows_written": ended.written.map_or(0, |written| written.rows),
            "bytes_written": ended.written.map_or(0, |written| written.bytes),
            "seconds": self.elapsed.as_secs_f64(),
            "rows_per_second": self.rate(),
            "interrupted": ended.interrupted,
            "error": ended.failure.as_ref().map(ToString::to_string),
            "exit_status": ended.status() as u8,
        });
        format!("{value:#}\n")
    }
}
