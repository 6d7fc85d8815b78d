//! Which rows can't be stored so that they come back equal.

use arrow::array::RecordBatch;
use barge_core::store::Target;
use barge_core::{Error, ErrorKind};

use crate::fit::fit;
use crate::types::PgType;

/// The rows that can't be stored equal: each once, with its first reason, in order.
pub(crate) fn check(target: &Target, batch: &RecordBatch) -> Vec<(usize, Error)> {
    let mut rejected: Vec<(usize, Error)> = Vec::new();
    for (index, array) in batch.columns().iter().enumerate() {
        let Some(described) = target.described(index) else { continue };
        let column = &target.columns[index];
        let named = |error: Error| error.with_table(target.table().to_string()).with_column(column.name());
        match fit(array, &column.field, &PgType::of(described)) {
            Ok(fitted) => rejected.extend(fitted.rejected.into_iter().map(|(row, message)| {
                (row, named(Error::new(ErrorKind::InvalidValue, message)).with_row(row as u64))
            })),
            // The types never meet, so no row can be stored.
            Err(error) => {
                let every = (0..batch.num_rows()).map(|row| (row, named(error.clone()).with_row(row as u64)));
                rejected.extend(every);
            }
        }
    }
    rejected.sort_by_key(|(row, _)| *row);
    rejected.dedup_by_key(|(row, _)| *row);
    rejected
}
