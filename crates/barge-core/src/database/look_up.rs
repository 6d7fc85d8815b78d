//! Look-ups: which keys to ask for, and where the rows go.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;

use super::by::{HeldBy, LookUpBy};
use super::descriptions::{Asked, Descriptions};
use crate::engine::writer::keys::number_rows;
use crate::record::{Keys, key_batch, keys_as};
use crate::store::LookUp;
use crate::{Error, ErrorKind, FromRow, Key, Record, Result, Table};

/// Keys to look up, each once, and where each was asked for.
pub(super) struct Wanted {
    pub(super) look_up: LookUp,
    /// For each key given, its place among the keys looked up.
    places: Vec<u32>,
}

impl Wanted {
    /// By the record's key.
    pub(super) fn new<R: Record + FromRow, K: Key>(keys: &[K]) -> Result<Self> {
        let table = R::table();
        if table.key().is_empty() {
            return Err(Error::new(ErrorKind::InvalidConfig, "a look-up by key needs a record with a key")
                .with_table(table.name().to_string()));
        }
        let (keys, places) = distinct(key_batch(table, keys)?)?;
        Ok(Wanted { look_up: LookUp::new(Arc::new(columns_of::<R>(table)?), keys), places })
    }

    /// By other columns.
    pub(super) async fn by<R: Record + FromRow, K: Key>(
        descriptions: &Descriptions,
        asked: &mut Asked<'_>,
        by: &LookUpBy,
        keys: &[K],
    ) -> Result<Self> {
        let table = columns_of::<R>(R::table())?;
        let held = held(descriptions, asked, &table, by).await?;
        let (keys, places) = distinct(keys_as(table.name(), &held.fields, keys)?)?;
        Ok(Wanted { look_up: held.look_up(Arc::new(table), keys), places })
    }

    /// Where the rows go as they come.
    pub(super) fn rows<R, P: Place<R>>(&self) -> Rows<P> {
        let distinct = self.look_up.keys.num_rows();
        let repeated = (distinct < self.places.len()).then(|| {
            let mut asked = vec![Vec::new(); distinct];
            for (index, place) in self.places.iter().enumerate() {
                asked[*place as usize].push(index as u32);
            }
            asked
        });
        Rows { repeated, found: self.places.iter().map(|_| P::default()).collect() }
    }

    /// An error of the store's over a key, with the key's place among those given.
    pub(super) fn error(&self, error: Error) -> Error {
        error.map_row(|row| self.places.iter().position(|place| *place as usize == row))
    }
}

/// A look-up of keys that may repeat, each of which has its own rows.
pub(super) async fn look_up(
    descriptions: &Descriptions,
    asked: &mut Asked<'_>,
    table: &Table,
    by: &LookUpBy,
    keys: impl Keys,
) -> Result<LookUp> {
    let held = held(descriptions, asked, table, by).await?;
    let keys = keys.into_batch(table.name(), &held.fields)?;
    Ok(held.look_up(Arc::new(table.clone()), keys))
}

pub(super) async fn held(
    descriptions: &Descriptions,
    asked: &mut Asked<'_>,
    table: &Table,
    by: &LookUpBy,
) -> Result<HeldBy> {
    descriptions.hold(asked, table.name(), |description| by.held(table, description)).await
}

/// Each key once, and for each key given its place among these.
fn distinct(keys: RecordBatch) -> Result<(RecordBatch, Vec<u32>)> {
    let (places, distinct) = number_rows(keys.columns())?;
    if distinct == places.len() {
        return Ok((keys, places));
    }
    let mut firsts = vec![None; distinct];
    for (row, &place) in places.iter().enumerate() {
        firsts[place as usize].get_or_insert(row as u32);
    }
    let firsts = firsts.into_iter().flatten().collect::<UInt32Array>();
    Ok((take_record_batch(&keys, &firsts)?, places))
}

/// What a key finds.
pub(super) trait Place<R>: Default {
    fn put(&mut self, row: R);
}

/// The first row.
impl<R> Place<R> for Option<R> {
    fn put(&mut self, row: R) {
        self.get_or_insert(row);
    }
}

/// All rows, as they come.
impl<R> Place<R> for Vec<R> {
    fn put(&mut self, row: R) {
        self.push(row);
    }
}

/// The rows of a look-up, each in the place of its key.
pub(super) struct Rows<P> {
    /// For each key looked up, the places that asked for it; `None` where each was asked for once, in this order.
    repeated: Option<Vec<Vec<u32>>>,
    pub(super) found: Vec<P>,
}

impl<P> Rows<P> {
    /// Takes rows that were found.
    pub(super) fn take<R: FromRow>(&mut self, part: &RecordBatch) -> Result<()>
    where
        P: Place<R>,
    {
        let ordinals = ordinals(part)?;
        let Some(asked) = &self.repeated else {
            let of_key = |error: Error| error.map_row(|row| Some(ordinals.value(row) as usize));
            for (row, ordinal) in R::from_batch(part).map_err(of_key)?.into_iter().zip(ordinals.values()) {
                self.found[*ordinal as usize].put(row);
            }
            return Ok(());
        };
        let pairs = ordinals.values().iter().enumerate();
        let pairs = pairs.flat_map(|(row, ordinal)| {
            asked[*ordinal as usize].iter().map(move |place| (row as u32, *place))
        });
        let (rows, places): (Vec<u32>, Vec<u32>) = pairs.unzip();
        let of_key = |error: Error| error.map_row(|row| places.get(row).map(|place| *place as usize));
        let rows = R::from_batch(&take_record_batch(part, &UInt32Array::from(rows))?).map_err(of_key)?;
        for (row, place) in rows.into_iter().zip(places) {
            self.found[place as usize].put(row);
        }
        Ok(())
    }
}

pub(super) fn ordinals(found: &RecordBatch) -> Result<Int64Array> {
    let column: Option<&ArrayRef> = found.columns().first();
    let ordinals = column
        .and_then(|column| column.as_primitive_opt::<Int64Type>())
        .filter(|array| array.null_count() == 0);
    ordinals
        .cloned()
        .ok_or_else(|| Error::new(ErrorKind::Statement, "the store's look-up returned no ordinals"))
}

/// The record's table with the columns that reading it wants, in the types it wants them.
pub(super) fn columns_of<R: Record + FromRow>(table: &Table) -> Result<Table> {
    let schema = R::schema();
    let columns = schema.fields().iter().map(|field| {
        let role = table.column(field.name()).map(|index| table.columns()[index].role).unwrap_or_default();
        crate::record::Column { field: field.clone(), role }
    });
    Table::new(table.name().clone(), columns.collect())
}
