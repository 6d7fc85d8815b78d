//! Look-ups by key: which keys to ask for, and where the rows go.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;

use crate::engine::writer::keys::number_rows;
use crate::record::key_batch;
use crate::store::LookUp;
use crate::{Error, ErrorKind, FromRow, Key, Record, Result, Table};

/// Keys to look up, each once, and where each was asked for.
pub(super) struct Wanted {
    pub(super) look_up: LookUp,
    /// For each key given, its place among the keys looked up.
    places: Vec<u32>,
}

impl Wanted {
    pub(super) fn new<R: Record + FromRow, K: Key>(keys: &[K]) -> Result<Self> {
        let table = R::table();
        if table.key().is_empty() {
            return Err(Error::new(ErrorKind::InvalidConfig, "a look-up by key needs a record with a key")
                .with_table(table.name().to_string()));
        }
        let keys = key_batch(table, keys)?;
        let (places, distinct) = number_rows(keys.columns())?;
        let mut firsts = vec![None; distinct];
        for (row, &place) in places.iter().enumerate() {
            firsts[place as usize].get_or_insert(row as u32);
        }
        let keys = if distinct == places.len() {
            keys
        } else {
            take_record_batch(&keys, &firsts.into_iter().flatten().collect::<UInt32Array>())?
        };
        Ok(Wanted { look_up: LookUp { table: Arc::new(columns_of::<R>(table)?), keys }, places })
    }

    /// Where the rows go as they come.
    pub(super) fn rows<R>(&self) -> Rows<R> {
        let distinct = self.look_up.keys.num_rows();
        let repeated = (distinct < self.places.len()).then(|| {
            let mut asked = vec![Vec::new(); distinct];
            for (index, place) in self.places.iter().enumerate() {
                asked[*place as usize].push(index as u32);
            }
            asked
        });
        Rows { repeated, found: self.places.iter().map(|_| None).collect() }
    }
}

/// The rows of a look-up, each in the place of its key.
pub(super) struct Rows<R> {
    /// For each key looked up, the places that asked for it; `None` where each was asked for once, in this order.
    repeated: Option<Vec<Vec<u32>>>,
    pub(super) found: Vec<Option<R>>,
}

impl<R: FromRow> Rows<R> {
    /// Takes rows that were found. Where a key has several, the first counts.
    pub(super) fn take(&mut self, part: &RecordBatch) -> Result<()> {
        let ordinals = ordinals(part)?;
        let Some(asked) = &self.repeated else {
            for (row, ordinal) in R::from_batch(part)?.into_iter().zip(ordinals.values()) {
                self.found[*ordinal as usize].get_or_insert(row);
            }
            return Ok(());
        };
        let pairs = ordinals.values().iter().enumerate();
        let pairs = pairs.flat_map(|(row, ordinal)| {
            asked[*ordinal as usize].iter().map(move |place| (row as u32, *place))
        });
        let (rows, places): (Vec<u32>, Vec<u32>) = pairs.unzip();
        let rows = R::from_batch(&take_record_batch(part, &UInt32Array::from(rows))?)?;
        for (row, place) in rows.into_iter().zip(places) {
            self.found[place as usize].get_or_insert(row);
        }
        Ok(())
    }
}

fn ordinals(found: &RecordBatch) -> Result<Int64Array> {
    let column: Option<&ArrayRef> = found.columns().first();
    let ordinals = column
        .and_then(|column| column.as_primitive_opt::<Int64Type>())
        .filter(|array| array.null_count() == 0);
    ordinals
        .cloned()
        .ok_or_else(|| Error::new(ErrorKind::Statement, "the store's look-up returned no ordinals"))
}

/// The record's table with the columns that reading it wants, in the types it wants them.
fn columns_of<R: Record + FromRow>(table: &Table) -> Result<Table> {
    let schema = R::schema();
    let columns = schema.fields().iter().map(|field| {
        let role = table.column(field.name()).map(|index| table.columns()[index].role).unwrap_or_default();
        crate::record::Column { field: field.clone(), role }
    });
    Table::new(table.name().clone(), columns.collect())
}
