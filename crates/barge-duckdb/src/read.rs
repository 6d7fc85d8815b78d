//! What statements give, in the types that are wanted.

use std::sync::Arc;

use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::*;
use barge_core::store::{ORDINAL, Query};
use barge_core::{Error, ErrorKind, Result};

use crate::connection::{Connection, with_ordinals};
use crate::convert::convert;
use crate::raw::{Lent, Prepared, Rows};
use crate::sql::names;
use crate::types::DuckType;

/// The rows of a statement, read in order.
pub(crate) struct Reader {
    rows: Rows,
    /// The columns as they're given; made when they're first asked for.
    schema: SchemaRef,
    /// Whether the first column says which key a row is of: then errors name the key.
    by_key: bool,
    /// The rows that were given.
    rows_before: u64,
}

impl Reader {
    fn new(rows: Rows, wanted: Option<&Schema>) -> Result<Self> {
        let fields = rows.schema().fields().iter().map(|field| -> Result<FieldRef> {
            let wanted = wanted.and_then(|schema| {
                schema.fields().iter().find(|wanted| wanted.name().eq_ignore_ascii_case(field.name()))
            });
            Ok(Arc::new(match wanted {
                Some(wanted) => (**wanted).clone().with_name(field.name()).with_nullable(true),
                None => natural_field(field)?,
            }))
        });
        let schema = Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?));
        Ok(Reader { rows, schema, by_key: false, rows_before: 0 })
    }

    /// The next rows; `None` at the end.
    fn next(&mut self, connection: &Connection) -> Result<Option<RecordBatch>> {
        let Some(batch) = self.rows.next().map_err(|failure| connection.error(failure))? else {
            return Ok(None);
        };
        let own = batch.schema();
        let columns = batch.columns().iter().zip(own.fields()).zip(self.schema.fields());
        let columns = columns.map(|((array, field), wanted)| {
            given(array, field, wanted).map_err(|error| match error.row() {
                Some(row) => self.placed(error, row, &batch),
                None => error,
            })
        });
        let columns = columns.collect::<Result<_>>()?;
        self.rows_before += batch.num_rows() as u64;
        Ok(Some(RecordBatch::try_new(Arc::clone(&self.schema), columns)?))
    }

    /// An error over a row of a batch that is being given.
    fn placed(&self, error: Error, row: u64, batch: &RecordBatch) -> Error {
        let keys = batch.columns().first().filter(|_| self.by_key);
        match keys.and_then(|keys| cast(keys, &DataType::UInt64).ok()) {
            Some(keys) => error.with_row(keys.as_primitive::<UInt64Type>().value(row as usize)),
            None => error.with_row(self.rows_before + row),
        }
    }

    fn collect(mut self, connection: &Connection) -> Result<RecordBatch> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next(connection)? {
            batches.push(batch);
        }
        Ok(arrow::compute::concat_batches(&self.schema, &batches)?)
    }
}

impl Connection {
    /// Runs a statement of the user's, and collects its rows.
    pub(crate) fn over(&mut self, query: &Query) -> Result<RecordBatch> {
        let (prepared, lent) = self.prepare_query(query)?;
        if prepared.ends_transaction() {
            return Err(transaction_statement());
        }
        self.session_changed |= prepared.changes_session(&query.sql);
        let rows = prepared.rows(lent).map_err(|failure| self.error(failure))?;
        Reader::new(rows, query.schema.as_deref())?.collect(self)
    }

    /// Gives a query's rows in batches, the first of which may be empty, as long as they are wanted.
    pub(crate) fn each_batch(
        &mut self,
        query: &Query,
        wanted: &mut dyn FnMut(RecordBatch) -> bool,
    ) -> Result<()> {
        let (prepared, lent) = self.prepare_query(query)?;
        // What it explains may write, and is then done.
        let is_run = prepared.explains() && names(&query.sql, "ANALYZE");
        if !prepared.reads() || is_run {
            let message = "the statement may do more than read: run it in a transaction";
            return Err(Error::new(ErrorKind::Statement, message));
        }
        let rows = prepared.stream(lent).map_err(|failure| self.error(failure))?;
        self.give(Reader::new(rows, query.schema.as_deref())?, wanted)
    }

    /// Gives a look-up's rows, which begin with the place of their key, as [`each_batch`](Connection::each_batch).
    pub(crate) fn give_by_key(
        &mut self,
        prepared: Prepared,
        keys: Lent,
        schema: &Schema,
        wanted: &mut dyn FnMut(RecordBatch) -> bool,
    ) -> Result<()> {
        let rows = prepared.stream(Some(keys)).map_err(|failure| self.error(failure))?;
        self.give(Reader { by_key: true, ..Reader::new(rows, Some(schema))? }, wanted)
    }

