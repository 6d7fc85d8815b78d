//! The store of cells: the unescaped values of a batch of rows, row by row, before they have types.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::value::RawValue;

/// What a cell's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    /// NULL, whatever its bytes are.
    Null,
    /// A CSV field without quotes, or a JSON number, `true` or `false`.
    Bare,
    /// A quoted CSV field or a JSON string, unescaped.
    Quoted,
    /// A JSON object or array, as it is written.
    Nested,
}

/// Where a row comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) line: u64,
    pub(crate) row: u64,
    /// The row's text in the window.
    pub(crate) raw_start: u32,
    pub(crate) raw_bytes: u32,
}

/// Cells of rows with a fixed number of columns. Cell `i` is column `i % columns` of row `i / columns`.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    pub(crate) columns: usize,
    /// The cells' bytes up to `used`; what lies behind is room to write to.
    data: Vec<u8>,
    used: usize,
    /// The end of each cell in `data`, after a 0: cell `i` is `ends[i]..ends[i + 1]`.
    ends: Vec<u32>,
    tags: Vec<Tag>,
    places: Vec<Place>,
    ascii: bool,
}

impl Cells {
    pub(crate) fn new(columns: usize) -> Cells {
        Cells { columns, ends: vec![0], ..Cells::default() }
    }

    /// Forgets all rows and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.ends.truncate(1);
        self.tags.clear();
        self.places.clear();
    }

    pub(crate) fn rows(&self) -> usize {
        self.places.len()
    }

    /// Bytes of values held.
    pub(crate) fn bytes(&self) -> usize {
        self.used
    }

    pub(crate) fn place(&self, row: usize) -> Place {
        self.places[row]
    }

    /// The room behind the last value, at least so many bytes. What is written there counts after [`Cells::advance`].
    #[inline]
    pub(crate) fn room(&mut self, bytes: usize) -> &mut [u8] {
        if self.data.len() < self.used + bytes {
            let len = (self.used + bytes).max(self.data.len() * 2);
            self.data.resize(len, 0);
        }
        &mut self.data[self.used..]
    }

    #[inline]
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.used += bytes;
    }

    /// Takes back everything written behind a value of [`Cells::bytes`] whose cells were not pushed.
    #[inline]
    pub(crate) fn rewind(&mut self, bytes: usize) {
        self.used = bytes;
    }

    pub(crate) fn written(&self, range: Range<usize>) -> &[u8] {
        &self.data[range]
    }

    /// Adds a cell whose bytes, up to `end`, were written before.
    #[inline]
    pub(crate) fn push_cell(&mut self, end: usize, tag: Tag) {
        // Limits of 1 GiB keep every end within u32.
        self.ends.push(end as u32);
        self.tags.push(tag);
    }

    /// Ends a row whose cells have all been pushed.
    #[inline]
    pub(crate) fn push_row(&mut self, place: Place) {
        debug_assert_eq!(self.tags.len(), (self.places.len() + 1) * self.columns);
        self.places.push(place);
    }

    /// Adds a cell with its bytes.
    pub(crate) fn push(&mut self, bytes: &[u8], tag: Tag) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.used += bytes.len();
        self.push_cell(self.used, tag);
    }

    /// Adds a cell from a JSON value, which must be decodable.
    pub(crate) fn push_json(&mut self, value: Option<&RawValue>) {
        let Some(text) = value.map(RawValue::get) else { return self.push(b"", Tag::Null) };
        match text.as_bytes()[0] {
            // What cannot be decoded was refused before, by `is_decodable`.
            b'"' => self.push(unescape(text).unwrap_or_default().as_bytes(), Tag::Quoted),
            b'{' | b'[' => self.push(text.as_bytes(), Tag::Nested),
            b'n' => self.push(b"", Tag::Null),
            _ => self.push(text.as_bytes(), Tag::Bare),
        }
    }

    /// To be called when the rows are complete, before they are converted.
    pub(crate) fn finish(&mut self) {
        self.ascii = self.data[..self.used].is_ascii();
    }

    /// Whether all values are ASCII, and so need no check as UTF-8.
    pub(crate) fn is_ascii(&self) -> bool {
        self.ascii
    }

    #[inline]
    pub(crate) fn get(&self, row: usize, column: usize) -> (Tag, &[u8]) {
        let cell = row * self.columns + column;
        (self.tags[cell], &self.data[self.ends[cell] as usize..self.ends[cell + 1] as usize])
    }

    /// The bytes of all cells of some rows, and more than those of any one column.
    pub(crate) fn bytes_of(&self, rows: &Range<usize>) -> usize {
        (self.ends[rows.end * self.columns] - self.ends[rows.start * self.columns]) as usize
    }
}

/// Whether a JSON value is not a string with half of a surrogate pair, which no text can hold.
pub(crate) fn is_decodable(value: &RawValue) -> bool {
    let text = value.get();
    !text.starts_with('"') || !text.contains("\\u") || unescape(text).is_some()
}

fn unescape(text: &str) -> Option<Cow<'_, str>> {
    let inner = &text[1..text.len() - 1];
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(text).ok().map(Cow::Owned)
}
