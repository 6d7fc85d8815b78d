//! Look-ups, in one of three ways.
//!
//! - All rows of each key in any order: one statement that joins the keys with the table.
//! - In an order, or a number of each key's: one prepared statement run key by key in one transaction, so that an index on the key and the
//!   order is read only as far as rows are wanted. SQLite has no lateral join, and a window function reads a key's rows to their end.
//! - Where no index finds a key's rows, either would read the whole table for each key. Then one statement reads it once, and looks for each
//!   row's key in an index that SQLite makes of the keys.

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field};
use barge_core::record::quote;
use barge_core::store::{Direction, LookUp, ORDINAL, OrderBy};
use barge_core::{Error, ErrorKind, Result};

use crate::affinity::Affinity;
use crate::batch::BoundBatch;
use crate::connection::{Connection, bind, bind_keys};
use crate::describe::read_as;
use crate::read::Reader;
use crate::statement::{ColumnMetadata, Statement, column_metadata};

/// Takes what was found, and says whether more is wanted.
type Wanted<'a> = dyn FnMut(RecordBatch) -> bool + 'a;

/// For so many keys, reading the table for each is taken for cheaper than finding out whether there is an index.
const SCANS_MAX: usize = 4;

impl Connection {
    /// Reads rows by key.
    pub(crate) fn look_up(&mut self, look_up: &LookUp) -> Result<RecordBatch> {
        let mut found = Err(Error::new(ErrorKind::Statement, "a look-up gave no rows at all"));
        self.look_up_in_parts(look_up, usize::MAX, &mut |part| {
            found = Ok(part);
            true
        })?;
        found
    }

    /// Reads rows by key and gives them in parts of some rows, the first of which may be empty, as long as they are wanted.
    pub(crate) fn look_up_in_parts(
        &mut self,
        look_up: &LookUp,
        rows_max: usize,
        wanted: &mut Wanted<'_>,
    ) -> Result<()> {
        let named = |error: Error| match error.table() {
            None => error.with_table(look_up.table.name().to_string()),
            Some(_) => error,
        };
        self.look_up_rows(look_up, rows_max, wanted).map_err(named)
    }

    fn look_up_rows(&mut self, look_up: &LookUp, rows_max: usize, wanted: &mut Wanted<'_>) -> Result<()> {
        let mut parts = Parts { reader: reader(look_up, rows_max)?, rows_max, given: false, wanted };
        let order = self.order(look_up)?;
        let batch = self.batch_table(look_up.keys.num_columns())?;
        let in_any_order = order.is_empty() && look_up.limit.is_none();
        let sql = if in_any_order { joined(look_up, &batch) } else { key_by_key(look_up, &order) };
        if look_up.keys.num_rows() > SCANS_MAX && !self.searches(&sql)? {
            let sql = scanned(look_up, &order, &self.keys_relation(look_up, &batch));
            let statement = self.statement(&sql)?;
            let keys = bind(&look_up.keys, |index| self.key_affinity(look_up, index))?;
            return self.over_keys(&statement, &keys, &mut parts);
        }
        let statement = self.statement(&sql)?;
        let keys = bind_keys(&look_up.keys, |index| self.key_affinity(look_up, index))?;
        if in_any_order {
            return self.over_keys(&statement, &keys, &mut parts);
        }
        self.at_one_moment(|connection| {
            connection.by_key(&statement, &keys, look_up.keys.num_rows(), &mut parts)
        })
    }

    /// Runs one statement over all keys.
    fn over_keys(
        &self,
        statement: &Statement,
        keys: &Rc<BoundBatch>,
        parts: &mut Parts<'_, '_>,
    ) -> Result<()> {
        let mut run = statement.run_over(keys);
        while parts.read(self, &mut run)? {
            if !parts.give()? {
                return Ok(());
            }
        }
        parts.end()
    }

    /// Runs a statement for each key.
    fn by_key(
        &self,
        statement: &Statement,
        keys: &Rc<BoundBatch>,
        count: usize,
        parts: &mut Parts<'_, '_>,
    ) -> Result<()> {
        let places: Vec<usize> = (0..keys.columns.len()).collect();
        for position in 0..count {
            let row = keys.row_at(position);
            // SAFETY: the run releases the row when it ends, before the keys go.
            unsafe { statement.bind_row(keys, &places, row) };
            statement.bind_integer(places.len() as i32 + 1, row as i64);
            let mut run = statement.run();
            while parts.read(self, &mut run)? {
                if !parts.give()? {
                    return Ok(());
                }
            }
        }
        parts.end()
    }