    /// Gives a statement's rows in batches, the first of which may be empty, as long as they are wanted.
    fn give(&mut self, mut reader: Reader, wanted: &mut dyn FnMut(RecordBatch) -> bool) -> Result<()> {
        // What is wrong with the first rows is known before any are given.
        let first = reader.next(self)?;
        if !wanted(first.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(&reader.schema)))) {
            return Ok(());
        }
        while let Some(batch) = reader.next(self)? {
            if !wanted(batch) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn prepare_query(&mut self, query: &Query) -> Result<(Prepared, Option<Lent>)> {
        const PLACE: &str = "{batch}";
        let (sql, batch) = match &query.batch {
            Some(batch) => {
                let fields = batch.schema_ref().fields().iter();
                if let Some(field) = fields.clone().find(|field| field.name().eq_ignore_ascii_case(ORDINAL)) {
                    let message =
                        format!("a batch's column can't be called {ORDINAL}: it is the row's place in it");
                    return Err(Error::new(ErrorKind::InvalidConfig, message).with_column(field.name()));
                }
                let columns = fields.map(|field| (**field).clone()).zip(batch.columns().iter().cloned());
                let batch = self.bind(with_ordinals(columns.collect(), batch.num_rows())?)?;
                (query.sql.replace(PLACE, self.handle.batch_relation()), Some(batch))
            }
            None if query.sql.contains(PLACE) => {
                let message = "the text names {batch}, but no batch is given";
                return Err(Error::new(ErrorKind::InvalidConfig, message));
            }
            None => (query.sql.clone(), None),
        };
        let lent = batch.map(|batch| self.handle.lend(&batch));
        let prepared = Prepared::new(&self.handle, &sql).map_err(|failure| self.error(failure))?;
        Ok((prepared, lent))
    }

    /// Runs the statements of a text of the user's, and says how many rows the last one changed.
    pub(crate) fn execute(&mut self, sql: &str) -> Result<u64> {
        let mut session_changed = false;
        let changed = Prepared::run_all(&self.handle, sql, |statement| {
            session_changed |= statement.changes_session(sql)
        });
        self.session_changed |= session_changed;
        changed.map_err(|failure| self.error(failure))
    }

    /// Numbers keys so that two have one number exactly where DuckDB takes them as equal.
    pub(crate) fn key_groups(&mut self, types: &[DuckType], keys: &RecordBatch) -> Result<Vec<u32>> {
        let schema = keys.schema();
        let mut columns = Vec::with_capacity(types.len());
        for (index, own) in types.iter().enumerate() {
            let to = own.field(&format!("c{index}"));
            let array = convert(keys.column(index), schema.field(index), &to)?.array;
            columns.push((to, array));
        }
        let batch = self.bind(with_ordinals(columns, keys.num_rows())?)?;
        let order = types.iter().enumerate().map(|(index, own)| match own.is_handed_over() {
            true => format!("c{index}"),
            // What is no value of the type is no other's equal: its row is refused when it is written.
            false => {
                let value = format!("TRY_CAST(c{index} AS {})", own.sql);
                format!("{value}, CASE WHEN {value} IS NULL THEN c{index} END")
            }
        });
        let sql = format!(
            "SELECT dense_rank() OVER (ORDER BY {}) - 1 FROM {} ORDER BY _ordinal",
            order.collect::<Vec<_>>().join(", "),
            self.handle.batch_relation()
        );
        let groups = self.integers(&sql, Some(&batch))?;
        Ok(groups.into_iter().flatten().map(|group| u32::try_from(group).unwrap_or(u32::MAX)).collect())
    }
}

pub(crate) fn transaction_statement() -> Error {
    let message = "BEGIN, COMMIT and ROLLBACK are the transaction's own calls";
    Error::new(ErrorKind::Statement, message)
}

