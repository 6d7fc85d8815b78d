//! Chunks of large values, taken apart before they're copied.
//!
//! DuckDB gives 2,048 rows at a time, whatever is in them. Copied as a whole they could take gigabytes, more than an Arrow array of texts
//! holds. So the rows' bytes are reckoned first, over the vectors themselves, and each part has vectors that select its rows of the
//! chunk's.

use std::collections::VecDeque;
use std::ops::Range;

use libduckdb_sys as ffi;

use super::Failure;
use super::batch::{Chunk, LogicalType};

/// The bytes at which a part ends, and with it a stream's batch. One row may have more.
const BYTES_MAX: u64 = 4 << 20;
/// What a value of any type takes at most, beside what is behind a pointer.
const VALUE: u64 = 16;

/// The parts of a chunk that are not given yet.
#[derive(Default)]
pub(super) struct Parts {
    /// `None` once it was given, whole or in its last part.
    chunk: Option<Chunk>,
    ranges: VecDeque<Range<usize>>,
}

impl Parts {
    /// The parts of a chunk of a result that is computed as it's read: its vectors are flat, with all beneath them, as DuckDB copied them
    /// into its buffer.
    pub(super) fn new(chunk: Chunk) -> Self {
        let rows = chunk.rows();
        let mut bytes = vec![0; rows];
        for column in 0..chunk.columns() {
            // SAFETY: the chunk has the column, with so many rows, and is flat.
            unsafe { reckon(chunk.vector(column), &mut bytes) };
        }
        Parts { chunk: Some(chunk), ranges: ranges(&bytes, BYTES_MAX) }
    }

    /// The next part.
    pub(super) fn next(&mut self) -> Result<Option<Chunk>, Failure> {
        let Some(range) = self.ranges.pop_front() else {
            self.chunk = None;
            return Ok(None);
        };
        match &self.chunk {
            Some(chunk) if range.len() < chunk.rows() => select(chunk, range).map(Some),
            _ => Ok(self.chunk.take()),
        }
    }
}

/// Runs of rows of so many bytes at most, and of one row at least.
fn ranges(bytes: &[u64], bytes_max: u64) -> VecDeque<Range<usize>> {
    let mut ranges = VecDeque::new();
    let (mut start, mut sum) = (0, 0);
    for (row, bytes) in bytes.iter().enumerate() {
        if row > start && sum + bytes > bytes_max {
            ranges.push_back(start..row);
            (start, sum) = (row, 0);
        }
        sum += bytes;
    }
    if start < bytes.len() {
        ranges.push_back(start..bytes.len());
    }
    ranges
}

/// Some of a chunk's rows, as vectors over the same memory, which is counted.
fn select(chunk: &Chunk, range: Range<usize>) -> Result<Chunk, Failure> {
    let types: Vec<LogicalType> = (0..chunk.columns()).map(|column| chunk.column_type(column)).collect();
    let mut raw_types: Vec<ffi::duckdb_logical_type> = types.iter().map(|own| own.0).collect();
    let selection = Selection::new(range);
    // SAFETY: the types live through the call, which copies them; both chunks have the columns, and the selection names rows of the first. A
    // vector that references another counts it, and so does a slice with its selection's memory.
    unsafe {
        let part = Chunk(ffi::duckdb_create_data_chunk(raw_types.as_mut_ptr(), raw_types.len() as u64));
        if part.0.is_null() {
            return Err(Failure("Internal Error: DuckDB made no chunk of the result's types".into()));
        }
        for column in 0..chunk.columns() {
            let vector = part.vector(column);
            ffi::duckdb_vector_reference_vector(vector, chunk.vector(column));
            ffi::duckdb_slice_vector(vector, selection.raw, selection.rows);
        }
        ffi::duckdb_data_chunk_set_size(part.0, selection.rows);
        Ok(part)
    }
}

/// Which rows of a chunk are meant.
struct Selection {
    raw: ffi::duckdb_selection_vector,
    rows: u64,
}

impl Selection {
    fn new(range: Range<usize>) -> Self {
        let rows = range.len() as u64;
        // SAFETY: the selection has room for so many places.
        unsafe {
            let raw = ffi::duckdb_create_selection_vector(rows);
            let places = ffi::duckdb_selection_vector_get_data_ptr(raw);
            // A chunk has no more rows than a vector, 2,048.
            range.enumerate().for_each(|(place, row)| places.add(place).write(row as ffi::sel_t));
            Selection { raw, rows }
        }
    }
}

