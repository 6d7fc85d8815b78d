//! The thread that reads and parses files.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use barge::arrow::datatypes::SchemaRef;
use barge::{Error, Result};
use barge_files::{Chunk, ReadOptions, Source};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::open;
use super::progress::Progress;
use crate::Stop;

/// Chunks that may wait for the writer.
const CHUNKS_WAITING: usize = 2;

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

/// Whether a file holds dead letters. Where not one of the first has a row, it has no columns either.
pub(crate) fn holds_letters(source: &Source) -> bool {
    source.dead_letter().is_some() || source.schema().fields().is_empty()
}
