//! The bytes of a file: opened, recognised, decompressed and counted.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use barge_core::{Error, ErrorKind, Result};
use flate2::bufread::GzDecoder;

use crate::options::{Compression, Format};

/// Enough for every magic number, and for white space before a JSON object.
const HEAD_BYTES: u64 = 512;

type BoxRead = Box<dyn Read + Send>;

/// A file's content, decompressed as it is read.
pub(crate) struct Input {
    name: Arc<str>,
    path: PathBuf,
    compression: Compression,
    head: Vec<u8>,
    reader: BoxRead,
    /// The file itself, where it is regular and uncompressed: what can be sought in.
    seekable: Option<File>,
    bytes_read: Arc<AtomicU64>,
    bytes_total: Option<u64>,
}

impl Input {
    pub(crate) fn open(path: &Path) -> Result<Input> {
        if path == Path::new("-") {
            return Input::new("standard input".into(), path, Box::new(io::stdin()), None);
        }
        let name: Arc<str> = path.display().to_string().into();
        let refuse = |error: io::Error| open_error(&name, error);
        let file = File::open(path).map_err(refuse)?;
        let metadata = file.metadata().map_err(refuse)?;
        if metadata.is_dir() {
            return Err(Error::new(
                ErrorKind::Io,
                format!("cannot read {name}: it is a directory, not a file"),
            ));
        }
        let size = metadata.is_file().then_some(metadata.len());
        let reader = file.try_clone().map_err(refuse)?;
        let mut input = Input::new(name.clone(), path, Box::new(reader), size)?;
        if size.is_some() && input.compression == Compression::None {
            input.seekable = Some(file);
        }
        Ok(input)
    }

    pub(crate) fn from_reader(name: &str, reader: BoxRead) -> Result<Input> {
        Input::new(name.into(), Path::new(name), reader, None)
    }

