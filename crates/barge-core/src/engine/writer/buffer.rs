//! The writer's open buffer: a segment per record type and operation, each row with its arrival number.

use std::any::TypeId;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, RecordBatch};
use arrow::compute::concat_batches;

use super::answers::Answers;
use super::sink::Outcomes;
use crate::engine::Buffer;
use crate::engine::answer::Cell;
use crate::record::{Columns, ErasedColumns, finish_batch};
use crate::store::Operation;
use crate::{Error, Record, Result, Table};

/// A table that a record type or a caller describes.
#[derive(Clone, Debug)]
pub(crate) enum TableRef {
    /// Of a record type.
    Static(&'static Table),
    /// Of record batches.
    Shared(Arc<Table>),
}

impl Deref for TableRef {
    type Target = Table;

    fn deref(&self) -> &Table {
        match self {
            TableRef::Static(table) => table,
            TableRef::Shared(table) => table,
        }
    }
}

impl TableRef {
    pub(crate) fn same(&self, other: &TableRef) -> bool {
        std::ptr::eq::<Table>(&**self, &**other) || **self == **other
    }
}

/// Room that a segment sets aside at first, in rows; builders grow from there.
const FIRST_ROWS: usize = 64;

/// The open buffer.
pub(crate) struct Rows {
    segments: Vec<Segment>,
    /// The segment that the last row went to: where the next one most likely goes.
    last: usize,
    rows: u32,
    bytes: usize,
    cell: Arc<Cell<Answers>>,
    /// Rows of the batch before, as a first guess at this one's.
    expected_rows: usize,
    outcomes: Arc<Mutex<Outcomes>>,
}

struct Segment {
    table: TableRef,
    operation: Operation,
    rows: Source,
    arrivals: Vec<u32>,
}

enum Source {
    /// Rows appended one by one.
    Records { type_id: TypeId, columns: Box<dyn ErasedColumns> },
    /// Whole record batches.
    Batches(Vec<RecordBatch>),
}

/// What a flush works on. Immutable.
pub(crate) struct Sealed {
    pub(crate) segments: Vec<SealedSegment>,
    pub(crate) rows: u32,
    pub(crate) cell: Arc<Cell<Answers>>,
    /// Where rejected rows are kept.
    pub(super) outcomes: Arc<Mutex<Outcomes>>,
}

/// Rows of one table and operation.
pub(crate) struct SealedSegment {
    pub(crate) table: TableRef,
    pub(crate) operation: Operation,
    pub(crate) batch: Result<RecordBatch>,
    /// Each row's place among all rows of the flush, ascending.
    pub(crate) arrivals: Vec<u32>,
}

impl Rows {
    pub(super) fn new(outcomes: Arc<Mutex<Outcomes>>) -> Self {
        Rows {
            segments: Vec::new(),
            last: 0,
            rows: 0,
            bytes: 0,
            cell: Arc::new(Cell::default()),
            expected_rows: FIRST_ROWS,
            outcomes,
        }
    }

    /// Appends one record and returns its arrival number.
    #[inline]
    pub(crate) fn append<R: Record>(&mut self, operation: Operation, record: &R) -> Result<u32> {
        let place = self.segment_of::<R>(operation);
        let segment = &mut self.segments[place];
        let Source::Records { columns, .. } = &mut segment.rows else {
            unreachable!("found by its record type")
        };
        let Some(columns) = columns.as_any().downcast_mut::<R::Columns>() else {
            unreachable!("the segment was made for this type")
        };
        self.bytes += record.append(columns)?;
        let arrival = self.rows;
        segment.arrivals.push(arrival);
        self.rows += 1;
        Ok(arrival)
    }

    #[inline]
    fn segment_of<R: Record>(&mut self, operation: Operation) -> usize {
        let wanted = TypeId::of::<R::Columns>();
        let fits = |segment: &Segment| {
            segment.operation == operation
                && matches!(&segment.rows, Source::Records { type_id, .. } if *type_id == wanted)
        };
        if self.segments.get(self.last).is_some_and(fits) {
            return self.last;
        }
        self.last = match self.segments.iter().position(fits) {
            Some(place) => place,
            None => {
                self.segments.push(Segment {
                    table: TableRef::Static(R::table()),
                    operation,
                    rows: Source::Records {
                        type_id: wanted,
                        columns: Box::new(R::Columns::with_capacity(self.expected_rows)),
                    },
                    arrivals: Vec::with_capacity(self.expected_rows),
                });
                self.segments.len() - 1
            }
        };
        self.last
    }

    /// Appends rows of a record batch and returns the first one's arrival number.
    pub(crate) fn append_batch(
        &mut self,
        table: &Arc<Table>,
        operation: Operation,
        batch: RecordBatch,
    ) -> u32 {
        let first = self.rows;
        self.bytes += batch_bytes(&batch);
        self.rows += batch.num_rows() as u32;
        let arrivals = first..self.rows;
        let shared = TableRef::Shared(Arc::clone(table));
        // Only the last segment may take it: a batch in between would change the order of equal keys.
        if let Some(Segment { table, operation: last, rows: Source::Batches(batches), arrivals: numbers }) =
            self.segments.last_mut()
            && *last == operation
            && table.same(&shared)
        {
            batches.push(batch);
            numbers.extend(arrivals);
            return first;
        }
        let rows = Source::Batches(vec![batch]);
        self.segments.push(Segment { table: shared, operation, rows, arrivals: arrivals.collect() });
        first
    }

    /// What its rows are of.
    pub(super) fn segments(&self) -> impl Iterator<Item = (&TableRef, Operation)> {
        self.segments.iter().map(|segment| (&segment.table, segment.operation))
    }

    pub(crate) fn cell(&self) -> &Arc<Cell<Answers>> {
        &self.cell
    }
}

impl Buffer for Rows {
    type Sealed = Sealed;

    #[inline]
    fn rows(&self) -> usize {
        self.rows as usize
    }

    #[inline]
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn seal(&mut self) -> Sealed {
        // Room for as many rows as came now, a quarter less each time fewer come.
        let expected_rows =
            (self.rows as usize).max(self.expected_rows - self.expected_rows / 4).max(FIRST_ROWS);
        let next = Rows { expected_rows, ..Rows::new(Arc::clone(&self.outcomes)) };
        let open = std::mem::replace(self, next);
        let segments = open.segments.into_iter().map(Segment::seal).collect();
        Sealed { segments, rows: open.rows, cell: open.cell, outcomes: open.outcomes }
    }
}

impl Segment {
    fn seal(self) -> SealedSegment {
        let batch = match self.rows {
            Source::Records { mut columns, .. } => {
                finish_batch(&mut *columns, &self.table, self.arrivals.len())
            }
            Source::Batches(batches) => match &batches[..] {
                [one] => Ok(one.clone()),
                many => concat_batches(many[0].schema_ref(), many).map_err(Error::from),
            },
        };
        let batch = batch.map_err(|error| error.with_table(self.table.name().to_string()));
        SealedSegment { table: self.table, operation: self.operation, batch, arrivals: self.arrivals }
    }
}

/// The size of a batch's rows alone, where its arrays may be slices of larger ones.
pub(crate) fn batch_bytes(batch: &RecordBatch) -> usize {
    let size = |array: &dyn Array| array.to_data().get_slice_memory_size().unwrap_or(0);
    batch.columns().iter().map(|array| size(array.as_ref())).sum()
}
