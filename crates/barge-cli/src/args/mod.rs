//! The command line.

mod examples;
mod reading;
mod values;

use std::path::PathBuf;

use barge::Operation;
use barge_files::{CsvWriteOptions, Format, WriteOptions};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use examples::{
    COPY_EXAMPLES, COPY_KEY_HELP, COPY_MODE_HELP, COPY_TABLE_HELP, DESCRIBE_EXAMPLES, EXPORT_EXAMPLES,
    LOAD_EXAMPLES,
};
pub(crate) use reading::Reading;
pub(crate) use values::names;
use values::{bytes, connections, delimiter, rows, seconds};

/// How large a batch may become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BatchLimits {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

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
    /// Write a table, or what a query gives, into a file
    #[command(after_help = EXPORT_EXAMPLES, mut_arg("from_schema", |argument| argument.long("schema")))]
    Export(Box<Export>),
    /// Copy a table, or what a query gives, into a table of another database, in batches
    #[command(
        after_help = COPY_EXAMPLES,
        mut_arg("table", |argument| argument.help(COPY_TABLE_HELP)),
        mut_arg("key", |argument| argument.help(COPY_KEY_HELP)),
        mut_arg("mode", |argument| argument.help(COPY_MODE_HELP))
    )]
    Copy(Box<Copy>),
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
    /// Put the new rows in the place of all rows, at the end and in one transaction: a load that fails or is
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

impl FileFormat {
    fn format(self) -> Format {
        match self {
            FileFormat::Csv => Format::Csv,
            FileFormat::Jsonl => Format::JsonLines,
            FileFormat::Parquet => Format::Parquet,
            FileFormat::Arrow => Format::ArrowIpc,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Load {
    /// Files to load, in this order, through one writer; - is standard input. Files may be compressed with gzip or
    /// Zstandard. Columns are matched to the table's by name
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) reading: Reading,
}

#[derive(Args, Debug)]
pub(crate) struct Copy {
    #[command(flatten)]
    pub(crate) from: Origin,
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Args, Debug)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) from: Origin,
    /// The file to write; - is standard output. A name that ends in .gz or .zst has CSV and JSON lines compressed
    #[arg(long = "to", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The file's format [default: by name]
    #[arg(long, value_enum)]
    pub(crate) format: Option<FileFormat>,
    /// Replace a file that is there, once the new one is whole
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// CSV: the character between fields; `tab` or \t for a tab [default: a tab for .tsv, else a comma]
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    pub(crate) delimiter: Option<u8>,
    /// CSV: the word that means NULL, unquoted; to be given to `barge load` too [default: the empty field]
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) null: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl Export {
    /// How the file is to be written.
    pub(crate) fn write_options(&self) -> WriteOptions {
        WriteOptions {
            format: self.format.map(FileFormat::format),
            csv: CsvWriteOptions { delimiter: self.delimiter, null: self.null.clone() },
            overwrite: self.overwrite,
            ..WriteOptions::default()
        }
    }
}

/// What is read from a database.
#[derive(Args, Debug)]
pub(crate) struct Origin {
    /// The database to read: sqlite:FILE, duckdb:FILE or postgres://USER@HOST/DATABASE, with settings after a ?
    #[arg(id = "from_url", value_name = "URL")]
    pub(crate) url: String,
    /// The table or view to read. Where none has this name as it is, a dot parts schema and table
    #[arg(
        id = "from_table",
        value_name = "TABLE",
        required_unless_present = "query",
        conflicts_with = "query",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub(crate) table: Option<String>,
    /// A statement whose rows are read instead of a table's, in the database's own SQL
    #[arg(long, value_name = "SQL", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) query: Option<String>,
    /// The schema that the table read lives in; on SQLite, an attached database [default: the database's own]
    #[arg(
        id = "from_schema",
        long = "from-schema",
        value_name = "NAME",
        requires = "from_table",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub(crate) schema: Option<String>,
}

/// What is written to, and how.
#[derive(Args, Debug)]
pub(crate) struct Target {
    /// The database to write to: sqlite:FILE, duckdb:FILE or postgres://USER@HOST/DATABASE, with settings after a ?
    #[arg(long = "to", value_name = "URL")]
    pub(crate) url: String,
    /// The table to load into. Where no table has this name as it is, a dot parts schema and table; on SQLite and DuckDB, where there is such a
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
    /// PostgreSQL and DuckDB: over how many connections rows are written at a time. More than 1 is for append and create alone, and commits
    /// batches in any order; of two rows of one key either may be the one that is rejected [default: for PostgreSQL one more than there are
    /// cores, for DuckDB as many as there are cores; at most 4]
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
    pub(crate) output: Output,
}

/// What is told.
#[derive(Args, Debug)]
pub(crate) struct Output {
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

impl Target {
    /// The limits of a batch: what is said, or else the database's own.
    pub(crate) fn batch_limits(&self, own: BatchLimits) -> BatchLimits {
        BatchLimits {
            rows: self.batch_rows.unwrap_or(own.rows),
            bytes: self.batch_bytes.unwrap_or(own.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
