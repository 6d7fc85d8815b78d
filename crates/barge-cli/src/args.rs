//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use barge::Operation;
use barge::arrow::datatypes::{DataType, TimeUnit};
use barge_files::{CsvOptions, Format, ReadOptions};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// How large a batch may become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BatchLimits {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

const LOAD_EXAMPLES: &str = "\
Examples:
  barge load prices.csv --to sqlite:market.db --table prices --key date
      Creates the table where it is missing, with column types inferred from the file.
  barge load day1.csv.gz day2.csv.gz --to postgres://me@db.example.com/market --table prices --mode upsert
      Adds new rows and updates those that are there, by the table's primary key.
  barge load orders.csv --to sqlite:shop.db --table orders --dead-letter rejected.jsonl
      Keeps rejected rows with their reasons.
  barge load rejected.jsonl --to sqlite:shop.db
      Loads them again, each into its table, once the cause is mended.
  zcat events.jsonl.gz | barge load - --format jsonl --to postgres:// --table audit.events
      Loads standard input into this machine's PostgreSQL; what a URL leaves out comes from PGHOST and the like, and
      passwords from PGPASSWORD or ~/.pgpass.

Exit status:
  0    all rows are written
  1    an error ended the load, or more rows were rejected than --max-rejects allows
  2    the command line is wrong
  3    the load ran to its end, and some rows were rejected
  130  Ctrl-C or SIGTERM ended the load: what was read is written and reported; a second one ends at once";

const DESCRIBE_EXAMPLES: &str = "\
Examples:
  barge describe sqlite:market.db prices
  barge describe postgres://me@localhost/market audit.events";