/// The field in which a result's column is given where nothing else is wanted.
fn natural_field(field: &Field) -> Result<Field> {
    let data_type = match field.data_type() {
        DataType::Dictionary(_, value) => value.as_ref().clone(),
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some("UTC".into())),
        _ if is_huge(field) => DataType::Decimal128(38, 0),
        _ if is_bool(field) => DataType::Boolean,
        DataType::List(item) => DataType::List(Arc::new(natural_field(item)?)),
        DataType::FixedSizeList(item, length) => {
            DataType::FixedSizeList(Arc::new(natural_field(item)?), *length)
        }
        DataType::Struct(fields) => DataType::Struct(natural_fields(fields)?),
        DataType::Map(entries, sorted) => DataType::Map(Arc::new(natural_entries(entries)?), *sorted),
        _ if field.extension_type_name() == Some("arrow.opaque") => {
            let message = "Arrow has no type for such values: cast the column to VARCHAR in a query (of the program, with --query)";
            return Err(Error::new(ErrorKind::Unsupported, message).with_column(field.name()));
        }
        plain => plain.clone(),
    };
    let extension = field.metadata().get("ARROW:extension:name").cloned();
    let natural = Field::new(field.name(), data_type, true);
    Ok(match extension {
        Some(extension) if extension == "arrow.uuid" || extension == "arrow.json" => {
            natural.with_metadata([("ARROW:extension:name".to_owned(), extension)].into())
        }
        _ => natural,
    })
}

fn natural_fields(fields: &Fields) -> Result<Fields> {
    let natural = fields.iter().map(|field| Ok(natural_field(field)?.with_nullable(field.is_nullable())));
    Ok(Fields::from(natural.collect::<Result<Vec<_>>>()?))
}

/// The entries of a map, of which keys are never NULL.
fn natural_entries(entries: &Field) -> Result<Field> {
    let DataType::Struct(fields) = entries.data_type() else { return Ok(entries.clone()) };
    Ok(entries.clone().with_data_type(DataType::Struct(natural_fields(fields)?)))
}

/// Whether a column holds booleans, which come as bytes.
fn is_bool(field: &Field) -> bool {
    field.metadata().get("ARROW:extension:name").is_some_and(|name| name == "arrow.bool8")
}

/// Whether a column holds 128-bit integers, which come as bytes with a name.
fn is_huge(field: &Field) -> bool {
    let metadata = field.metadata();
    metadata.get("ARROW:extension:name").is_some_and(|name| name == "arrow.opaque")
        && metadata.get("ARROW:extension:metadata").is_some_and(|text| text.contains("hugeint"))
        && field.data_type() == &DataType::FixedSizeBinary(16)
}

/// A result's column in the type that is wanted. Errors name the row, counted from the array's first.
fn given(array: &ArrayRef, field: &Field, wanted: &Field) -> Result<ArrayRef> {
    let invalid = |(row, message): (usize, String)| {
        Error::new(ErrorKind::InvalidValue, message).with_column(field.name()).with_row(row as u64)
    };
    if let Some(row) = infinite(array) {
        let message = "an infinite date or timestamp has no place in a record batch".to_owned();
        return Err(invalid((row, message)));
    }
    if is_huge(field)
        && let Some(misfit) = too_huge(array, field)
    {
        return Err(invalid(misfit));
    }
    let natural = natural_field(field)?;
    let array = natural_array(array, field, &natural)?;
    let converted = convert(&array, &natural, wanted)?;
    match converted.misfits.into_iter().next() {
        None => Ok(converted.array),
        Some(misfit) => Err(invalid(misfit)),
    }
}

/// The first row that holds an infinite date or timestamp, at any depth: the ends of the range stand for infinities.
fn infinite(array: &ArrayRef) -> Option<usize> {
    let within = |row: usize, items: ArrayRef| infinite(&items).map(|_| row);
    match array.data_type() {
        DataType::Date32 => {
            let days = array.as_primitive::<Date32Type>();
            days.iter().position(|days| days.is_some_and(|days| [i32::MAX, -i32::MAX].contains(&days)))
        }
        DataType::Timestamp(..) => {
            let plain = array.to_data().into_builder().data_type(DataType::Int64).build().ok()?;
            let is_end = |number: i64| [i64::MAX, -i64::MAX].contains(&number);
            Int64Array::from(plain).iter().position(|number| number.is_some_and(is_end))
        }
        DataType::Struct(_) => array.as_struct().columns().iter().filter_map(infinite).min(),
        // Most have none: only then the row is looked for.
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            infinite(lists.values())?;
            (0..lists.len()).find_map(|row| within(row, lists.value(row)))
        }
        DataType::FixedSizeList(..) => {
            let lists = array.as_fixed_size_list();
            infinite(lists.values())?;
            (0..lists.len()).find_map(|row| within(row, lists.value(row)))
        }
        DataType::Map(..) => {
            let maps = array.as_map();
            let entries = |entries: &StructArray| Arc::new(entries.clone()) as ArrayRef;
            infinite(&entries(maps.entries()))?;
            (0..maps.len()).find_map(|row| within(row, entries(&maps.value(row))))
        }
        _ => None,
    }
}

