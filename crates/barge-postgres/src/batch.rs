//! A record batch as PostgreSQL sees it: `unnest` of one array a column, in step, and their rows' numbers.
//!
//! In Barge's own statements the functions stand in a select list, where PostgreSQL takes a row from each as it is wanted. In
//! `FROM unnest(a, b) WITH ORDINALITY` it first keeps every array's elements in a table of their own, which cost an update of 1,000 rows a tenth of its
//! time. The numbers are a series, of which the planner knows the length; `generate_subscripts` it takes for a thousand rows, and one key for reason
//! enough to read a table from end to end.

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::Field;
use barge_core::Result;
use barge_core::record::quote;
use barge_core::store::ORDINAL;

use crate::connection::Parameter;
use crate::encode::ArrayParameter;
use crate::fit::{Fitted, fit};
use crate::types::{Kind, PgType};
use postgres_types::Type;

/// The columns of a batch in the types of the database.
#[derive(Clone)]
pub(crate) struct Batch {
    pub(crate) columns: Vec<(ArrayRef, PgType)>,
    pub(crate) rows: usize,
    /// Whether some value is none of its column's type, and NULL instead.
    pub(crate) misfits: bool,
}

impl Batch {
    /// A batch whose values passed [`check`](crate::check::check). A value that didn't, such as a key that no row can have, is NULL.
    pub(crate) fn new<'a>(
        batch: &RecordBatch,
        types: impl IntoIterator<Item = (&'a Field, PgType)>,
    ) -> Result<Self> {
        let mut misfits = false;
        let columns = batch.columns().iter().zip(types).map(|(array, (field, pg_type))| {
            let fitted = fit(array, field, &pg_type)?;
            misfits |= !fitted.rejected.is_empty();
            Ok((without_rejected(fitted)?, pg_type))
        });
        Ok(Batch { columns: columns.collect::<Result<_>>()?, rows: batch.num_rows(), misfits })
    }

    /// Some of its rows.
    pub(crate) fn select(&self, rows: &[u32]) -> Result<Self> {
        if rows.len() == self.rows {
            return Ok(self.clone());
        }
        let contiguous = match rows {
            &[first, .., last] => (last - first) as usize + 1 == rows.len(),
            _ => rows.len() == 1,
        };
        let indices = UInt32Array::from(rows.to_vec());
        let columns = self.columns.iter().map(|(array, pg_type)| {
            let array = match contiguous {
                true => array.slice(rows[0] as usize, rows.len()),
                false => take(array, &indices, None)?,
            };
            Ok((array, pg_type.clone()))
        });
        Ok(Batch { columns: columns.collect::<Result<_>>()?, rows: rows.len(), misfits: self.misfits })
    }

    /// Some of its columns.
    pub(crate) fn narrow(&self, places: &[usize]) -> Self {
        let columns = places.iter().map(|&place| self.columns[place].clone()).collect();
        Batch { columns, rows: self.rows, misfits: self.misfits }
    }

    /// The arrays to bind, one a column.
    pub(crate) fn parameters(&self) -> Parameters {
        Parameters(
            self.columns
                .iter()
                .map(|(array, pg_type)| (ArrayParameter::new(array.clone(), pg_type), pg_type.clone()))
                .collect(),
        )
    }

    /// The types of those.
    pub(crate) fn parameter_types(&self) -> Vec<Type> {
        self.columns.iter().map(|(_, pg_type)| pg_type.parameter_array_type()).collect()
    }

    /// Whether every column can be sent by binary COPY.
    pub(crate) fn copies(&self) -> bool {
        self.columns.iter().all(|(_, pg_type)| pg_type.copies())
    }

    /// The bytes of its arrays: of a slice, of its rows alone.
    pub(crate) fn bytes(&self) -> usize {
        self.columns.iter().map(|(array, _)| array.to_data().get_slice_memory_size().unwrap_or(0)).sum()
    }
}

/// What a statement over a batch binds.
pub(crate) struct Parameters(Vec<(ArrayParameter, PgType)>);

