//! Chunks in, batches out, and every row's fate noted.
//!
//! Chunks are added to the writer as they come. What became of a chunk's rows is looked at a few chunks later, when it is
//! known without waiting; so the account is in the files' order, however many chunks are written at a time, and so many more chunks
//! are held for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use barge::arrow::array::RecordBatch;
use barge::record::row_to_json;
use barge::{BatchReceipt, Error, ErrorKind, Operation, Outcome, Result, Statistics, Writer};
use barge_files::{Chunk, LineNumbers, RejectedLine};
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;

use super::letters::{Address, Kept, Letters};
use super::plan::{Planner, Route};
use super::reader::Message;
use super::too_many_rejected;
use super::writing::{DRAIN_MAX, Writing};
use crate::progress::Progress;
use crate::signals::Signals;
use crate::{Status, Stop};

/// Rejected rows that the summary tells of.
pub(crate) const REJECTED_TOLD: usize = 10;

/// A load while it runs.
pub(crate) struct Pipeline<'a> {
    sink: Sink,
    planner: &'a mut Planner,
    letters: Option<Letters>,
    max_rejects: Option<u64>,
    progress: Arc<Progress>,
    interrupted: watch::Receiver<()>,
    open: VecDeque<Open>,
    file: File,
    ended: Ended,
}

/// What takes the rows.
pub(crate) struct Sink {
    pub(crate) writer: Writer,
    pub(crate) writing: Arc<Writing>,
    /// How many chunks may be with the writer.
    pub(crate) open_max: usize,
}

/// The file being read.
struct File {
    name: Arc<str>,
    /// `None` for dead letters, which have a route each.
    route: Option<Route>,
}

/// A chunk whose rows are with the writer.
struct Open {
    route: Route,
    receipt: BatchReceipt,
    batch: RecordBatch,
    lines: LineNumbers,
    /// The first of the chunk's lines that were no rows.
    rejected: Vec<Told>,
    file: Arc<str>,
}

/// How a load ended: the account of its rows.
#[derive(Default)]
pub(crate) struct Ended {
    /// Rows and lines that were taken from the files. Every one of them is one of the numbers below.
    pub(crate) rows_read: u64,
    pub(crate) inserted: u64,
    pub(crate) updated: u64,
    pub(crate) deleted: u64,
    /// Rows that were there and stayed as they were, or that a trigger kept out.
    pub(crate) unchanged: u64,
    pub(crate) not_found: u64,
    /// Rows, and lines that are no rows, refused on their own account.
    pub(crate) rejected: u64,
    /// Rows that were good and didn't get in, because the load was ended by a failure.
    pub(crate) not_written: u64,
    /// The first rejected rows.
    pub(crate) told: Vec<Told>,
    /// Where reading had come to, in file and line, if it didn't come to the end.
    pub(crate) stopped_at: Option<(Arc<str>, u64)>,
    pub(crate) interrupted: bool,
    /// How much of the rows that were read and not written is in the dead letter file, where there is one.
    pub(crate) kept: Option<Kept>,
    pub(crate) failure: Option<Error>,
    /// What is wrong with the command line, where that only showed later.
    pub(crate) usage: Option<String>,
    pub(crate) statistics: Statistics,
}

/// A rejected row as the summary tells it.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) file: Arc<str>,
    pub(crate) line: u64,
    pub(crate) error: Error,
    /// Whether the error's own message names file and line.
    pub(crate) placed: bool,
    pub(crate) column: Option<String>,
}

impl Ended {
    pub(crate) fn written(&self) -> u64 {
        self.inserted + self.updated + self.deleted
    }

    /// Whether all that was to be read was read.
    pub(crate) fn is_complete(&self) -> bool {
        self.failure.is_none() && self.usage.is_none() && !self.interrupted
    }

    /// Notes how the end of the table's replacement went. Rows that only waited beside the table are not written where it failed.
    pub(crate) fn finish(&mut self, replaced: Result<()>, replacing: bool) {
        if let Err(error) = replaced {
            self.failure.get_or_insert(error);
        }
        if replacing && !self.is_complete() {
            self.not_written += std::mem::take(&mut self.inserted);
        }
    }

