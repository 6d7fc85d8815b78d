//! The bytes of a file on their way out: counted, compressed, and under the file's name only once they are whole.
//!
//! A file is written beside the place it is meant for, under a name of its own that begins with `.barge-`, forced to the disk and renamed.
//! Until then the name stands for what it stood for before; what is dropped unfinished is removed. Standard output, and what is no
//! regular file (a pipe, a device), is written to directly.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use barge_core::{Error, ErrorKind, Result};
use flate2::write::GzEncoder;
use tempfile::NamedTempFile;

use crate::options::Compression;

const BUFFER_BYTES: usize = 256 << 10;

/// Where bytes are written.
pub(crate) type Stream = BufWriter<Counted>;

/// A file that is being written, but for its bytes' way there.
pub(crate) struct Output {
    name: Arc<str>,
    place: Place,
    bytes: Arc<AtomicU64>,
    failure: Arc<OnceLock<Error>>,
}

enum Place {
    /// Written to directly.
    Open,
    /// A file beside its final place.
    Beside { file: NamedTempFile, path: PathBuf, overwrite: bool },
}

impl Output {
    /// Opens what a path stands for; `-` is standard output.
    pub(crate) fn open(path: &Path, overwrite: bool) -> Result<(Output, Stream)> {
        let name = name(path);
        if path == Path::new("-") {
            return Ok(Output::new(name, Place::Open, Box::new(io::stdout())));
        }
        let found = check(path, overwrite)?;
        if found.as_ref().is_some_and(|found| !found.is_file()) {
            let file = OpenOptions::new().write(true).open(path).map_err(|error| refused(&name, error))?;
            return Ok(Output::new(name, Place::Open, Box::new(file)));
        }
        // The file that a link leads to, not the link, is replaced.
        let path = if found.is_some() { path.canonicalize()? } else { path.to_owned() };
        let file = beside(&path, found.as_ref()).map_err(|error| refused(&name, error))?;
        let stream = file.as_file().try_clone().map_err(|error| refused(&name, error))?;
        Ok(Output::new(name, Place::Beside { file, path, overwrite }, Box::new(stream)))
    }

    /// Output to a writer under a name.
    pub(crate) fn to_writer(name: &str, writer: Box<dyn Write + Send>) -> (Output, Stream) {
        Output::new(name.into(), Place::Open, writer)
    }

    fn new(name: Arc<str>, place: Place, writer: Box<dyn Write + Send>) -> (Output, Stream) {
        let (bytes, failure) = (Arc::default(), Arc::default());
        let counted = Counted { writer, bytes: Arc::clone(&bytes), failure: Arc::clone(&failure) };
        (Output { name, place, bytes, failure }, BufWriter::with_capacity(BUFFER_BYTES, counted))
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Counts the bytes written, as they are stored.
    pub(crate) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes)
    }

    /// What a failure of an encoder comes from: encoders wrap what writing said, so it is kept.
    pub(crate) fn failure(&self, error: Error) -> Error {
        self.failure.get().cloned().unwrap_or(error).context(format!("writing {} failed", self.name))
    }

    /// Puts the whole file in its place.
    pub(crate) fn finish(self, mut stream: Stream) -> Result<()> {
        let flushed = stream.flush().map_err(Error::from);
        flushed.map_err(|error| self.failure(error))?;
        let Place::Beside { file, path, overwrite } = self.place else { return Ok(()) };
        let failed = |error: io::Error| Error::from(error).context(format!("writing {} failed", self.name));
        file.as_file().sync_all().map_err(failed)?;
        // Afterwards nothing may fail: the file is there.
        let directory = if cfg!(unix) { File::open(directory(&path)).ok() } else { None };
        let placed = if overwrite { file.persist(&path) } else { file.persist_noclobber(&path) };
        match placed {
            Ok(_) => {
                // A folder that this user may not read can't be forced to the disk, nor one on some network drives.
                let _ = directory.map(|directory| directory.sync_all());
                Ok(())
            }
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(is_there(&self.name)),
            Err(error) => Err(failed(error.error)),
        }
    }
}

