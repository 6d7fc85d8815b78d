//! Which columns rows are looked up by, and what is wanted of each key.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef};

use crate::record::is_json;
use crate::store::{DescribedColumn, Description, Direction, LookUp, OrderBy};
use crate::{Error, ErrorKind, Result, Table};

/// Which columns rows are looked up by, in which order the rows of a key come, and how many of them.
///
/// The columns are any of the table's, in the order of a key's values. Without an order a key's rows come in any; without a limit all of them do.
///
/// - NULL counts as greater than every value: it comes last ascending, first descending.
/// - Rows that are equal in every column of the order come in the order of the table's key, in the direction of the last column: what is found,
///   and what a limit leaves out, is the same each time and on every store.
/// - Text goes by the database's collation. Lists and JSON have no order that databases agree on, and are refused.
/// - With an index on the columns and then those of the order, a limit reads no more rows than it gives.
///
/// ```
/// use barge_core::Direction::Descending;
/// use barge_core::LookUpBy;
///
/// // The newest fifty orders of a user in a status.
/// let by = LookUpBy::columns(["user_id", "status"]).order_by("created_at", Descending).limit(50);
/// // One column alone is a look-up, too.
/// assert_eq!(LookUpBy::from("user_id"), LookUpBy::columns(["user_id"]));
/// # drop(by);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use = "it says what to look up; `Database::get_by` does it"]
pub struct LookUpBy {
    pub(super) columns: Vec<String>,
    order: Vec<OrderBy>,
    limit: Option<u32>,
}

impl LookUpBy {
    /// By some columns: a key is a tuple of as many values.
    pub fn columns<C: Into<String>>(columns: impl IntoIterator<Item = C>) -> Self {
        LookUpBy { columns: columns.into_iter().map(Into::into).collect(), order: Vec::new(), limit: None }
    }

    /// Has a key's rows come in the order of a column; of several, the first given comes first. The column need not be one of the record's.
    pub fn order_by(mut self, column: impl Into<String>, direction: Direction) -> Self {
        self.order.push(OrderBy { column: column.into(), direction });
        self
    }

    /// Gives at most so many rows of each key: the first of the order, or any where there is none. Defaults to all.
    pub fn limit(mut self, rows: u32) -> Self {
        self.limit = Some(rows);
        self
    }

    /// How many columns a key has.
    pub(super) fn width(&self) -> usize {
        self.columns.len()
    }

    /// Holds it against a table.
    ///
    /// # Errors
    /// `MissingColumn`; `InvalidConfig` without columns, with one twice, or with an order by a column that has none.
    pub(super) fn held(&self, table: &Table, description: &Description) -> Result<HeldBy> {
        let invalid = |message: &str| {
            Error::new(ErrorKind::InvalidConfig, message).with_table(table.name().to_string())
        };
        if self.columns.is_empty() {
            return Err(invalid("a look-up needs a column to look rows up by"));
        }
        let described = |name: &str| description.column(name).ok_or_else(|| description.missing_column(name));
        let mut fields: Vec<FieldRef> = Vec::with_capacity(self.columns.len());
        for name in &self.columns {
            let field = field_of(table, described(name)?);
            if fields.iter().any(|other| other.name() == field.name()) {
                return Err(invalid("a look-up names a column twice").with_column(name));
            }
            fields.push(field);
        }
        for column in table.columns() {
            described(column.name())?;
        }
        let mut order = Vec::with_capacity(self.order.len());
        for OrderBy { column, direction } in &self.order {
            let column = described(column)?;
            if has_no_order(&field_of(table, column)) || has_no_order(&column.field(&column.name)) {
                let message = format!(
                    "rows can't be ordered by values of type {}",
                    column.declared_type.to_lowercase()
                );
                return Err(invalid(&message).with_column(&column.name));
            }
            order.push(OrderBy { column: column.name.clone(), direction: *direction });
        }
        break_ties(&mut order, &fields, table, description);
        Ok(HeldBy { fields, order, limit: self.limit })
    }
}

impl From<&str> for LookUpBy {
    fn from(column: &str) -> Self {
        LookUpBy::columns([column])
    }
}

impl<const LENGTH: usize> From<[&str; LENGTH]> for LookUpBy {
    fn from(columns: [&str; LENGTH]) -> Self {
        LookUpBy::columns(columns)
    }
}

impl From<&LookUpBy> for LookUpBy {
    fn from(by: &LookUpBy) -> Self {
        by.clone()
    }
}

/// The same with columns that the table has.
pub(super) struct HeldBy {
    /// The columns of a key.
    pub(super) fields: Vec<FieldRef>,
    order: Vec<OrderBy>,
    limit: Option<u32>,
}

impl HeldBy {
    pub(super) fn look_up(&self, table: Arc<Table>, keys: RecordBatch) -> LookUp {
        LookUp { table, keys, order: self.order.clone(), limit: self.limit }
    }
}

/// The column as the record has it, or else as it is best read.
fn field_of(table: &Table, column: &DescribedColumn) -> FieldRef {
    let own = table.columns().iter().find(|own| own.name().eq_ignore_ascii_case(&column.name));
    match own {
        Some(own) => Arc::new((*own.field).clone().with_name(&column.name)),
        None => Arc::new(column.field(&column.name)),
    }
}

fn has_no_order(field: &arrow::datatypes::Field) -> bool {
    use DataType::{FixedSizeList, LargeList, List};
    is_json(field) || matches!(field.data_type(), List(_) | LargeList(_) | FixedSizeList(..))
}

/// Adds the columns of the table's key that the order lacks, in the last one's direction: an index on the columns before then gives the whole
/// order, read one way. Those of the look-up's key are equal in all its rows.
fn break_ties(order: &mut Vec<OrderBy>, fields: &[FieldRef], table: &Table, description: &Description) {
    let Some(direction) = order.last().map(|last| last.direction) else { return };
    let own = table.key().into_iter().map(|index| table.columns()[index].name());
    let key: Vec<&str> = match description.key.is_empty() {
        true => own.collect(),
        false => description.key.iter().map(String::as_str).collect(),
    };
    for column in key {
        let named = order.iter().map(|other| &other.column).chain(fields.iter().map(|field| field.name()));
        if !named.into_iter().any(|name| name.eq_ignore_ascii_case(column)) {
            order.push(OrderBy { column: column.to_owned(), direction });
        }
    }
}