fn natural_array(array: &ArrayRef, field: &Field, natural: &Field) -> Result<ArrayRef> {
    if is_huge(field) {
        return huge(array, field);
    }
    match array.data_type() {
        _ if is_bool(field) => Ok(cast(array, &DataType::Boolean)?),
        DataType::Dictionary(..) => Ok(cast(array, natural.data_type())?),
        DataType::List(item) if natural.data_type() != field.data_type() => {
            let DataType::List(natural_item) = natural.data_type() else { return Ok(Arc::clone(array)) };
            let (_, offsets, values, nulls) = array.as_list::<i32>().clone().into_parts();
            let values = natural_array(&values, item, natural_item)?;
            Ok(Arc::new(ListArray::try_new(Arc::clone(natural_item), offsets, values, nulls)?))
        }
        DataType::FixedSizeList(item, length) if natural.data_type() != field.data_type() => {
            let DataType::FixedSizeList(natural_item, _) = natural.data_type() else {
                return Ok(Arc::clone(array));
            };
            let (_, _, values, nulls) = array.as_fixed_size_list().clone().into_parts();
            let values = natural_array(&values, item, natural_item)?;
            Ok(Arc::new(FixedSizeListArray::try_new(Arc::clone(natural_item), *length, values, nulls)?))
        }
        DataType::Struct(_) if natural.data_type() != field.data_type() => {
            natural_struct(array.as_struct(), natural.data_type()).map(|array| Arc::new(array) as ArrayRef)
        }
        DataType::Map(..) if natural.data_type() != field.data_type() => {
            let DataType::Map(entry, sorted) = natural.data_type() else { return Ok(Arc::clone(array)) };
            let (_, offsets, entries, nulls, _) = array.as_map().clone().into_parts();
            let entries = natural_struct(&entries, entry.data_type())?;
            Ok(Arc::new(MapArray::try_new(Arc::clone(entry), offsets, entries, nulls, *sorted)?))
        }
        DataType::Timestamp(_, Some(_)) => {
            let data = array.to_data().into_builder().data_type(natural.data_type().clone()).build()?;
            Ok(make_array(data))
        }
        _ => Ok(Arc::clone(array)),
    }
}

fn natural_struct(array: &StructArray, natural: &DataType) -> Result<StructArray> {
    let DataType::Struct(wanted) = natural else { return Ok(array.clone()) };
    let (own, columns, nulls) = array.clone().into_parts();
    let columns = columns.iter().zip(&own).zip(wanted);
    let columns = columns.map(|((column, own), wanted)| natural_array(column, own, wanted));
    Ok(StructArray::try_new(wanted.clone(), columns.collect::<Result<_>>()?, nulls)?)
}

/// Whether 128-bit integers have no sign.
fn is_unsigned(field: &Field) -> bool {
    field.metadata().get("ARROW:extension:metadata").is_some_and(|text| text.contains("uhugeint"))
}

fn huge_value(bytes: Option<&[u8]>, unsigned: bool) -> Option<Result<i128, String>> {
    let bytes = <[u8; 16]>::try_from(bytes?).ok()?;
    let value = match unsigned {
        true => {
            i128::try_from(u128::from_le_bytes(bytes)).map_err(|_| u128::from_le_bytes(bytes).to_string())
        }
        false => Ok(i128::from_le_bytes(bytes)),
    };
    let fits = |value: &i128| value.unsigned_abs() < 10u128.pow(38);
    Some(value.and_then(|value| if fits(&value) { Ok(value) } else { Err(value.to_string()) }))
}

/// The first row with more digits than a decimal has room for.
fn too_huge(array: &ArrayRef, field: &Field) -> Option<(usize, String)> {
    let mut rows = array.as_fixed_size_binary().iter().enumerate();
    rows.find_map(|(row, bytes)| {
        let value = huge_value(bytes, is_unsigned(field))?.err()?;
        Some((row, format!("{value} has more digits than the 38 of a decimal")))
    })
}

/// 128-bit integers as decimals, which have room for 38 digits. Beyond that there are some in lists only.
fn huge(array: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let mut decimals =
        Decimal128Builder::with_capacity(array.len()).with_data_type(DataType::Decimal128(38, 0));
    for bytes in array.as_fixed_size_binary() {
        match huge_value(bytes, is_unsigned(field)).transpose() {
            Ok(value) => decimals.append_option(value),
            Err(value) => {
                let message = format!("{value} has more digits than the 38 of a decimal");
                return Err(Error::new(ErrorKind::InvalidValue, message).with_column(field.name()));
            }
        }
    }
    Ok(Arc::new(decimals.finish()))
}
