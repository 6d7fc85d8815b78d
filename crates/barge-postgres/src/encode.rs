//! Fitted arrays as bytes, with no allocation per value: rows of a binary COPY, and whole columns as one array parameter.

mod column;
mod literal;
pub(crate) mod numeric;

use std::error::Error as StdError;
use std::fmt;
use std::ops::Range;

use arrow::array::{Array, ArrayRef};
use bytes::BytesMut;
use postgres_types::{IsNull, ToSql, Type, to_sql_checked};

use crate::types::PgType;
use column::{Column, Lists, put_array};

pub(crate) use column::{EPOCH_DAYS, EPOCH_MICROS};

/// What stands before the rows of a binary COPY: the signature, no flags, no extension.
pub(crate) const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What stands behind them: a row of −1 fields.
pub(crate) const COPY_TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

/// Appends rows of a binary COPY. The arrays are as [`fit`](crate::fit::fit) gives them.
///
/// Row after row, over columns that are resolved once: measured, this is as fast as writing column after column into places
/// computed before, and it needs no second pass.
///
/// # Panics
/// Where a row is beyond an array's end.
pub(crate) fn copy_rows(columns: &[(ArrayRef, PgType)], rows: Range<usize>, out: &mut BytesMut) {
    let fields = (columns.len() as i16).to_be_bytes();
    let columns: Vec<Column<'_>> =
        columns.iter().map(|(array, pg)| Column::new(array, pg, Lists::Binary)).collect();
    for row in rows {
        out.extend_from_slice(&fields);
        for column in &columns {
            column.put(row, out);
        }
    }
}

/// A whole column as one parameter: an array of one dimension.
pub(crate) struct ArrayParameter {
    array: ArrayRef,
    pg: PgType,
}

impl ArrayParameter {
    /// The parameter of an array as [`fit`](crate::fit::fit) gives it.
    pub(crate) fn new(array: ArrayRef, pg: &PgType) -> Self {
        ArrayParameter { array, pg: pg.clone() }
    }
}

impl fmt::Debug for ArrayParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values of {}", self.array.len(), self.pg.sql)
    }
}

impl ToSql for ArrayParameter {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        let column = Column::new(&self.array, &self.pg, Lists::Literal);
        put_array(out, &column, 0..self.array.len(), self.pg.parameter_type().oid());
        Ok(IsNull::No)
    }

    /// Which array types it can be is known by the value alone, not by the Rust type.
    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