impl Parameters {
    pub(crate) fn bind(&self) -> Vec<Parameter<'_>> {
        self.0
            .iter()
            .map(|(array, pg_type)| {
                (array as &(dyn postgres_types::ToSql + Sync), pg_type.parameter_array_type())
            })
            .collect()
    }
}

fn without_rejected(Fitted { array, rejected }: Fitted) -> Result<ArrayRef> {
    if rejected.is_empty() {
        return Ok(array);
    }
    let mut rejected = rejected.into_iter().map(|(row, _)| row).peekable();
    let kept = (0..array.len()).map(|row| rejected.next_if_eq(&row).is_none().then_some(row as u32));
    Ok(take(&array, &UInt32Array::from_iter(kept), None)?)
}

/// A batch with columns of these types as a relation: `c0`, `c1` … in the columns' own types, and `_ordinal`. Parameters are numbered
/// from `first`.
pub(crate) fn relation(types: &[PgType], first: usize) -> String {
    selected(types, first, true)
}

/// The same without `_ordinal`, from 1.
pub(crate) fn cells(types: &[PgType]) -> String {
    selected(types, 1, false)
}

/// The same with names: what `{batch}` stands for in a user's SQL. It may lock rows (`FOR UPDATE`), which PostgreSQL refuses beside functions in a
/// select list.
pub(crate) fn named_relation(types: &[PgType], names: &[&str]) -> String {
    let cells: Vec<String> = types
        .iter()
        .enumerate()
        .map(|(index, pg_type)| format!("{} AS {}", cell(index, pg_type), quote(names[index])))
        .collect();
    let arrays: Vec<String> = (1..=types.len()).map(|number| format!("${number}")).collect();
    let columns: Vec<String> = (0..types.len()).map(|index| format!("c{index}")).collect();
    format!(
        "(SELECT {}, u.o - 1 AS {ORDINAL} FROM unnest({}) WITH ORDINALITY AS u({}, o))",
        cells.join(", "),
        arrays.join(", "),
        columns.join(", ")
    )
}

fn selected(types: &[PgType], first: usize, ordinals: bool) -> String {
    let columns: Vec<String> = types
        .iter()
        .enumerate()
        .map(|(index, pg_type)| format!("{} AS c{index}", cell(index, pg_type)))
        .collect();
    let arrays: Vec<String> =
        (0..types.len()).map(|index| format!("unnest(${}) AS c{index}", index + first)).collect();
    let (columns, arrays) = (columns.join(", "), arrays.join(", "));
    match ordinals {
        true => format!(
            "(SELECT {columns}, u.o - 1 AS {ORDINAL} \
             FROM (SELECT {arrays}, generate_series(1, cardinality(${first}))::int8 AS o) AS u)"
        ),
        false => format!("(SELECT {columns} FROM (SELECT {arrays}) AS u)"),
    }
}

/// A cell in its column's type. What travels as another type is cast.
fn cell(index: usize, pg_type: &PgType) -> String {
    match travels_as_itself(pg_type) {
        true => format!("u.c{index}{}", pg_type.collate()),
        false => format!("u.c{index}::{}{}", pg_type.sql, pg_type.collate()),
    }
}

/// Whether a parameter's elements compare and are stored as the column's own type, so that no cast is needed.
fn travels_as_itself(pg_type: &PgType) -> bool {
    match pg_type.kind {
        Kind::Text => pg_type.sql == "text",
        // Blanks at a char(n)'s end don't count, so it must be compared as what it is.
        Kind::Char(_) | Kind::Enum | Kind::Other | Kind::Array(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::StringArray;

    use super::*;

    #[test]
    fn a_slice_counts_as_its_rows() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(1_000); 100]));
        let whole = Batch { columns: vec![(texts, PgType::parse("text"))], rows: 100, misfits: false };
        assert!((100_000..110_000).contains(&whole.bytes()), "{}", whole.bytes());
        let slice = whole.select(&[7, 8]).unwrap();
        assert!((2_000..2_100).contains(&slice.bytes()), "{}", slice.bytes());
    }
}
