//! Look-ups: rows by key, in one of three ways.
//!
//! - All rows of each key in any order: the keys joined with the table.
//! - In an order, or a number of each key's, where an index finds a key's rows: a lateral subquery, which reads for each key no further than
//!   rows are wanted.
//! - The same without such an index, where a subquery would read the whole table for each key: a window function over the join.
//!
//! A nested loop keeps the order of a lateral subquery's rows, and nothing but a nested loop can run one.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use barge_core::record::{TableName, quote};
use barge_core::store::{Description, Direction, LookUp, ORDINAL};
use barge_core::{Error, ErrorKind, Result};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::batch::{Batch, relation};
use crate::connection::Connection;
use crate::error::error_of;
use crate::read::Reading;
use crate::types::{Kind, PgType};

/// Bytes of keys in one statement. The protocol's messages end at 1 GB, and a server holds a statement's arrays in memory.
const KEY_BYTES_MAX: usize = 64 << 20;
/// How long a table's indexes are taken for granted.
const INDEXES_KNOWN: Duration = Duration::from_secs(60);

/// What is known of the tables that look-ups read, so that each is described once.
#[derive(Default)]
pub(crate) struct Lookups {
    descriptions: Mutex<HashMap<TableName, Arc<Description>>>,
    indexes: Mutex<HashMap<TableName, Arc<Indexes>>>,
}

/// A table's indexes.
struct Indexes {
    indexes: Vec<Index>,
    asked: Instant,
}

struct Index {
    columns: Vec<String>,
    unique: bool,
}

impl Lookups {
    /// A look-up's statements: one, unless the keys are too many bytes for one.
    pub(crate) async fn readings(&self, connection: &Connection, look_up: &LookUp) -> Result<Vec<Reading>> {
        let name = look_up.table.name();
        let Some(known) = self.known(name) else {
            let description = self.ask(connection, name).await?;
            return self.readings_of(connection, look_up, &description).await;
        };
        let readings = self.readings_of(connection, look_up, &known).await?;
        // A key that no row could have when the table was described may have one since a column was widened.
        if readings.iter().any(Reading::has_misfits) && self.is_changed(connection, name, &known).await? {
            let description = self.known(name).unwrap_or(known);
            return self.readings_of(connection, look_up, &description).await;
        }
        Ok(readings)
    }

    async fn readings_of(
        &self,
        connection: &Connection,
        look_up: &LookUp,
        description: &Description,
    ) -> Result<Vec<Reading>> {
        let plan = Plan::new(description, look_up)?;
        let way = match look_up.order.is_empty() && look_up.limit.is_none() {
            true => Way::Join,
            false if self.is_indexed(connection, look_up, description).await? => Way::Lateral,
            false => Way::Window,
        };
        let mut readings = Vec::new();
        for (first, keys) in cut(&look_up.keys, KEY_BYTES_MAX) {
            readings.push(plan.reading(look_up, way, first, &keys)?);
        }
        Ok(readings)
    }

    /// How a table was described, if it was.
    pub(crate) fn known(&self, name: &TableName) -> Option<Arc<Description>> {
        locked(&self.descriptions).get(name).cloned()
    }

    /// Describes a table anew, and says whether it is another than it `was`.
    pub(crate) async fn is_changed(
        &self,
        connection: &Connection,
        name: &TableName,
        was: &Description,
    ) -> Result<bool> {
        Ok(*self.ask(connection, name).await? != *was)
    }

    async fn ask(&self, connection: &Connection, name: &TableName) -> Result<Arc<Description>> {
        let description = Arc::new(connection.describe(name).await?);
        locked(&self.descriptions).insert(name.clone(), Arc::clone(&description));
        locked(&self.indexes).remove(name);
        Ok(description)
    }

    /// Forgets what is known of every table.
    pub(crate) fn forget_all(&self) {
        locked(&self.descriptions).clear();
        locked(&self.indexes).clear();
    }

    /// Whether an index finds a key's rows, and no others that would be read in vain for each key.
    async fn is_indexed(
        &self,
        connection: &Connection,
        look_up: &LookUp,
        description: &Description,
    ) -> Result<bool> {
        let keys = look_up.keys.schema();
        let columns = keys.fields().iter().filter_map(|field| description.column(field.name()));
        let columns: HashSet<&str> = columns.map(|column| column.name.as_str()).collect();
        let name = look_up.table.name();
        let known = locked(&self.indexes).get(name).cloned();
        if let Some(known) = known.filter(|known| known.asked.elapsed() < INDEXES_KNOWN) {
            return Ok(known.find(&columns));
        }
        let indexes = Arc::new(Indexes { indexes: connection.indexes(name).await?, asked: Instant::now() });
        locked(&self.indexes).insert(name.clone(), Arc::clone(&indexes));
        Ok(indexes.find(&columns))
    }
}