/// Moves rows between files and databases in batches.
#[derive(Debug, Parser)]
#[command(
    name = "barge",
    version,
    about,
    after_help = "Logs: BARGE_LOG=debug (or RUST_LOG) writes them to standard error."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Load files into a table, in batches; every row is written or reported
    #[command(after_help = LOAD_EXAMPLES)]
    Load(Box<Load>),
    /// List the tables and views of a database
    #[command(
        after_help = "Examples:\n  barge tables sqlite:market.db\n  barge tables postgres://me@localhost/market"
    )]
    Tables {
        /// The database: sqlite:FILE, duckdb:FILE or postgres://USER@HOST/DATABASE
        url: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Describe a table: columns, keys, foreign keys, triggers
    #[command(after_help = DESCRIBE_EXAMPLES)]
    Describe {
        /// The database: sqlite:FILE, duckdb:FILE or postgres://USER@HOST/DATABASE
        url: String,
        /// The table's name. Where no table has this name as it is, a dot parts schema and table
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        table: String,
        /// The schema the table lives in; on SQLite, an attached database [default: the database's own]
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        schema: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What a load does with rows and tables that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Add rows; one whose key is there is rejected. Creates the table where it is missing
    Append,
    /// Add rows, or set their columns where the key is there. Creates the table where it is missing
    Upsert,
    /// Set the columns of rows that are there; others are counted as not found
    Update,
    /// Put the file's rows in the place of all rows, at the end and in one transaction: a load that fails or is
    /// interrupted leaves the table as it was. Keeps the table's definition
    Replace,
    /// Create the table and add rows; fails where the table exists
    Create,
}

impl Mode {
    pub(crate) fn operation(self) -> Operation {
        match self {
            Mode::Append | Mode::Replace | Mode::Create => Operation::Insert,
            Mode::Upsert => Operation::Upsert,
            Mode::Update => Operation::Update,
        }
    }

    /// Whether the order of rows makes no difference to what is in the table at the end, but for rows that are rejected.
    pub(crate) fn is_unordered(self) -> bool {
        matches!(self, Mode::Append | Mode::Create)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Mode::Append => "append",
            Mode::Upsert => "upsert",
            Mode::Update => "update",
            Mode::Replace => "replace",
            Mode::Create => "create",
        }
    }
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressStyle {
    /// A bar where standard error is a terminal, else lines
    Auto,
    /// A bar
    Bar,
    /// A line every --progress-seconds
    Plain,
    /// Nothing
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileFormat {
    /// Comma-separated values, or another delimiter
    Csv,
    /// A JSON object a line; dead letters too
    Jsonl,
    /// Apache Parquet
    Parquet,
    /// Apache Arrow IPC, file or stream
    Arrow,
}

#[derive(Args, Debug)]
pub(crate) struct Load {
    /// Files to load, in this order, through one writer; - is standard input. Files may be compressed with gzip or
    /// Zstandard. Columns are matched to the table's by name
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The database to load into: sqlite:FILE, duckdb:FILE or postgres://USER@HOST/DATABASE, with settings after a ?
    #[arg(long = "to", value_name = "URL")]
    pub(crate) url: String,
    /// The table to load into. Where no table has this name as it is, a dot parts schema and table; on SQLite, where there is such a
    /// table. Needed unless the file holds dead letters, which name theirs
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) table: Option<String>,
    /// The schema the table lives in; on SQLite, an attached database [default: the database's own]
    #[arg(long, value_name = "NAME", requires = "table", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) schema: Option<String>,
    /// Key columns, separated by commas; may be repeated, and a column whose name has a comma goes in double quotes. A new
    /// table gets this primary key. Upsert and update find rows by it [default: an existing table's primary key]
    #[arg(long, value_name = "COLUMN,…")]
    pub(crate) key: Vec<String>,
    /// What to do with rows and tables that are there [default: append, or what each dead letter says]
    #[arg(long, value_enum)]
    pub(crate) mode: Option<Mode>,

    /// The most rows in one batch, which is one transaction [default: 10000, and 122880 for DuckDB, whose row groups have so many]
    #[arg(long, value_name = "ROWS", value_parser = rows, help_heading = "Batches")]
    pub(crate) batch_rows: Option<usize>,
    /// The most bytes in one batch: a number, or one with KiB, MiB or GiB [default: 8MiB, and 64MiB for DuckDB]
    #[arg(long, value_name = "BYTES", value_parser = bytes, help_heading = "Batches")]
    pub(crate) batch_bytes: Option<usize>,
    /// PostgreSQL: over how many connections rows are written at a time. More than 1 is for append and create alone, and commits batches
    /// in any order; of two rows of one key either may be the one that is rejected [default: one more than there are cores, at most 4]
    #[arg(long, value_name = "N", value_parser = connections, help_heading = "Batches")]
    pub(crate) connections: Option<usize>,

    /// Append rejected rows to a file of JSON lines, with their reasons; `barge load` reads it back
    #[arg(long, value_name = "FILE", help_heading = "Rejected rows")]
    pub(crate) dead_letter: Option<PathBuf>,
    /// Stop with status 1 once more rows than this are rejected; what was read by then is written. 0 stops at the
    /// first [default: no limit]
    #[arg(long, value_name = "N", help_heading = "Rejected rows")]
    pub(crate) max_rejects: Option<u64>,

    #[command(flatten)]
    pub(crate) reading: Reading,

    /// Print the summary as JSON
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
    /// Show no progress and no summary; errors still
    #[arg(long, short, help_heading = "Output")]
    pub(crate) quiet: bool,
    /// How progress is shown, on standard error
    #[arg(long, value_enum, default_value_t = ProgressStyle::Auto, help_heading = "Output")]
    pub(crate) progress: ProgressStyle,
    /// Seconds between lines of progress
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds, help_heading = "Output")]
    pub(crate) progress_seconds: f64,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Reading")]