impl Drop for Selection {
    fn drop(&mut self) {
        // SAFETY: it is destroyed once.
        unsafe { ffi::duckdb_destroy_selection_vector(self.raw) };
    }
}

/// Adds what each row of a vector takes.
///
/// # Safety
/// The vector has as many rows as there are numbers, and is flat, with all vectors beneath it.
unsafe fn reckon(vector: ffi::duckdb_vector, bytes: &mut [u64]) {
    // SAFETY: as the caller says; the children of a flat vector are read as its type says.
    unsafe {
        let own = LogicalType(ffi::duckdb_vector_get_column_type(vector));
        match ffi::duckdb_get_type_id(own.0) {
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_VARCHAR
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_BLOB
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIT
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGNUM
            | ffi::DUCKDB_TYPE_DUCKDB_TYPE_GEOMETRY => reckon_texts(vector, bytes),
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_LIST | ffi::DUCKDB_TYPE_DUCKDB_TYPE_MAP => {
                reckon_lists(vector, bytes)
            }
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_ARRAY => {
                let length = usize::try_from(ffi::duckdb_array_type_array_size(own.0)).unwrap_or(1).max(1);
                let mut items = vec![0; bytes.len() * length];
                reckon(ffi::duckdb_array_vector_get_child(vector), &mut items);
                let rows = bytes.iter_mut().zip(items.chunks(length));
                rows.for_each(|(bytes, items)| *bytes += items.iter().sum::<u64>());
            }
            ffi::DUCKDB_TYPE_DUCKDB_TYPE_STRUCT => {
                for child in 0..ffi::duckdb_struct_type_child_count(own.0) {
                    reckon(ffi::duckdb_struct_vector_get_child(vector, child), bytes);
                }
            }
            _ => bytes.iter_mut().for_each(|bytes| *bytes += VALUE),
        }
    }
}

/// # Safety
/// As for [`reckon`]; the vector holds texts or bytes.
unsafe fn reckon_texts(vector: ffi::duckdb_vector, bytes: &mut [u64]) {
    // SAFETY: a flat vector of texts has one struct a row, which is valid where the row is.
    unsafe {
        let texts = ffi::duckdb_vector_get_data(vector).cast::<ffi::duckdb_string_t>();
        let validity = ffi::duckdb_vector_get_validity(vector);
        for (row, bytes) in bytes.iter_mut().enumerate() {
            if is_valid(validity, row) {
                *bytes += VALUE + u64::from(ffi::duckdb_string_t_length(texts.add(row).read()));
            }
        }
    }
}

/// # Safety
/// As for [`reckon`]; the vector holds lists.
unsafe fn reckon_lists(vector: ffi::duckdb_vector, bytes: &mut [u64]) {
    // SAFETY: a flat vector of lists has one entry a row, which is valid where the row is, and a child of so many items.
    unsafe {
        let mut items = vec![0; usize::try_from(ffi::duckdb_list_vector_get_size(vector)).unwrap_or(0)];
        reckon(ffi::duckdb_list_vector_get_child(vector), &mut items);
        let entries = ffi::duckdb_vector_get_data(vector).cast::<ffi::duckdb_list_entry>();
        let validity = ffi::duckdb_vector_get_validity(vector);
        for (row, bytes) in bytes.iter_mut().enumerate() {
            if is_valid(validity, row) {
                let entry = entries.add(row).read();
                let (start, length) = (entry.offset as usize, entry.length as usize);
                let own = items.get(start..start.saturating_add(length)).unwrap_or_default();
                *bytes += VALUE + own.iter().sum::<u64>();
            }
        }
    }
}

/// # Safety
/// `validity` is null or a mask that has the row.
unsafe fn is_valid(validity: *mut u64, row: usize) -> bool {
    // SAFETY: as the caller says.
    validity.is_null() || unsafe { ffi::duckdb_validity_row_is_valid(validity, row as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_taken_together_up_to_the_limit() {
        let of = |bytes: &[u64]| ranges(bytes, 10).into_iter().map(|range| range.len()).collect::<Vec<_>>();
        assert_eq!(of(&[]), Vec::<usize>::new());
        assert_eq!(of(&[1, 2, 3]), [3]);
        assert_eq!(of(&[6, 4, 1, 30, 30, 2, 2]), [2, 1, 1, 1, 2]);
    }
}
