//! How files are read.

use barge::arrow::datatypes::DataType;
use barge_files::{CsvOptions, ReadOptions};
use clap::Args;

use super::values::{column_type, delimiter, names, quote, rows};
use super::{BatchLimits, FileFormat, Load};

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
pub(crate) struct Quote(pub(super) Option<u8>);

impl Load {
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
            format: reading.format.map(FileFormat::format),
            csv,
            batch_rows: limits.rows,
            batch_bytes: limits.bytes,
            sample_rows: reading.sample_rows,
            rejected_bytes_max: match &self.target.dead_letter {
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