impl Indexes {
    /// Whether one of them begins with these columns, or is unique over some of them.
    fn find(&self, columns: &HashSet<&str>) -> bool {
        self.indexes.iter().any(|index| {
            let begins = index.columns.get(..columns.len());
            let begins = begins
                .is_some_and(|begin| begin.iter().map(String::as_str).collect::<HashSet<_>>() == *columns);
            begins || (index.unique && index.columns.iter().all(|column| columns.contains(column.as_str())))
        })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    /// A table's indexes that give rows in an order, and hold all rows. What they compute of a row, or sort in another way than the column, has no
    /// name.
    async fn indexes(&self, table: &TableName) -> Result<Vec<Index>> {
        const SQL: &str = "SELECT i.indisunique, ARRAY(\
                           SELECT coalesce(a.attname::text, '') FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) AS k(place) \
                           LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.place] AND a.attnum > 0 \
                           AND i.indcollation[k.place] IN (0, a.attcollation) \
                           ORDER BY k.place) \
                           FROM pg_catalog.pg_index i \
                           JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am m ON m.oid = c.relam \
                           WHERE i.indrelid = pg_catalog.to_regclass($1) AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree'";
        let rows = self.query(SQL, &[(&table.quoted(), Type::TEXT)]).await?;
        let index = |row: &Row| {
            Ok(Index {
                unique: row.try_get(0).map_err(error_of)?,
                columns: row.try_get(1).map_err(error_of)?,
            })
        };
        rows.iter().map(index).collect()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Join,
    Lateral,
    Window,
}

/// A look-up's text, in parts.
struct Plan {
    table: String,
    /// The types of the keys' columns.
    types: Vec<PgType>,
    equal: String,
    /// The columns wanted: what is selected, and the name it is wanted by.
    columns: Vec<(String, String)>,
    /// With ORDER BY before it; empty without an order.
    order: String,
    wanted: Arc<Schema>,
}

impl Plan {
    fn new(description: &Description, look_up: &LookUp) -> Result<Self> {
        let described = |name: &str| {
            description.column(name).ok_or_else(|| {
                Error::new(ErrorKind::MissingColumn, "the table has no such column")
                    .with_table(description.name.to_string())
                    .with_column(name)
            })
        };
        let mut types = Vec::new();
        let mut equal = Vec::new();
        for (index, field) in look_up.keys.schema().fields().iter().enumerate() {
            let column = described(field.name())?;
            types.push(PgType::of(column));
            equal.push(format!("t.{} = b.c{index}", quote(&column.name)));
        }
        let mut columns = Vec::new();
        let mut wanted = vec![Field::new(ORDINAL, DataType::Int64, true)];
        for column in look_up.table.columns() {
            let found = described(column.name())?;
            let value = format!("t.{}{}", quote(&found.name), read_cast(&PgType::of(found)));
            columns.push((value, quote(column.name())));
            wanted.push((*column.field).clone().with_nullable(true));
        }
        let order = look_up.order.iter().map(|by| {
            // NULL is greater than every value to PostgreSQL, too.
            let direction = if by.direction == Direction::Descending { " DESC" } else { "" };
            Ok(format!("t.{}{direction}", quote(&described(&by.column)?.name)))
        });
        let order = order.collect::<Result<Vec<_>>>()?.join(", ");
        Ok(Plan {
            table: description.name.quoted(),
            types,
            equal: equal.join(" AND "),
            columns,
            order: if order.is_empty() { order } else { format!(" ORDER BY {order}") },
            wanted: Arc::new(Schema::new(wanted)),
        })
    }

    /// The statement over some of the keys, of which the first has this ordinal.
    fn reading(&self, look_up: &LookUp, way: Way, first: usize, keys: &RecordBatch) -> Result<Reading> {
        let ordinal = match first {
            0 => format!("b.{ORDINAL}"),
            first => format!("b.{ORDINAL} + {first} AS {ORDINAL}"),
        };
        let limit = look_up.limit.map(|limit| limit.to_string());
        let sql = match way {
            Way::Join => self.join(&ordinal),
            Way::Lateral => self.lateral(&ordinal, limit.as_deref()),
            Way::Window => self.window(&ordinal, limit.as_deref()),
        };
        let schema = keys.schema();
        let fields = schema.fields().iter().map(|field| &**field);
        let batch = Batch::new(keys, fields.zip(self.types.iter().cloned()))?;
        Ok(Reading::look_up(sql, batch, Arc::clone(&self.wanted)))
    }

    fn join(&self, ordinal: &str) -> String {
        let Plan { table, equal, .. } = self;
        format!("SELECT {ordinal}{} FROM {} AS b JOIN {table} AS t ON {equal}", self.named(), self.keys())
    }

    fn lateral(&self, ordinal: &str, limit: Option<&str>) -> String {
        let Plan { table, equal, order, .. } = self;
        let limit = limit.map_or(String::new(), |limit| format!(" LIMIT {limit}"));
        format!(
            "SELECT {ordinal}, v.* FROM {} AS b CROSS JOIN LATERAL (SELECT {} FROM {table} AS t WHERE {equal}{order}{limit}) AS v",
            self.keys(),
            self.named().trim_start_matches(", "),
        )
    }

    fn window(&self, ordinal: &str, limit: Option<&str>) -> String {
        let Plan { table, equal, order, columns, .. } = self;
        let numbered = columns.iter().enumerate();
        let numbered: String = numbered.map(|(index, (value, _))| format!(", {value} AS v{index}")).collect();
        let named = columns.iter().enumerate();
        let named: String = named.map(|(index, (_, name))| format!(", b.v{index} AS {name}")).collect();
        let limit = limit.map_or(String::new(), |limit| format!(" WHERE b.place <= {limit}"));
        format!(
            "SELECT {ordinal}{named} FROM (SELECT b.{ORDINAL}{numbered}, \
             row_number() OVER (PARTITION BY b.{ORDINAL}{order}) AS place FROM {} AS b JOIN {table} AS t ON {equal}) AS b{limit} \
             ORDER BY b.{ORDINAL}, b.place",
            self.keys(),
        )
    }

    fn named(&self) -> String {
        self.columns.iter().map(|(value, name)| format!(", {value} AS {name}")).collect()
    }

    fn keys(&self) -> String {
        relation(&self.types, 1)
    }
}

/// Keys cut so that each part has no more bytes than allowed, or one row; each with its first row's place.
fn cut(keys: &RecordBatch, bytes_max: usize) -> Vec<(usize, RecordBatch)> {
    let mut parts = Vec::new();
    let mut rest = vec![(0, keys.num_rows())];
    while let Some((first, rows)) = rest.pop() {
        let part = keys.slice(first, rows);
        // Arrays of a kind that doesn't tell a slice's size are never halved.
        let sizes = part.columns().iter().map(|array| array.to_data().get_slice_memory_size().unwrap_or(0));
        if rows > 1 && sizes.sum::<usize>() > bytes_max {
            let half = rows / 2;
            rest.push((first + half, rows - half));
            rest.push((first, half));
        } else {
            parts.push((first, part));
        }
    }
    parts
}

/// How a column of a type that the driver doesn't know by heart is read.
fn read_cast(pg_type: &PgType) -> &'static str {
    match &pg_type.kind {
        Kind::Enum | Kind::Other => "::text",
        Kind::Text if pg_type.sql != "text" => "::text",
        Kind::Array(item) if matches!(item.kind, Kind::Enum | Kind::Other) => "::text[]",
        Kind::Array(item) if item.kind == Kind::Text && item.sql != "text" => "::text[]",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;

    use super::*;

    #[test]
    fn keys_are_cut_where_they_are_too_many_bytes() {
        let texts = StringArray::from_iter_values((0..10).map(|n| "x".repeat(if n == 7 { 500 } else { 10 })));
        let field = Field::new("k", DataType::Utf8, true);
        let keys = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![Arc::new(texts)]).unwrap();
        assert_eq!(cut(&keys, 1_000).len(), 1);
        let parts = cut(&keys, 100);
        let mut next = 0;
        for (first, part) in &parts {
            assert_eq!(*first, next);
            next += part.num_rows();
        }
        assert_eq!(next, 10);
        assert!(parts.len() > 3 && parts.contains(&(7, keys.slice(7, 1))), "{}", parts.len());
        assert_eq!(cut(&keys.slice(0, 0), 100).len(), 1);
    }
}
