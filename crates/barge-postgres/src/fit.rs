//! Values made to fit a column, or rejected.

pub(crate) mod number;
pub(crate) mod text;

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use barge_core::Result;

use crate::types::PgType;

/// An array made to fit a column.
pub(crate) struct Fitted {
    /// The values.
    pub(crate) array: ArrayRef,
    /// The rows that the column can't hold equal, each once, in order, and why.
    pub(crate) rejected: Vec<(usize, String)>,
}

/// Casts an array to a column's type.
pub(crate) fn fit(array: &ArrayRef, _field: &Field, _to: &PgType) -> Result<Fitted> {
    Ok(Fitted { array: array.clone(), rejected: Vec::new() })
}