pub(crate) struct Reading {
    /// The files' format [default: by name, else by content, else csv]
    #[arg(long, value_enum)]
    pub(crate) format: Option<FileFormat>,
    /// CSV: the character between fields; `tab` or \t for a tab [default: the one of , ; tab | that fits]
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    pub(crate) delimiter: Option<u8>,
    /// CSV: the character around fields, doubled within them; `none` takes quotes as they are
    #[arg(long, value_name = "CHARACTER", default_value = "\"", value_parser = quote)]
    pub(crate) quote: Quote,
    /// CSV: the first line is a row; columns are column_1, column_2, … or those of --columns
    #[arg(long)]
    pub(crate) no_header: bool,
    /// CSV: names for all columns, separated by commas, instead of the header's
    #[arg(long, value_name = "NAME,…")]
    pub(crate) columns: Vec<String>,
    /// CSV: an unquoted field that means NULL; may be repeated [default: the empty field]
    #[arg(long, value_name = "TEXT")]
    pub(crate) null: Vec<String>,
    /// CSV, JSON: keep a column as text; may be repeated
    #[arg(long, value_name = "COLUMN")]
    pub(crate) text: Vec<String>,
    /// CSV, JSON: a column's type, instead of the inferred or the table's; may be repeated. One of boolean, int8 to
    /// int64, uint8 to uint64, float32, float64, decimal(P,S), text, binary, date, time, timestamp, timestamptz
    #[arg(long, value_name = "NAME=TYPE", value_parser = column_type)]
    pub(crate) column_type: Vec<(String, DataType)>,
    /// CSV, JSON: rows from which the types of columns are inferred. Every row is then checked against them
    #[arg(long, value_name = "ROWS", default_value_t = 1_000, value_parser = rows)]
    pub(crate) sample_rows: usize,
}

/// The quote character, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quote(Option<u8>);

impl Load {
    /// The limits of a batch: what is said, or else the database's own.
    pub(crate) fn batch_limits(&self, own: BatchLimits) -> BatchLimits {
        BatchLimits {
            rows: self.batch_rows.unwrap_or(own.rows),
            bytes: self.batch_bytes.unwrap_or(own.bytes),
        }
    }

    /// How files are to be read, but for the target's types.
    pub(crate) fn read_options(&self, limits: BatchLimits) -> Result<ReadOptions, String> {
        let reading = &self.reading;
        let columns = names(&reading.columns)?;
        let mut csv = CsvOptions {
            delimiter: reading.delimiter,
            quote: reading.quote.0,
            has_header: !reading.no_header,
            columns: (!columns.is_empty()).then_some(columns),
            ..CsvOptions::default()
        };
        if !reading.null.is_empty() {
            csv.nulls = reading.null.clone();
        }
        let defaults = ReadOptions::default();
        Ok(ReadOptions {
            format: reading.format.map(|format| match format {
                FileFormat::Csv => Format::Csv,
                FileFormat::Jsonl => Format::JsonLines,
                FileFormat::Parquet => Format::Parquet,
                FileFormat::Arrow => Format::ArrowIpc,
            }),
            csv,
            batch_rows: limits.rows,
            batch_bytes: limits.bytes,
            sample_rows: reading.sample_rows,
            rejected_bytes_max: match &self.dead_letter {
                // What can't be loaded again is not kept.
                Some(_) => defaults.row_bytes_max,
                None => defaults.rejected_bytes_max,
            },
            text_columns: reading.text.clone(),
            types: reading.column_type.clone(),
            ..defaults
        })
    }
}

/// Names from comma-separated lists. In double quotes a comma is part of the name, and a quote is written twice.
pub(crate) fn names(lists: &[String]) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for list in lists {
        let mut rest = list.as_str();
        loop {
            let (name, after) = one_name(rest).ok_or_else(|| format!("{list}: a quote is not closed"))?;
            if name.is_empty() {
                return Err(format!("{list:?}: a column's name is empty"));
            }
            if names.contains(&name) {
                return Err(format!("{list}: column {name} is there twice"));
            }
            names.push(name);
            match after.strip_prefix(',') {
                Some(after) => rest = after,
                None if after.is_empty() => break,
                None => return Err(format!("{list}: expected a comma before {after}")),
            }
        }
    }
    Ok(names)
}

/// The first name of a list, and what follows it.
fn one_name(list: &str) -> Option<(String, &str)> {
    let Some(mut quoted) = list.strip_prefix('"') else {
        let end = list.find(',').unwrap_or(list.len());
        return Some((list[..end].trim().to_owned(), &list[end..]));
    };
    let mut name = String::new();
    loop {
        let end = quoted.find('"')?;
        name.push_str(&quoted[..end]);
        quoted = &quoted[end + 1..];
        match quoted.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                quoted = after;
            }
            None => return Some((name, quoted)),
        }
    }
}