    pub(crate) fn status(&self) -> Status {
        match self {
            _ if self.usage.is_some() => Status::Usage,
            _ if self.failure.is_some() => Status::Failed,
            _ if self.interrupted => Status::Interrupted,
            _ if self.rejected > 0 => Status::Rejected,
            _ => Status::Done,
        }
    }

    fn tell(&mut self, told: Told) {
        if self.told.len() < REJECTED_TOLD {
            self.told.push(told);
        }
    }

    fn count(&mut self, outcome: Outcome) {
        *(match outcome {
            Outcome::Inserted => &mut self.inserted,
            Outcome::Updated => &mut self.updated,
            Outcome::Deleted => &mut self.deleted,
            Outcome::Unchanged => &mut self.unchanged,
            Outcome::NotFound => &mut self.not_found,
        }) += 1;
    }
}

impl<'a> Pipeline<'a> {
    /// A load to be run. From here on the first signal ends it gently.
    pub(crate) fn new(
        sink: Sink,
        planner: &'a mut Planner,
        letters: Option<Letters>,
        max_rejects: Option<u64>,
        progress: Arc<Progress>,
    ) -> Result<Self> {
        let file = File { name: "".into(), route: None };
        let (open, ended) = (VecDeque::new(), Ended::default());
        let interrupted = interruption(Arc::clone(&sink.writing))?;
        Ok(Pipeline { sink, planner, letters, max_rejects, progress, interrupted, open, file, ended })
    }

    /// Writes all that the reader brings, until it ends, fails, or a signal comes; then drains.
    pub(crate) async fn run(mut self, mut messages: Receiver<Message>) -> Ended {
        let mut stopped = self.take_all(&mut messages).await;
        messages.close();
        if stopped.is_ok() {
            stopped = self.settle(0).await;
        }
        if let Err(stop) = stopped {
            self.stop(stop);
            // The rows that are with the writer go their way, and are accounted for.
            while !self.open.is_empty() {
                if let Err(stop) = self.settle(0).await {
                    self.stop(stop);
                }
            }
        }
        match self.sink.writer.close().await {
            Ok(report) => self.ended.statistics = report.statistics,
            Err(error) => self.stop(error.into()),
        }
        self.sink.writing.is_over();
        self.ended.kept = self.letters.map(|letters| letters.kept());
        self.ended
    }

    /// Notes why the load ends early. The first reason stands.
    fn stop(&mut self, stop: Stop) {
        let ended = &mut self.ended;
        match stop {
            _ if ended.failure.is_some() || ended.usage.is_some() => {}
            Stop::Failure(error) => ended.failure = Some(error),
            Stop::Usage(message) => ended.usage = Some(message),
        }
    }

    async fn take_all(&mut self, messages: &mut Receiver<Message>) -> Result<(), Stop> {
        loop {
            let message = tokio::select! {
                biased;
                changed = self.interrupted.changed() => {
                    // The sender lives as long as the program.
                    self.ended.interrupted = changed.is_ok();
                    return Ok(());
                }
                message = messages.recv() => message,
            };
            match message {
                Some(Message::File { name, schema, header_line, letters }) => {
                    let route = match letters {
                        true => None,
                        false => Some(self.planner.route(&name, header_line, &schema).await?),
                    };
                    self.file = File { name, route };
                }
                Some(Message::Chunk(chunk)) => {
                    self.take(*chunk).await?;
                    self.settle(self.sink.open_max).await?;
                }
                Some(Message::Failed(stop)) => return Err(stop),
                None => {
                    self.ended.stopped_at = None;
                    return Ok(());
                }
            }
        }
    }