/// Whether a file could be written there, and what is there now.
///
/// # Errors
/// `InvalidConfig` where a file is there that must not be replaced; `Io` where the folder isn't there.
pub(crate) fn check(path: &Path, overwrite: bool) -> Result<Option<Metadata>> {
    let name = name(path);
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            Err(Error::new(ErrorKind::Io, format!("cannot write {name}: it is a directory, not a file")))
        }
        Ok(found) if found.is_file() && !overwrite => Err(is_there(&name)),
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(refused(&name, error)),
        Err(_) => {
            let directory = directory(path);
            match std::fs::metadata(directory) {
                Ok(found) if found.is_dir() => Ok(None),
                Ok(_) => Err(cannot(&name, ErrorKind::Io, &format!("{} is no folder", directory.display()))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let reason = format!("there is no folder {}", directory.display());
                    Err(cannot(&name, ErrorKind::Io, &reason))
                }
                Err(error) => Err(refused(&name, error)),
            }
        }
    }
}

/// A path as messages have it.
pub(crate) fn name(path: &Path) -> Arc<str> {
    match path == Path::new("-") {
        true => "standard output".into(),
        false => path.display().to_string().into(),
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != OsStr::new("")).unwrap_or(Path::new("."))
}

/// A new file in the same folder, with the permissions of the one that it will replace.
fn beside(path: &Path, found: Option<&Metadata>) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".barge-").suffix(".partial");
    #[cfg(unix)]
    let ordinary = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    #[cfg(unix)]
    builder.permissions(found.map_or(ordinary, Metadata::permissions));
    let file = builder.tempfile_in(directory(path))?;
    // The umask took some of those it was made with.
    #[cfg(unix)]
    if let Some(found) = found {
        file.as_file().set_permissions(found.permissions())?;
    }
    Ok(file)
}

fn is_there(name: &str) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!("{name} is there already: choose another name, or have it replaced with --overwrite"),
    )
}

fn cannot(name: &str, kind: ErrorKind, reason: &str) -> Error {
    Error::new(kind, format!("cannot write {name}: {reason}"))
}

fn refused(name: &str, error: io::Error) -> Error {
    let reason = match error.kind() {
        io::ErrorKind::PermissionDenied => "this user may not write there".to_owned(),
        _ => error.to_string(),
    };
    let kind = Error::from(io::Error::from(error.kind())).kind();
    cannot(name, kind, &reason).with_source(error)
}

/// Counts the bytes that pass, and keeps the first failure.
pub(crate) struct Counted {
    writer: Box<dyn Write + Send>,
    bytes: Arc<AtomicU64>,
    failure: Arc<OnceLock<Error>>,
}

impl Counted {
    fn note<T>(&self, done: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &done
            && error.kind() != io::ErrorKind::Interrupted
        {
            let copy = error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
            self.failure.get_or_init(|| match error.kind() {
                io::ErrorKind::BrokenPipe => Error::from(copy).context("its reader went away"),
                _ => Error::from(copy),
            });
        }
        done
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes);
        let written = self.note(written)?;
        self.bytes.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.writer.flush();
        self.note(flushed)
    }
}

/// A stream, compressed or not.
pub(crate) enum Compressed {
    Not(Stream),
    Gzip(GzEncoder<Stream>),
    Zstd(zstd::Encoder<'static, Stream>),
}

impl Compressed {
    pub(crate) fn new(stream: Stream, compression: Compression) -> io::Result<Compressed> {
        Ok(match compression {
            Compression::None => Compressed::Not(stream),
            Compression::Gzip => Compressed::Gzip(GzEncoder::new(stream, flate2::Compression::default())),
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(stream, zstd::DEFAULT_COMPRESSION_LEVEL)?;
                encoder.include_checksum(true)?;
                Compressed::Zstd(encoder)
            }
        })
    }

    /// Ends the compressed data.
    pub(crate) fn finish(self) -> io::Result<Stream> {
        match self {
            Compressed::Not(stream) => Ok(stream),
            Compressed::Gzip(encoder) => encoder.finish(),
            Compressed::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl Write for Compressed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Compressed::Not(stream) => stream.write(bytes),
            Compressed::Gzip(encoder) => encoder.write(bytes),
            Compressed::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Compressed::Not(stream) => stream.flush(),
            Compressed::Gzip(encoder) => encoder.flush(),
            Compressed::Zstd(encoder) => encoder.flush(),
        }
    }
}