/// A number of rows: none would never end, and more than these are not counted in one batch.
fn rows(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(rows) if (1..=u32::MAX as usize).contains(&rows) => Ok(rows),
        _ => Err(format!("expected a number of rows, from 1 to {}", u32::MAX)),
    }
}

fn connections(text: &str) -> Result<usize, String> {
    const MAX: usize = 64;
    match text.parse() {
        Ok(connections) if (1..=MAX).contains(&connections) => Ok(connections),
        _ => Err(format!("expected a number of connections, from 1 to {MAX}")),
    }
}

fn bytes(text: &str) -> Result<usize, String> {
    const MAX: usize = 1 << 30;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return Err("expected a number of bytes, as in 500000, 512KiB or 8MiB".into()),
    };
    let number = usize::from_str(&text[..digits]).ok().and_then(|number| number.checked_mul(unit));
    match number {
        Some(bytes @ 1..=MAX) => Ok(bytes),
        Some(_) => Err("expected from 1 byte to 1GiB".into()),
        None => Err("expected a number of bytes, as in 500000, 512KiB or 8MiB".into()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds, from 0.01 to 86400".into()),
    }
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        _ if text.eq_ignore_ascii_case("tab") || text == "\\t" => Ok(b'\t'),
        [byte] => Ok(*byte),
        _ => Err("expected one ASCII character, or tab".into()),
    }
}

fn quote(text: &str) -> Result<Quote, String> {
    match text.as_bytes() {
        _ if text.eq_ignore_ascii_case("none") => Ok(Quote(None)),
        [byte] => Ok(Quote(Some(*byte))),
        _ => Err("expected one ASCII character, or none".into()),
    }
}

fn column_type(text: &str) -> Result<(String, DataType), String> {
    // A type has no equals sign; a name may.
    let (name, data_type) = text.rsplit_once('=').ok_or("expected NAME=TYPE, as in price=decimal(12,2)")?;
    Ok((name.to_owned(), data_type_of(data_type.trim())?))
}

fn data_type_of(text: &str) -> Result<DataType, String> {
    let lower = text.to_ascii_lowercase();
    Ok(match lower.as_str() {
        "boolean" | "bool" => DataType::Boolean,
        "int8" => DataType::Int8,
        "int16" => DataType::Int16,
        "int32" => DataType::Int32,
        "int64" => DataType::Int64,
        "uint8" => DataType::UInt8,
        "uint16" => DataType::UInt16,
        "uint32" => DataType::UInt32,
        "uint64" => DataType::UInt64,
        "float32" => DataType::Float32,
        "float64" => DataType::Float64,
        "text" => DataType::Utf8,
        "binary" => DataType::Binary,
        "date" => DataType::Date32,
        "time" => DataType::Time64(TimeUnit::Microsecond),
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "timestamptz" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        _ => return decimal_of(&lower).ok_or_else(|| format!("{text} is not a type that --help lists")),
    })
}

fn decimal_of(text: &str) -> Option<DataType> {
    let (precision, scale) = text.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
    let (precision, scale): (u8, i8) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    let fits = (1..=38).contains(&precision) && (0..=precision as i8).contains(&scale);
    fits.then_some(DataType::Decimal128(precision, scale))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn names_may_hold_commas_and_quotes() {
        let lists = ["a, b c".to_owned(), "\"x,\"\"y\"".to_owned()];
        assert_eq!(names(&lists).unwrap(), ["a", "b c", "x,\"y"]);
        assert!(names(&["a,,b".to_owned()]).is_err());
        assert!(names(&["\"a".to_owned()]).is_err());
        assert!(names(&["a,a".to_owned()]).unwrap_err().contains("twice"));
    }

    #[test]
    fn sizes_and_types_are_read() {
        assert_eq!((bytes("500"), bytes("8MiB"), bytes("2 k")), (Ok(500), Ok(8 << 20), Ok(2048)));
        assert!(bytes("MiB").is_err() && bytes("5 parsecs").is_err());
        assert_eq!(column_type("a=b=decimal(12, 2)").unwrap(), ("a=b".into(), DataType::Decimal128(12, 2)));
        assert!(column_type("price=money").is_err() && column_type("price").is_err());
    }
}