    /// Has several statements see the database as it is now.
    fn at_one_moment(&mut self, read: impl FnOnce(&Connection) -> Result<()>) -> Result<()> {
        if self.in_transaction() {
            return read(self);
        }
        self.run("BEGIN")?;
        let done = read(self);
        // Nothing was written, so there is nothing to keep.
        self.roll_back();
        done
    }

    /// Whether a statement finds its rows by an index, and reads nothing from end to end but the keys.
    fn searches(&mut self, sql: &str) -> Result<bool> {
        const DETAIL: usize = 3;
        let statement = self.statement(&format!("EXPLAIN QUERY PLAN {sql}"))?;
        let mut run = statement.run();
        while let Some(row) = run.next().map_err(|failure| self.error(failure))? {
            if let crate::statement::Value::Text(detail) = row.value(DETAIL)
                && detail.starts_with(b"SCAN")
                && !detail.starts_with(b"SCAN b ")
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The keys in a form of which SQLite makes an index: it compares by one only where both sides have the same affinity, which a key's cast
    /// gives it. A key of another kind than its column stays as it is, to be compared as the column says.
    fn keys_relation(&self, look_up: &LookUp, batch: &str) -> String {
        let fields = look_up.keys.schema_ref().fields().iter().enumerate();
        let columns = fields.map(|(index, field)| {
            let metadata = self.metadata(look_up, field.name());
            let affinity = metadata.map_or(Affinity::Blob, |metadata| Affinity::of(&metadata.declared));
            let data_type = field.data_type();
            match affinity {
                Affinity::Integer if data_type.is_signed_integer() => {
                    format!("CAST(c{index} AS INTEGER) AS c{index}")
                }
                Affinity::Real if data_type.is_floating() => format!("CAST(c{index} AS REAL) AS c{index}"),
                Affinity::Text if data_type == &DataType::Utf8 => {
                    format!("CAST(c{index} AS TEXT) AS c{index}")
                }
                _ => format!("c{index}"),
            }
        });
        let columns: Vec<String> = columns.collect();
        format!("WITH b AS MATERIALIZED (SELECT _ordinal, {} FROM {batch}(?1))", columns.join(", "))
    }

    /// The look-up's order in SQL, without ORDER BY.
    fn order(&self, look_up: &LookUp) -> Result<String> {
        let columns = look_up.order.iter().map(|by| {
            let metadata = self.metadata(look_up, &by.column);
            if is_decimal_text(look_up, by, metadata.as_ref()) {
                let message = "SQLite keeps decimals as text, which it can't order by their value: order by another column, or keep \
                               an integer of the smallest unit";
                return Err(Error::new(ErrorKind::Unsupported, message).with_column(&by.column));
            }
            // Where there are no NULLs, nothing need be said of them: an index gives more orders then.
            let nullable = metadata.is_none_or(|metadata| !metadata.not_null);
            let direction = match (by.direction, nullable) {
                (Direction::Ascending, false) => "",
                (Direction::Ascending, true) => " NULLS LAST",
                (Direction::Descending, false) => " DESC",
                (Direction::Descending, true) => " DESC NULLS FIRST",
            };
            Ok(format!("t.{}{direction}", quote(&by.column)))
        });
        Ok(columns.collect::<Result<Vec<_>>>()?.join(", "))
    }

    fn metadata(&self, look_up: &LookUp, column: &str) -> Option<ColumnMetadata> {
        let name = look_up.table.name();
        // SAFETY: the connection is open.
        unsafe { column_metadata(self.raw(), name.schema().unwrap_or("main"), name.name(), column) }
    }

    /// The affinity of a look-up's key column: asked only where a key's form depends on it.
    fn key_affinity(&self, look_up: &LookUp, index: usize) -> Affinity {
        let field = look_up.keys.schema_ref().field(index);
        if !field.data_type().is_floating() {
            return Affinity::Blob;
        }
        let metadata = self.metadata(look_up, field.name());
        metadata.map_or(Affinity::Blob, |metadata| Affinity::of(&metadata.declared))
    }
}

/// Rows on their way to who wants them.
struct Parts<'w, 'f> {
    reader: Reader,
    rows_max: usize,
    given: bool,
    wanted: &'w mut Wanted<'f>,
}

impl Parts<'_, '_> {
    /// Reads rows until a part is full, or the run is at its end; whether it is full.
    fn read(&mut self, connection: &Connection, run: &mut crate::statement::Run<'_>) -> Result<bool> {
        self.reader.read(run, self.rows_max, |failure| connection.error(failure))
    }

    /// Gives what was read; whether more is wanted.
    fn give(&mut self) -> Result<bool> {
        self.given = true;
        Ok((self.wanted)(self.reader.take()?))
    }

    /// Gives what is left. Something is always given.
    fn end(&mut self) -> Result<()> {
        if !self.given || !self.reader.is_empty() {
            self.give()?;
        }
        Ok(())
    }
}

fn reader(look_up: &LookUp, rows_max: usize) -> Result<Reader> {
    let ordinal = Arc::new(Field::new(ORDINAL, DataType::Int64, false));
    let columns = look_up.table.columns().iter();
    let fields = columns.map(|column| Arc::new((*column.field).clone().with_nullable(true)));
    Reader::by_key(std::iter::once(ordinal).chain(fields), look_up.keys.num_rows().min(rows_max))
}

/// Whether values of a column are decimals in the form of text.
fn is_decimal_text(look_up: &LookUp, by: &OrderBy, metadata: Option<&ColumnMetadata>) -> bool {
    let is_decimal = |data_type: &DataType| matches!(data_type, DataType::Decimal128(..));
    let own = look_up.table.columns().iter().find(|column| column.name().eq_ignore_ascii_case(&by.column));
    let own = own.is_some_and(|column| is_decimal(column.field.data_type()));
    let declared = metadata.map_or("", |metadata| &metadata.declared);
    !Affinity::of(declared).is_numeric() && (own || is_decimal(&read_as(declared)))
}

/// The columns wanted, each after a comma.
fn columns(look_up: &LookUp) -> String {
    let columns = look_up.table.columns().iter();
    columns.map(|column| format!(", t.{}", quote(column.name()))).collect()
}

/// Where the key columns equal those of the keys, as these are named.
fn equal(look_up: &LookUp, key: impl Fn(usize) -> String) -> String {
    let fields = look_up.keys.schema_ref().fields().iter().enumerate();
    let equal = fields.map(|(index, field)| format!("t.{} = {}", quote(field.name()), key(index)));
    equal.collect::<Vec<_>>().join(" AND ")
}

/// All rows of all keys in any order.
fn joined(look_up: &LookUp, batch: &str) -> String {
    format!(
        "SELECT b._ordinal{} FROM {batch}(?1) AS b CROSS JOIN {} AS t ON {}",
        columns(look_up),
        look_up.table.name().quoted(),
        equal(look_up, |index| format!("b.c{index}"))
    )
}

/// The rows of one key, which is bound; its ordinal comes after it.
fn key_by_key(look_up: &LookUp, order: &str) -> String {
    let mut sql = format!(
        "SELECT ?{}{} FROM {} AS t WHERE {}",
        look_up.keys.num_columns() + 1,
        columns(look_up),
        look_up.table.name().quoted(),
        equal(look_up, |index| format!("?{}", index + 1))
    );
    if !order.is_empty() {
        sql.push_str(&format!(" ORDER BY {order}"));
    }
    if let Some(limit) = look_up.limit {
        sql.push_str(&format!(" LIMIT {limit}"));
    }
    sql
}

/// The rows of all keys, found by reading the table once. In an order or with a limit they're numbered within each key.
fn scanned(look_up: &LookUp, order: &str, keys: &str) -> String {
    let table = look_up.table.name().quoted();
    let equal = equal(look_up, |index| format!("b.c{index}"));
    let from = format!("FROM {table} AS t CROSS JOIN b ON {equal}");
    if order.is_empty() && look_up.limit.is_none() {
        return format!("{keys} SELECT b._ordinal{} {from}", columns(look_up));
    }
    let named = look_up.table.columns().iter().enumerate();
    let named: String =
        named.map(|(index, column)| format!(", t.{} AS v{index}", quote(column.name()))).collect();
    let values: String = (0..look_up.table.columns().len()).map(|index| format!(", v{index}")).collect();
    let order_by = if order.is_empty() { String::new() } else { format!(" ORDER BY {order}") };
    let limit = look_up.limit.map_or(String::new(), |limit| format!(" WHERE place <= {limit}"));
    format!(
        "{keys} SELECT ordinal{values} FROM (SELECT b._ordinal AS ordinal{named}, \
         row_number() OVER (PARTITION BY b._ordinal{order_by}) AS place {from}){limit} ORDER BY ordinal, place"
    )
}