    fn new(name: Arc<str>, path: &Path, reader: BoxRead, bytes_total: Option<u64>) -> Result<Input> {
        let bytes_read = Arc::new(AtomicU64::new(0));
        let mut reader: BoxRead = Box::new(Counted { reader, bytes: bytes_read.clone() });
        let read_error = |error| open_error(&name, error);
        let head = read_head(&mut reader).map_err(read_error)?;
        let compression = Compression::of_content(&head);
        let promised = Compression::of_name(path);
        if compression == Compression::None && promised != Compression::None && !head.is_empty() {
            let message = format!(
                "cannot read {name}: its name promises {promised}, its first bytes are something else"
            );
            return Err(Error::new(ErrorKind::Io, message));
        }
        let raw = Cursor::new(head.clone()).chain(reader);
        let (head, reader): (Vec<u8>, BoxRead) = match compression {
            Compression::None => (head, Box::new(raw)),
            Compression::Gzip => {
                reopen_head(Box::new(Members { decoder: Some(GzDecoder::new(BufReader::new(raw))) }))
            }
            Compression::Zstd => {
                let decoder = zstd::stream::read::Decoder::new(raw).map_err(read_error)?;
                reopen_head(Box::new(decoder))
            }
        };
        let path = path.to_owned();
        Ok(Input { name, path, compression, head, reader, seekable: None, bytes_read, bytes_total })
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn compression(&self) -> Compression {
        self.compression
    }

    /// The first bytes of the decompressed content.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// The format asked for, else the one of the name, else the one the content shows, else CSV.
    pub(crate) fn format(&self, asked: Option<Format>) -> Format {
        asked
            .or_else(|| Format::of_name(&self.path))
            .or_else(|| Format::of_content(&self.head))
            .unwrap_or(Format::Csv)
    }

    /// Bytes read of the file as it is stored.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// The counter behind [`Input::bytes_read`].
    pub(crate) fn counter(&self) -> Arc<AtomicU64> {
        self.bytes_read.clone()
    }

    pub(crate) fn bytes_total(&self) -> Option<u64> {
        self.bytes_total
    }

    /// Reads some bytes; 0 means the end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.reader.read(buffer) {
                Ok(bytes) => return Ok(bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_error(error)),
            }
        }
    }

    /// The content as a file to seek in, from its start: the file itself, or a temporary copy without a name.
    pub(crate) fn into_file(mut self) -> Result<(File, Option<u64>)> {
        if let Some(mut file) = self.seekable.take() {
            file.seek(SeekFrom::Start(0)).map_err(|error| self.read_error(error))?;
            return Ok((file, self.bytes_total));
        }
        let name = self.name.clone();
        let spool_error =
            |error: io::Error| Error::from(error).context(format!("cannot copy {name} to a temporary file"));
        let mut spool = tempfile::tempfile().map_err(spool_error)?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let bytes = self.read(&mut buffer)?;
            if bytes == 0 {
                break;
            }
            io::Write::write_all(&mut spool, &buffer[..bytes]).map_err(spool_error)?;
        }
        spool.seek(SeekFrom::Start(0)).map_err(spool_error)?;
        Ok((spool, self.bytes_total))
    }

    /// What a failed read says: the file, the place, and whether the compressed data ends early.
    pub(crate) fn read_error(&self, error: io::Error) -> Error {
        let (name, compression, bytes) = (&self.name, self.compression, self.bytes_read());
        let message = match (compression, error.kind()) {
            _ if error.get_ref().is_some_and(|inner| inner.is::<DataAfterEnd>()) => format!(
                "{name} has data after the end of its gzip stream that is not gzip: remove that, or compress all of it"
            ),
            (Compression::None, _) => format!("reading {name} failed at byte {bytes}: {error}"),
            (_, io::ErrorKind::UnexpectedEof) => {
                format!("{name} is truncated: its {compression} data is cut off at byte {bytes}")
            }
            _ => {
                format!("{name} is damaged: its {compression} data cannot be read near byte {bytes}: {error}")
            }
        };
        Error::new(Error::from(io::Error::from(error.kind())).kind(), message).with_source(error)
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

/// The members of a gzip file, one after another. What follows a member must be another one: a decoder of its own would take a
/// few bytes of something else for a member cut off.
struct Members<R> {
    /// `None` after the last member.
    decoder: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            let bytes = decoder.read(buffer)?;
            if bytes > 0 || buffer.is_empty() {
                return Ok(bytes);
            }
            self.decoder = match self.decoder.take() {
                Some(ended) => next_member(ended.into_inner())?,
                None => None,
            };
        }
        Ok(0)
    }
}

fn next_member<R: BufRead>(mut rest: R) -> io::Result<Option<GzDecoder<R>>> {
    match rest.fill_buf()? {
        [] => Ok(None),
        [0x1f] | [0x1f, 0x8b, ..] => Ok(Some(GzDecoder::new(rest))),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, DataAfterEnd)),
    }
}

/// What follows a gzip member is no gzip member.
#[derive(Debug)]
struct DataAfterEnd;

impl std::error::Error for DataAfterEnd {}

impl fmt::Display for DataAfterEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("data after the end of the gzip stream")
    }
}

/// Counts the bytes that pass.
struct Counted {
    reader: BoxRead,
    bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.reader.read(buffer)?;
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

fn read_head(reader: &mut BoxRead) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    reader.take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok(head)
}

/// Reads the head of a decoder and puts it back. An error that comes so early is met again by the next read, where it
/// can be told with its place; what was decoded before it stays.
fn reopen_head(mut decoder: BoxRead) -> (Vec<u8>, BoxRead) {
    let mut head = Vec::new();
    match (&mut decoder).take(HEAD_BYTES).read_to_end(&mut head) {
        Ok(_) => (head.clone(), Box::new(Cursor::new(head).chain(decoder))),
        Err(error) => (head.clone(), Box::new(Cursor::new(head).chain(Failed(Some(error))))),
    }
}

/// Fails once with the error it was given.
struct Failed(Option<io::Error>);

impl Read for Failed {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match self.0.take() {
            Some(error) => Err(error),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn open_error(name: &str, error: io::Error) -> Error {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        _ => error.to_string(),
    };
    let kind = Error::from(io::Error::from(error.kind())).kind();
    Error::new(kind, format!("cannot read {name}: {reason}")).with_source(error)
}
