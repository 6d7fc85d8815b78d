//! What brings rows: a thread that reads and parses files, or a task that reads a query's rows.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use barge::arrow::array::RecordBatch;
use barge::arrow::compute::concat_batches;
use barge::arrow::datatypes::SchemaRef;
use barge::store::RecordStream;
use barge::{Error, Result};
use barge_files::{Chunk, LineNumbers, ReadOptions, Source};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::open;
use crate::Stop;
use crate::progress::Progress;

/// Chunks that may wait for the writer.
const CHUNKS_WAITING: usize = 2;

/// Bytes of a query's rows that are gathered for a chunk.
const GATHERED_BYTES: usize = 8 << 20;

/// What the reader says.
pub(crate) enum Message {
    /// The next file is open.
    File { name: Arc<str>, schema: SchemaRef, header_line: Option<u64>, letters: bool },
    /// Rows of it.
    Chunk(Box<Chunk>),
    /// Reading failed; nothing follows.
    Failed(Stop),
}

/// Starts reading. The thread ends when all is read, reading fails, or nobody listens any more; while it waits for a pipe
/// it can't be stopped, and ends with the program.
pub(crate) fn start(
    files: Vec<PathBuf>,
    options: ReadOptions,
    progress: Arc<Progress>,
) -> Result<Receiver<Message>> {
    let (sender, receiver) = channel(CHUNKS_WAITING);
    std::thread::Builder::new()
        .name("barge-read".into())
        .spawn(move || {
            if let Err(error) = read(files, options, &progress, &sender) {
                // Nobody listens: then nobody needs to know.
                let _ = sender.blocking_send(Message::Failed(error));
            }
        })
        .map_err(|error| Error::from(error).context("the reading thread can't start"))?;
    Ok(receiver)
}

fn read(
    files: Vec<PathBuf>,
    mut options: ReadOptions,
    progress: &Progress,
    sender: &Sender<Message>,
) -> Result<(), Stop> {
    let mut bytes_before = 0;
    for file in files {
        let mut source = open(&file, &options)?;
        let letters = holds_letters(&source);
        let schema = source.schema().clone();
        if options.schema.is_none() && !letters {
            // The first file settles the types of a new table; the others follow it.
            options.schema = Some(schema.clone());
        }
        let (name, header_line) = (source.name().into(), source.header_line());
        let message = Message::File { name, schema, header_line, letters };
        if sender.blocking_send(message).is_err() {
            return Ok(());
        }
        loop {
            let chunk = source.next_chunk()?;
            progress.bytes.store(bytes_before + source.progress().bytes_read, Ordering::Relaxed);
            let Some(chunk) = chunk else { break };
            if sender.blocking_send(Message::Chunk(Box::new(chunk))).is_err() {
                return Ok(());
            }
        }
        bytes_before += source.progress().bytes_read;
    }
    Ok(())
}

/// Starts to read a query's rows, in chunks of at most so many. Of what reading was given up, the query is ended.
pub(crate) fn start_rows(name: Arc<str>, stream: RecordStream, chunk_rows: usize) -> Receiver<Message> {
    let (sender, receiver) = channel(CHUNKS_WAITING);
    tokio::spawn(async move {
        let failed = match read_rows(name, stream, chunk_rows, &sender).await {
            Ok(()) => return,
            Err(error) => Message::Failed(error.into()),
        };
        // Nobody listens: then nobody needs to know.
        let _ = sender.send(failed).await;
    });
    receiver
}

async fn read_rows(
    name: Arc<str>,
    mut stream: RecordStream,
    chunk_rows: usize,
    sender: &Sender<Message>,
) -> Result<()> {
    let schema = Arc::clone(stream.schema());
    let message = Message::File { name: Arc::clone(&name), schema, header_line: None, letters: false };
    if sender.send(message).await.is_err() {
        return Ok(());
    }
    let mut rows_before = 0;
    while let Some(batch) =
        gather(&mut stream, chunk_rows).await.map_err(|error| error.context(format!("reading {name}")))?
    {
        for start in (0..batch.num_rows()).step_by(chunk_rows) {
            let batch = batch.slice(start, chunk_rows.min(batch.num_rows() - start));
            let lines = LineNumbers::Range { first: rows_before + 1, rows: batch.num_rows() };
            rows_before += batch.num_rows() as u64;
            let chunk = Chunk { batch, lines, rejected: Vec::new(), dead_letter: None };
            if sender.send(Message::Chunk(Box::new(chunk))).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The next batches of a stream, which are small, as one of about so many rows, or of fewer where they are large.
async fn gather(stream: &mut RecordStream, rows_wanted: usize) -> Result<Option<RecordBatch>> {
    let mut parts = Vec::new();
    let (mut rows, mut bytes) = (0, 0);
    while rows < rows_wanted && bytes < GATHERED_BYTES {
        let Some(part) = stream.next().await? else { break };
        rows += part.num_rows();
        bytes += part.get_array_memory_size();
        parts.push(part);
    }
    match parts.len() {
        0 => Ok(None),
        1 => Ok(parts.pop()),
        _ => Ok(Some(concat_batches(stream.schema(), &parts)?)),
    }
}

/// Whether a file holds dead letters. Where not one of the first has a row, it has no columns either.
pub(crate) fn holds_letters(source: &Source) -> bool {
    source.dead_letter().is_some() || source.schema().fields().is_empty()
}
