//! Look-ups: rows by key.
//!
//! DuckDB joins the keys with the table by hashing and reads no index, so that a statement costs a reading of the key columns, whatever the number of
//! keys. Rows in an order it sorts, and keeps until the last of them is known: there the keys are cut, so that what is kept doesn't grow with them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use barge_core::record::quote;
use barge_core::store::{Description, Direction, LookUp, ORDINAL};
use barge_core::{Error, ErrorKind, Result, TableName};

use crate::connection::{Connection, with_ordinals};
use crate::convert::convert;
use crate::plan::{exact, relation};
use crate::raw::{Lent, Prepared};
use crate::sql::qualified;
use crate::types::{DuckType, Kind};

/// Keys in one statement that sorts.
const SORTED_KEYS_MAX: usize = 16_384;

/// A look-up's statement and what it reads.
struct Plan {
    sql: String,
    keys: RecordBatch,
    /// The columns that are given.
    schema: Schema,
    /// Whether no row can have some key, as far as the table's description says.
    misfits: bool,
}

impl Connection {
    /// Reads the rows with the given keys.
    pub(crate) fn look_up(&mut self, look_up: &LookUp) -> Result<RecordBatch> {
        let mut batches = Vec::new();
        self.each_found(look_up, &mut |batch| {
            batches.push(batch);
            true
        })?;
        let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
        Ok(arrow::compute::concat_batches(&schema, &batches)?)
    }

    /// Gives the rows with the given keys in batches, the first of which may be empty, as long as they are wanted.
    pub(crate) fn each_found(
        &mut self,
        look_up: &LookUp,
        wanted: &mut dyn FnMut(RecordBatch) -> bool,
    ) -> Result<()> {
        let sorts = !look_up.order.is_empty() || look_up.limit.is_some();
        let keys_max = if sorts { SORTED_KEYS_MAX } else { usize::MAX };
        let several = look_up.keys.num_rows() > keys_max;
        // Several statements see the database at one moment only so.
        let own = several && !self.in_transaction();
        if own {
            self.begin()?;
        }
        let given = self.give_found(look_up, keys_max, wanted);
        if own {
            self.roll_back();
        }
        given
    }

    fn give_found(
        &mut self,
        look_up: &LookUp,
        keys_max: usize,
        wanted: &mut dyn FnMut(RecordBatch) -> bool,
    ) -> Result<()> {
        let known = self.look_ups.contains_key(look_up.table.name());
        let mut prepared = self.prepare_first(look_up, keys_max);
        // The table may have changed since it was described; a key that fitted no row may fit now.
        if known && prepared.as_ref().map_or(true, |(plan, _)| plan.misfits) {
            self.look_ups.remove(look_up.table.name());
            prepared = self.prepare_first(look_up, keys_max);
        }
        let (mut plan, mut first) = prepared?;
        let rows = plan.keys.num_rows();
        let schema = std::mem::replace(&mut plan.schema, Schema::empty());
        let mut next = keys_max.min(rows);
        let mut more = true;
        loop {
            let (prepared, lent) = first;
            self.give_by_key(prepared, lent, &schema, &mut |batch| {
                more = wanted(batch);
                more
            })?;
            if !more || next >= rows {
                return Ok(());
            }
            let length = keys_max.min(rows - next);
            first = self.prepare_part(&plan, next, length)?;
            next += length;
        }
    }

    fn prepare_first(&mut self, look_up: &LookUp, keys_max: usize) -> Result<(Plan, (Prepared, Lent))> {
        let plan = self.plan_look_up(look_up)?;
        let prepared = self.prepare_part(&plan, 0, keys_max.min(plan.keys.num_rows()))?;
        Ok((plan, prepared))
    }

    fn prepare_part(&mut self, plan: &Plan, first: usize, length: usize) -> Result<(Prepared, Lent)> {
        let keys = self.bind(plan.keys.slice(first, length))?;
        let lent = self.handle.lend(&keys);
        let prepared = Prepared::new(&self.handle, &plan.sql).map_err(|failure| self.error(failure))?;
        Ok((prepared, lent))
    }