    /// Gives a chunk's rows to the writer.
    async fn take(&mut self, chunk: Chunk) -> Result<(), Stop> {
        let file = Arc::clone(&self.file.name);
        let schema = chunk.batch.schema();
        let route = match (&self.file.route, &chunk.dead_letter) {
            (Some(route), _) => Some(route.clone()),
            (None, Some(letter)) => Some(self.planner.letter_route(&file, letter, &schema).await?),
            (None, None) => None,
        };
        self.note_place(&chunk);
        self.ended.rows_read += (chunk.batch.num_rows() + chunk.rejected.len()) as u64;
        self.ended.rejected += chunk.rejected.len() as u64;
        // A row counts as not written until its receipt says otherwise.
        self.ended.not_written += chunk.batch.num_rows() as u64;
        let kept = self.keep_lines(route.as_ref(), &file, &chunk.rejected);
        let rejected = first_told(&file, &chunk.rejected);
        let (Some(route), Ok(())) = (route, &kept) else {
            rejected.into_iter().for_each(|told| self.ended.tell(told));
            return kept.map_err(Stop::from).and_then(|()| self.check_rejected());
        };
        let Chunk { batch, lines, .. } = chunk;
        match self.sink.writer.add_batch(&route.table, route.operation, &batch).await {
            Ok(receipt) => {
                self.open.push_back(Open { route, receipt, batch, lines, rejected, file });
                Ok(())
            }
            Err(error) => {
                rejected.into_iter().for_each(|told| self.ended.tell(told));
                self.keep_rows(&route, &file, &batch, &lines, &error);
                Err(self.ended_by(error).into())
            }
        }
    }

    fn note_place(&mut self, chunk: &Chunk) {
        let row = chunk.lines.len().checked_sub(1).and_then(|last| chunk.lines.get(last));
        let rejected = chunk.rejected.last().map(|line| line.last_line);
        if let Some(line) = row.max(rejected) {
            self.ended.stopped_at = Some((Arc::clone(&self.file.name), line));
        }
    }

    /// Keeps lines that are no rows as dead letters.
    fn keep_lines(
        &mut self,
        route: Option<&Route>,
        file: &Arc<str>,
        rejected: &[RejectedLine],
    ) -> Result<()> {
        let Some(letters) = &mut self.letters else { return Ok(()) };
        // A line among dead letters that names no table itself is kept for the one of the command line.
        let table = route.map(|route| &route.name).or(self.planner.table());
        let operation = route.map_or(Operation::Insert, |route| route.operation);
        let to = Address { table, operation, file };
        rejected.iter().try_for_each(|line| letters.line(&to, line))?;
        letters.flush()
    }

    /// Keeps rows that the writer did not take. Where that fails too, the letters know that they are not whole.
    fn keep_rows(
        &mut self,
        route: &Route,
        file: &Arc<str>,
        batch: &RecordBatch,
        lines: &LineNumbers,
        error: &Error,
    ) {
        let Some(letters) = &mut self.letters else { return };
        let to = Address { table: Some(&route.name), operation: route.operation, file };
        let error = named(error, route);
        let mut rows = 0..batch.num_rows();
        let kept = rows.try_for_each(|row| {
            letters.row(&to, lines.get(row).unwrap_or_default(), &error, row_to_json(batch, row))
        });
        if let Err(error) = kept.and_then(|()| letters.flush()) {
            crate::output::complain(&error.to_string());
        }
    }

    /// Looks at the oldest chunks' receipts, until no more than so many chunks are open.
    ///
    /// # Errors
    /// What ends the load. The chunk is accounted for all the same.
    async fn settle(&mut self, open: usize) -> Result<(), Stop> {
        while self.open.len() > open {
            let Some(chunk) = self.open.pop_front() else { break };
            self.settle_chunk(chunk).await?;
            self.check_rejected()?;
        }
        Ok(())
    }

