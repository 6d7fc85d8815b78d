//! Which keys of a batch are in the table, where few of the table's keys are near the batch's: as a rule keys grow, and those of a batch lie beyond
//! most of the table's.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema};
use barge_core::Result;
use barge_core::record::quote;
use barge_core::store::{DescribedColumn, KeyEquality, Query};
use hashbrown::HashSet;

use super::{Search, key_rows};
use crate::read::Reading;
use crate::transaction::PostgresTransaction;
use crate::types::Kind;

/// Of a batch's rows, the part up to which the table's keys are read. Each costs less than looking for a row's key.
const NEAR_PART: usize = 8;

impl Search<'_> {
    /// The places among `rows` whose values in the columns `places` are in the table. `None` where many rows of the table lie between the
    /// least and the greatest value of the first column, or it can't be said here which are the least and the greatest, or which are equal.
    pub(super) async fn near(
        &mut self,
        transaction: &mut PostgresTransaction,
        rows: &[u32],
        places: &[usize],
    ) -> Result<Option<Vec<usize>>> {
        if !places.iter().all(|&place| self.is_built_in(place)) {
            return Ok(None);
        }
        let rows = UInt32Array::from(rows.to_vec());
        let columns = places.iter().map(|&place| take(self.step.batch.column(place), &rows, None));
        let columns = columns.collect::<Result<Vec<ArrayRef>, _>>()?;
        let Some(ends) = ends(&columns[0])? else { return Ok(None) };
        let limit = rows.len() / NEAR_PART + 1;
        let fields: Vec<Arc<Field>> =
            places.iter().map(|&place| self.prepared.plan.target.columns[place].field.clone()).collect();
        let names: Vec<String> = fields.iter().map(|field| format!("t.{}", quote(field.name()))).collect();
        let query = Query {
            sql: format!(
                // Asked for each by itself, the ends are where the index is entered and left.
                "SELECT {} FROM {} AS t WHERE {} BETWEEN (SELECT b.least FROM {{batch}} AS b) \
                 AND (SELECT b.greatest FROM {{batch}} AS b) LIMIT {limit}",
                names.join(", "),
                self.prepared.plan.rows_of_table(),
                names[0],
            ),
            batch: Some(RecordBatch::try_new(
                Arc::new(Schema::new(vec![
                    (*fields[0]).clone().with_name("least"),
                    (*fields[0]).clone().with_name("greatest"),
                ])),
                vec![ends.slice(0, 1), ends.slice(1, 1)],
            )?),
            schema: Some(Arc::new(Schema::new(fields))),
        };
        let reading = Reading::over(&query)?;
        let near = self.asked(transaction, async |connection| reading.collect(connection).await).await?;
        match near.filter(|near| near.num_rows() < limit) {
            Some(near) => places_in(near.columns(), &columns),
            None => Ok(None),
        }
    }

    /// Whether a column's values are equal where their bytes are, and are read without asking the server for their type: what asks leaves a
    /// prepared statement in the session, and some types come as another than they were given in.
    fn is_built_in(&self, place: usize) -> bool {
        let exact = |column: &DescribedColumn| column.equality == KeyEquality::Exact;
        let plan = &self.prepared.plan;
        plan.target.described(place).is_some_and(exact)
            && !matches!(plan.types[place].kind, Kind::Enum | Kind::Other | Kind::Array(_))
    }
}

/// The places of rows whose values are among others; `None` where the two aren't of one type.
fn places_in(near: &[ArrayRef], columns: &[ArrayRef]) -> Result<Option<Vec<usize>>> {
    if near.iter().zip(columns).any(|(near, column)| near.data_type() != column.data_type()) {
        return Ok(None);
    }
    let (near, rows) = (key_rows(near.to_vec())?, key_rows(columns.to_vec())?);
    let near: HashSet<&[u8]> = near.iter().map(|row| row.data()).collect();
    // NULL is no value that another row could have.
    let given = |place: &usize| columns.iter().all(|column| column.is_valid(*place));
    let there = |place: &usize| near.contains(rows.row(*place).data());
    Ok(Some((0..rows.num_rows()).filter(given).filter(there).collect()))
}

/// The least and the greatest of some values; `None` where there is none, or the server may order them otherwise.
fn ends(values: &ArrayRef) -> Result<Option<ArrayRef>> {
    use DataType::{
        Date32, FixedSizeBinary, Int8, Int16, Int32, Int64, Time64, Timestamp, UInt8, UInt16, UInt32,
    };
    let as_the_server = matches!(
        values.data_type(),
        Int8 | Int16
            | Int32
            | Int64
            | UInt8
            | UInt16
            | UInt32
            | Date32
            | Time64(_)
            | Timestamp(..)
            | FixedSizeBinary(16)
    );
    if !as_the_server {
        return Ok(None);
    }
    let rows = key_rows(vec![values.clone()])?;
    let given = || (0..values.len()).filter(|&row| values.is_valid(row));
    let least = given().min_by_key(|&row| rows.row(row));
    let greatest = given().max_by_key(|&row| rows.row(row));
    let (Some(least), Some(greatest)) = (least, greatest) else { return Ok(None) };
    Ok(Some(take(values, &UInt32Array::from(vec![least as u32, greatest as u32]), None)?))
}