    /// A table that look-ups read, described once.
    fn described(&mut self, name: &TableName) -> Result<Arc<Description>> {
        if let Some(description) = self.look_ups.get(name) {
            return Ok(Arc::clone(description));
        }
        let description = Arc::new(self.describe(name)?);
        self.look_ups.insert(name.clone(), Arc::clone(&description));
        Ok(description)
    }

    fn plan_look_up(&mut self, look_up: &LookUp) -> Result<Plan> {
        let description = self.described(look_up.table.name())?;
        let described = |name: &str| {
            description.column(name).ok_or_else(|| {
                Error::new(ErrorKind::MissingColumn, "the table has no such column")
                    .with_table(description.name.to_string())
                    .with_column(name)
            })
        };
        let (mut types, mut keys, mut equal) = (Vec::new(), Vec::new(), Vec::new());
        let mut misfits = false;
        for (index, field) in look_up.keys.schema_ref().fields().iter().enumerate() {
            let column = described(field.name())?;
            let own = DuckType::parse(&column.declared_type);
            let to = own.field(&format!("c{index}"));
            let (array, misfit) = fitting(look_up.keys.column(index), field, &to)?;
            misfits |= misfit;
            equal.push(format!("{} = b.c{index}", exact(&format!("t.{}", quote(&column.name)), &own)));
            keys.push((to, array));
            types.push(own);
        }
        let mut columns = String::new();
        let mut wanted = vec![Field::new(ORDINAL, DataType::Int64, true)];
        for column in look_up.table.columns() {
            let found = described(column.name())?;
            let name = quote(&found.name);
            let cell = match DuckType::parse(&found.declared_type).kind {
                Kind::Other => format!("CAST(t.{name} AS VARCHAR)"),
                _ => format!("t.{name}"),
            };
            columns.push_str(&format!(", {cell} AS {}", quote(column.name())));
            wanted.push((*column.field).clone().with_nullable(true));
        }
        let places: Vec<(usize, &DuckType)> = types.iter().enumerate().collect();
        let sql = format!(
            "SELECT b.{ORDINAL}{columns} FROM {} AS b JOIN {} AS t ON {}{}",
            relation(self.handle.batch_relation(), &places),
            qualified(&self.catalog, &description.name),
            equal.join(" AND "),
            sorted(look_up, |name| Ok(quote(&described(name)?.name)))?
        );
        let keys = with_ordinals(keys, look_up.keys.num_rows())?;
        Ok(Plan { sql, keys, schema: Schema::new(wanted), misfits })
    }
}

/// What follows the join where rows have an order or a limit.
fn sorted(look_up: &LookUp, column: impl Fn(&str) -> Result<String>) -> Result<String> {
    let order = look_up.order.iter().map(|by| {
        let direction = match by.direction {
            Direction::Ascending => "ASC NULLS LAST",
            Direction::Descending => "DESC NULLS FIRST",
        };
        Ok(format!("t.{} {direction}", column(&by.column)?))
    });
    let order = order.collect::<Result<Vec<_>>>()?.join(", ");
    let mut sql = String::new();
    if let Some(limit) = look_up.limit {
        let order_by = if order.is_empty() { String::new() } else { format!(" ORDER BY {order}") };
        sql = format!(" QUALIFY row_number() OVER (PARTITION BY b.{ORDINAL}{order_by}) <= {limit}");
    }
    if !order.is_empty() {
        sql.push_str(&format!(" ORDER BY b.{ORDINAL}, {order}"));
    }
    Ok(sql)
}

/// Keys in a column's type, NULL, which finds nothing, for one that no row of the column can have; and whether there are such.
fn fitting(array: &ArrayRef, field: &Field, to: &Field) -> Result<(ArrayRef, bool)> {
    let converted = convert(array, field, to)?;
    if converted.misfits.is_empty() {
        return Ok((converted.array, false));
    }
    let mut misfits = vec![false; array.len()];
    converted.misfits.iter().for_each(|(row, _)| misfits[*row] = true);
    Ok((arrow::compute::nullif(&converted.array, &BooleanArray::from(misfits))?, true))
}
