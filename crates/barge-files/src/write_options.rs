//! What a writer is told: format, compression, CSV dialect, limits.

use std::path::Path;

use barge_core::{Error, ErrorKind, Result};

use crate::options::{Compression, Format};
use crate::output::name;

/// How a file is written. [`WriteOptions::default`] suits most files.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// The format. Defaults to `None`: by the file's name.
    pub format: Option<Format>,
    /// How the file is compressed as a whole; only text formats are. Parquet is compressed within, with Zstandard, and Arrow IPC isn't
    /// compressed. Defaults to `None`: by the file's name.
    pub compression: Option<Compression>,
    /// The CSV dialect. Other formats ignore it.
    pub csv: CsvWriteOptions,
    /// Whether a file that is there is replaced, once the new one is whole; else it is an error. Defaults to false.
    pub overwrite: bool,
    /// The most rows in a row group of Parquet. Defaults to 131,072: few enough for readers that take groups side by side, enough for
    /// columns to compress well.
    pub row_group_rows: usize,
    /// The most bytes of a row group of Parquet, about; it is held in memory until it is whole. Defaults to 64 MiB.
    pub row_group_bytes: usize,
}

impl Default for WriteOptions {
    fn default() -> Self {
        WriteOptions {
            format: None,
            compression: None,
            csv: CsvWriteOptions::default(),
            overwrite: false,
            row_group_rows: 128 << 10,
            row_group_bytes: 64 << 20,
        }
    }
}

impl WriteOptions {
    /// Checks that the settings make sense. [`Sink::create`](crate::Sink::create) does so itself.
    ///
    /// # Errors
    /// `InvalidConfig`, naming the setting.
    pub fn validate(&self) -> Result<()> {
        for (name, value) in
            [("row_group_rows", self.row_group_rows), ("row_group_bytes", self.row_group_bytes)]
        {
            if value == 0 || value > 1 << 30 {
                let message = format!("{name} is {value}: it must be from 1 to {}", 1 << 30);
                return Err(Error::new(ErrorKind::InvalidConfig, message));
            }
        }
        self.csv.validate()
    }

    /// The format and compression of a file of some name.
    ///
    /// # Errors
    /// `InvalidConfig` where nothing says the format, or the format isn't compressed as a whole.
    pub fn settle(&self, path: &Path) -> Result<(Format, Compression)> {
        let refuse = |message: String| Err(Error::new(ErrorKind::InvalidConfig, message));
        let Some(format) = self.format.or_else(|| Format::of_name(path)) else {
            return refuse(format!(
                "{} doesn't say its format: end its name in .parquet, .csv, .jsonl or .arrow, or use --format",
                name(path)
            ));
        };
        let compression = self.compression.unwrap_or_else(|| Compression::of_name(path));
        if compression != Compression::None && matches!(format, Format::Parquet | Format::ArrowIpc) {
            return refuse(format!(
                "{}: {format} is not compressed as a whole: leave the ending for {compression} out",
                path.display()
            ));
        }
        Ok((format, compression))
    }
}

/// How CSV is written: with a header, in UTF-8, lines ended by LF, quotes doubled within quotes.
///
/// The empty text is quoted, so that it isn't NULL. Text is also quoted where it holds any of `,` `;` tab `|`, so that readers which guess
/// the delimiter guess right.
#[derive(Clone, Debug, Default)]
pub struct CsvWriteOptions {
    /// The byte between fields. Defaults to `None`: a tab for `.tsv` and `.tab`, `|` for `.psv`, else a comma.
    pub delimiter: Option<u8>,
    /// The word that means NULL; it stands without quotes, and the same word as a value in quotes. Readers have to be told any but
    /// the default, the empty word. A table of one column that has NULLs needs another: an empty line is no row.
    pub null: String,
}

impl CsvWriteOptions {
    fn validate(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::new(ErrorKind::InvalidConfig, message));
        if let Some(byte @ (b'\r' | b'\n' | b'"' | 0x80..)) = self.delimiter {
            return refuse(format!(
                "the CSV delimiter {byte:#04x} cannot be told from text: use another ASCII character"
            ));
        }
        let is_delimiter = |byte: u8| Some(byte) == self.delimiter || b",;\t|\"\r\n".contains(&byte);
        if self.null.bytes().any(is_delimiter) {
            return refuse(format!(
                "the CSV word for NULL, {:?}, holds a delimiter, a quote or a line break",
                self.null
            ));
        }
        Ok(())
    }
}
