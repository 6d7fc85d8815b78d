//! What a reader is told: format, compression, CSV dialect, limits, and the types of columns.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use barge_core::{Error, ErrorKind, Result};

use crate::source::DeadLetter;

/// A file's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Values between delimiters, a record a line, quoted where needed.
    Csv,
    /// A JSON object a line. Dead letters are such files too.
    JsonLines,
    /// Apache Parquet.
    Parquet,
    /// Apache Arrow IPC, the file or the stream format; the magic bytes tell which.
    ArrowIpc,
}

impl Format {
    /// The format that a file's name promises, compression endings aside.
    pub fn of_name(path: &Path) -> Option<Format> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let name =
            Compression::ENDINGS.iter().find_map(|(ending, _)| name.strip_suffix(ending)).unwrap_or(&name);
        match name.rsplit_once('.')?.1 {
            "csv" | "tsv" | "tab" | "psv" | "txt" => Some(Format::Csv),
            "jsonl" | "ndjson" | "json" => Some(Format::JsonLines),
            "parquet" | "pq" => Some(Format::Parquet),
            "arrow" | "arrows" | "ipc" | "feather" => Some(Format::ArrowIpc),
            _ => None,
        }
    }

    /// The format that the first bytes of the (decompressed) content show. CSV has no mark of its own: it is `None`.
    pub(crate) fn of_content(head: &[u8]) -> Option<Format> {
        if head.starts_with(b"PAR1") {
            return Some(Format::Parquet);
        }
        if head.starts_with(b"ARROW1") || head.starts_with(&[0xff; 4]) {
            return Some(Format::ArrowIpc);
        }
        let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
        (text.trim_ascii_start().first() == Some(&b'{')).then_some(Format::JsonLines)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Csv => "CSV",
            Format::JsonLines => "JSON lines",
            Format::Parquet => "Parquet",
            Format::ArrowIpc => "Arrow IPC",
        })
    }
}

/// How a file is compressed as a whole. Compression inside Parquet and Arrow IPC files is another matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, of one member or many.
    Gzip,
    /// Zstandard, of one frame or many.
    Zstd,
}

impl Compression {
    pub(crate) const ENDINGS: [(&str, Compression); 4] = [
        (".gz", Compression::Gzip),
        (".gzip", Compression::Gzip),
        (".zst", Compression::Zstd),
        (".zstd", Compression::Zstd),
    ];

    /// The compression that a file's name promises.
    pub fn of_name(path: &Path) -> Compression {
        let name =
            path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        Self::ENDINGS
            .iter()
            .find(|(ending, _)| name.ends_with(ending))
            .map_or(Compression::None, |&(_, compression)| compression)
    }

    pub(crate) fn of_content(head: &[u8]) -> Compression {
        match head {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A skippable frame may come first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        })
    }
}

/// Gives the types of a table that a dead letter names, or `None` where the table is unknown.
pub type TableSchemas = Arc<dyn Fn(&DeadLetter) -> Option<SchemaRef> + Send + Sync>;

/// How a file is read. [`ReadOptions::default`] suits most files.
#[derive(Clone)]
pub struct ReadOptions {
    /// The format. Defaults to `None`: by the file's name, else by its first bytes, else CSV.
    pub format: Option<Format>,
    /// The CSV dialect. Other formats ignore it.
    pub csv: CsvOptions,
    /// The most rows in a chunk. A row group or IPC batch larger than this is cut. Defaults to 10,000.
    pub batch_rows: usize,
    /// The most bytes of values in a chunk of a text format, checked after each row: a larger row comes alone. For
    /// Parquet the rows of a chunk are reckoned from it by the file's own sizes. Defaults to 2 MiB, at most 1 GiB.
    pub batch_bytes: usize,
    /// The most bytes of one row of a text format; a larger row is rejected. Defaults to 16 MiB, at most 1 GiB.
    pub row_bytes_max: usize,
    /// The most bytes of a rejected line of a text format that are kept as its `raw` text, and as its `values`; at most
    /// `row_bytes_max` count. Whoever wants to load rejected lines again asks for as many as a row may have. Defaults to 4,096.
    pub rejected_bytes_max: usize,
    /// How many rows types are inferred from, and the keys of JSON lines gathered. The sample is held in memory and
    /// ends early at `batch_bytes`. Defaults to 1,000.
    pub sample_rows: usize,
    /// The target table's types, where it exists. A column of a text format named in it is parsed as exactly that type
    /// instead of an inferred one. Parquet and Arrow IPC keep the file's types. Defaults to `None`.
    pub schema: Option<SchemaRef>,
    /// The types of the tables that dead letters name; asked once for each table. A table it does not know
    /// falls back to `schema`. Defaults to `None`.
    pub tables: Option<TableSchemas>,
    /// Columns of a text format to be kept as text. Wins over `types` and `schema`. Defaults to none.
    pub text_columns: Vec<String>,
    /// Types of columns of a text format, by name. Wins over `schema`. Defaults to none.
    pub types: Vec<(String, DataType)>,
    /// Bytes asked of the operating system at a time. It changes no result. Defaults to 256 KiB.
    pub read_bytes: usize,
}

