//! Readers that turn a file into Arrow record batches, with every bad line accounted for, and writers that make files of them.
//!
//! Constraints:
//!
//! - Memory stays flat whatever the file's size: a chunk has a limit in rows and in bytes, and so has one row.
//! - A value that its column's type cannot hold rejects its row and no other. A rejected row is a
//!   [`RejectedLine`] with the file, line, column and value, and what was expected. Nothing is dropped in silence.
//! - The same bytes give the same rows, however the operating system slices them into reads.
//! - Everything here blocks. Run a [`Source`] on a thread of its own.
//!
//! [`Source::open`] finds compression and format by magic bytes and by extension, reads a sample, and settles the
//! columns and their types. [`Source::next_chunk`] then gives one [`Chunk`] after another.
//!
//! Text formats (CSV, JSON lines) pass through one store of cells: bytes, an end for each cell, and whether the
//! cell is null, bare, quoted or nested. Types are inferred from it and columns are parsed from it, one column at a
//! time, so that no field costs an allocation. Parquet and Arrow IPC files keep their own types, made plain:
//!
//! | in the file | in the batch |
//! |---|---|
//! | Dictionary | its value type |
//! | LargeUtf8, Utf8View, Null | Utf8 |
//! | LargeBinary, BinaryView, FixedSizeBinary (but for UUIDs) | Binary |
//! | Timestamp in s, ms, ns | Timestamp(µs); a time with nanoseconds rejects its row |
//! | Date64 | Date32 |
//! | Time32, Time64(ns) | Time64(µs); a time with nanoseconds rejects its row |
//! | Float16 | Float32 |
//! | Decimal32, Decimal64, Decimal256 | Decimal128; a value that does not fit rejects its row |
//! | Struct, Map, and lists of them | Utf8 with the extension `arrow.json`; NaN and infinities in them become null |
//! | LargeList | List |
//!
//! A [`Sink`] is the way back, through the same formats and compressions: what it writes, a source reads as it was, given the types
//! of the columns where the format has none (CSV, JSON lines). Its memory is flat too, and a file is there under its name only once it is
//! whole.
//!
//! ```
//! # fn main() -> barge_core::Result<()> {
//! use barge_files::{ReadOptions, Source};
//!
//! let csv = "id,price,day\n1,9.50,2024-02-29\n2,cheap,2024-03-01\n";
//! let options = ReadOptions { sample_rows: 1, ..ReadOptions::default() };
//! let mut source = Source::from_reader("prices.csv", csv.as_bytes(), &options)?;
//! let chunk = source.next_chunk()?.expect("two lines are there");
//! assert_eq!(chunk.batch.num_rows(), 1);
//! assert_eq!(
//!     chunk.rejected[0].error.to_string(),
//!     "prices.csv, line 3, column price: \"cheap\" is not a number; the column was taken for Float64 from the \
//!      first row: use --text price or a larger --sample-rows",
//! );
//! # Ok(())
//! # }
//! ```

mod csv;
mod input;
mod json;
mod names;
mod native;
mod options;
mod output;
mod sink;
mod source;
mod text;
mod window;
mod write_options;

pub use names::suggestion;
pub use options::{Compression, CsvOptions, Format, ReadOptions, TableSchemas};
pub use sink::{Sink, Written};
pub use source::{Chunk, DeadLetter, LineNumbers, Progress, RejectedLine, Source};
pub use write_options::{CsvWriteOptions, WriteOptions};