    async fn settle_chunk(&mut self, chunk: Open) -> Result<(), Stop> {
        let Open { route, receipt, batch, lines, rejected: mut told, file } = chunk;
        let rows = batch.num_rows() as u64;
        self.ended.not_written -= rows;
        let to = Address { table: Some(&route.name), operation: route.operation, file: &file };
        let mut failure: Option<Error> = None;
        let mut kept = Ok(());
        for (row, outcome) in receipt.outcomes().await.into_iter().enumerate() {
            let error = match outcome {
                Ok(outcome) => {
                    self.ended.count(outcome);
                    continue;
                }
                Err(error) => error,
            };
            let line = lines.get(row).unwrap_or_default();
            // By the row that it names, which means nothing to the user: what DuckDB can't do with one row is that row's.
            let is_row = error.is_row();
            let error = named(&error, &route);
            if let Some(letters) = &mut self.letters {
                let written = letters.row(&to, line, &error, row_to_json(&batch, row));
                kept = kept.and(written);
            }
            if !is_row {
                self.ended.not_written += 1;
                failure.get_or_insert(error);
                continue;
            }
            self.ended.rejected += 1;
            if told.iter().filter(|told| told.line <= line).count() < REJECTED_TOLD {
                let column = error.column().map(str::to_owned);
                told.push(Told { file: Arc::clone(&file), line, error, placed: false, column });
            }
        }
        told.sort_by_key(|told| told.line);
        told.into_iter().for_each(|told| self.ended.tell(told));
        self.progress.rows.fetch_add(rows, Ordering::Relaxed);
        if let Some(letters) = &mut self.letters {
            kept = kept.and_then(|()| letters.flush());
        }
        match failure {
            Some(error) => {
                let is_retryable = error.is_retryable();
                let ended = self.ended_by(error);
                if is_retryable {
                    // It was tried again for long enough. What goes beside it may end well, and what is behind it is not tried for as long.
                    let writing = Arc::clone(&self.sink.writing);
                    tokio::spawn(async move {
                        tokio::time::sleep(DRAIN_MAX).await;
                        writing.give_up();
                    });
                }
                Err(ended.into())
            }
            None => Ok(kept?),
        }
    }

    /// What ends the load, where rows fail that are not to blame.
    fn ended_by(&mut self, error: Error) -> Error {
        if !self.sink.writing.is_given_up() {
            return error.context("the load stopped");
        }
        self.ended.interrupted |= self.interrupted.has_changed().unwrap_or(false);
        let seconds = DRAIN_MAX.as_secs();
        let message = format!(
            "what was read could not be written within {seconds} s of the signal; rows under way then may be there or not"
        );
        Error::new(ErrorKind::Timeout, message)
    }

    fn check_rejected(&self) -> Result<(), Stop> {
        match self.max_rejects {
            Some(allowed) if self.ended.rejected > allowed => {
                Err(too_many_rejected(self.ended.rejected, allowed).into())
            }
            _ => Ok(()),
        }
    }
}

/// The first rejected lines as the summary tells them.
fn first_told(file: &Arc<str>, rejected: &[RejectedLine]) -> Vec<Told> {
    let told = rejected.iter().take(REJECTED_TOLD).map(|line| Told {
        file: Arc::clone(file),
        line: line.line,
        error: line.error.clone(),
        placed: true,
        column: line.column.clone(),
    });
    told.collect()
}

/// A row's error under the name that the user knows the table by, without the row's place in its batch: the line says more.
fn named(error: &Error, route: &Route) -> Error {
    // Rows that wait to replace others are in a table whose name means nothing to the user.
    let known = |text: &str| text.replace(route.table.name().name(), route.name.name());
    let message = match route.table.name() == &route.name {
        true => error.message().to_owned(),
        false => known(error.message()),
    };
    let mut own = Error::new(error.kind(), message).with_table(route.name.to_string());
    if let Some(column) = error.column() {
        own = own.with_column(column);
    }
    if let Some(constraint) = error.constraint() {
        own = own.with_constraint(known(constraint));
    }
    if let Some(code) = error.code() {
        own = own.with_code(code);
    }
    own.with_source(error.clone())
}

/// Tells of the first Ctrl-C or SIGTERM, and gives up writing some time after it. The second one ends the program at once.
fn interruption(writing: Arc<Writing>) -> Result<watch::Receiver<()>> {
    let mut signals = Signals::new()?;
    let (sender, receiver) = watch::channel(());
    tokio::spawn(async move {
        signals.next().await;
        crate::output::complain("stopping: what was read is being written; Ctrl-C again ends at once");
        sender.send_replace(());
        if tokio::time::timeout(DRAIN_MAX, signals.next()).await.is_err() {
            writing.give_up();
            signals.next().await;
        }
        std::process::exit(Status::Interrupted as i32);
    });
    Ok(receiver)
}