impl Default for ReadOptions {
    fn default() -> Self {
        ReadOptions {
            format: None,
            csv: CsvOptions::default(),
            batch_rows: 10_000,
            batch_bytes: 2 << 20,
            row_bytes_max: 16 << 20,
            rejected_bytes_max: 4 << 10,
            sample_rows: 1_000,
            schema: None,
            tables: None,
            text_columns: Vec::new(),
            types: Vec::new(),
            read_bytes: 256 << 10,
        }
    }
}

impl ReadOptions {
    /// Checks that the settings make sense. [`Source::open`](crate::Source::open) does so itself.
    ///
    /// # Errors
    /// `InvalidConfig`, naming the setting.
    pub fn validate(&self) -> Result<()> {
        const GIB: usize = 1 << 30;
        for (name, value, max) in [
            ("batch_rows", self.batch_rows, u32::MAX as usize),
            ("batch_bytes", self.batch_bytes, GIB),
            ("row_bytes_max", self.row_bytes_max, GIB),
            ("rejected_bytes_max", self.rejected_bytes_max, GIB),
            ("sample_rows", self.sample_rows, u32::MAX as usize),
            ("read_bytes", self.read_bytes, GIB),
        ] {
            if value == 0 || value > max {
                let message = format!("{name} is {value}: it must be from 1 to {max}");
                return Err(Error::new(ErrorKind::InvalidConfig, message));
            }
        }
        self.csv.validate()
    }
}

impl fmt::Debug for ReadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadOptions")
            .field("format", &self.format)
            .field("csv", &self.csv)
            .field("batch_rows", &self.batch_rows)
            .field("batch_bytes", &self.batch_bytes)
            .field("row_bytes_max", &self.row_bytes_max)
            .field("rejected_bytes_max", &self.rejected_bytes_max)
            .field("sample_rows", &self.sample_rows)
            .field("schema", &self.schema)
            .field("tables", &self.tables.is_some())
            .field("text_columns", &self.text_columns)
            .field("types", &self.types)
            .field("read_bytes", &self.read_bytes)
            .finish()
    }
}

/// A CSV dialect.
///
/// Lines end with LF, CRLF or CR. Empty lines are skipped. A byte order mark is skipped. Within quotes
/// a quote is written twice; text after a closing quote is an error of that row.
#[derive(Clone, Debug)]
pub struct CsvOptions {
    /// The byte between fields. Defaults to `None`: a tab for `.tsv` and `.tab`, else the one of `,` `;` tab `|` that
    /// divides the first 64 KiB most evenly.
    pub delimiter: Option<u8>,
    /// The byte around quoted fields. Defaults to `Some(b'"')`; `None` takes quotes as they are.
    pub quote: Option<u8>,
    /// Whether the first record holds the columns' names. Defaults to true. Without one, and without `columns`, the
    /// names are `column_1`, `column_2`, and so on.
    pub has_header: bool,
    /// Unquoted fields that mean NULL. A quoted one is text, except that in columns of other types an empty quoted field
    /// is NULL too. Defaults to the empty field.
    pub nulls: Vec<String>,
    /// Names for all columns, instead of the header's. Defaults to `None`.
    pub columns: Option<Vec<String>>,
}

impl Default for CsvOptions {
    fn default() -> Self {
        CsvOptions {
            delimiter: None,
            quote: Some(b'"'),
            has_header: true,
            nulls: vec![String::new()],
            columns: None,
        }
    }
}

impl CsvOptions {
    fn validate(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::new(ErrorKind::InvalidConfig, message));
        for (name, byte) in [("delimiter", self.delimiter), ("quote", self.quote)] {
            if let Some(byte @ (b'\r' | b'\n' | 0x80..)) = byte {
                return refuse(format!(
                    "the CSV {name} {byte:#04x} cannot be told from text: use an ASCII character"
                ));
            }
        }
        if self.delimiter.is_some() && self.delimiter == self.quote {
            return refuse("the CSV delimiter and the CSV quote are the same character".into());
        }
        Ok(())
    }
}
