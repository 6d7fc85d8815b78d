//! All tables and their rows at one moment.
//!
//! Everything is kept in persistent trees, so that a clone costs next to nothing: a transaction works on its own clone,
//! a statement on a clone of that, and undoing is forgetting the clone.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use barge_core::store::{Description, LookUp, ORDINAL, Reference, Target, Token};
use barge_core::{Error, ErrorKind, Result, TableName};
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use super::MemoryTable;
use crate::Value;

pub(super) type Row = Arc<[Value]>;
/// A row's place in its table: rows keep it for life.
pub(super) type RowId = u64;

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) tables: BTreeMap<TableName, TableData>,
    /// The last sequence claimed, by writer and lane.
    claimed: RedBlackTreeMapSync<(uuid::Uuid, u32), u64>,
}

#[derive(Clone, Debug)]
pub(super) struct TableData {
    pub(super) definition: Arc<MemoryTable>,
    pub(super) rows: RedBlackTreeMapSync<RowId, Row>,
    indexes: Vec<Index>,
    next_row: RowId,
    /// The greatest key drawn or given so far.
    last_key: i128,
}

/// The rows by some columns, as keys compare them.
#[derive(Clone, Debug)]
pub(super) struct Index {
    columns: Vec<usize>,
    /// The constraint's name, where no two rows may have one key.
    unique: Option<String>,
    entries: RedBlackTreeSetSync<(Vec<Value>, RowId)>,
}

impl State {
    pub(super) fn table(&self, name: &TableName) -> Result<&TableData> {
        self.tables.get(name).ok_or_else(|| missing_table(name))
    }

    pub(super) fn table_mut(&mut self, name: &TableName) -> Result<&mut TableData> {
        self.tables.get_mut(name).ok_or_else(|| missing_table(name))
    }

    /// Creates a table where there is none of its name.
    pub(super) fn create(&mut self, definition: MemoryTable) -> Result<()> {
        if !self.tables.contains_key(&definition.name) {
            self.tables.insert(definition.name.clone(), TableData::new(definition)?);
        }
        Ok(())
    }

    pub(super) fn drop_table(&mut self, name: &TableName) {
        self.tables.remove(name);
    }

    /// Numbers keys: equal ones get one number.
    pub(super) fn key_groups(&self, target: &Target, keys: &RecordBatch) -> Result<Vec<u32>> {
        let definition = &self.table(target.table())?.definition;
        let schema = keys.schema();
        let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
        let columns = definition.places(&names)?;
        let mut groups: BTreeMap<Vec<Value>, u32> = BTreeMap::new();
        let mut numbers = Vec::with_capacity(keys.num_rows());
        for row in 0..keys.num_rows() {
            let cells = columns.iter().zip(keys.columns());
            let key = cells
                .map(|(&place, array)| Ok(definition.columns[place].key_value(&Value::read(array, row)?)));
            let next = groups.len() as u32;
            numbers.push(*groups.entry(key.collect::<Result<_>>()?).or_insert(next));
        }
        Ok(numbers)
    }

    pub(super) fn describe(&self, name: &TableName) -> Result<Description> {
        let mut description = self.table(name)?.definition.describe();
        for (child, data) in &self.tables {
            for key in data.definition.foreign_keys.iter().filter(|key| key.parent == *name) {
                description.referenced_by.push(Reference {
                    child: child.clone(),
                    columns: key.parent_columns.clone(),
                    on_delete: key.on_delete,
                    on_update: key.on_update,
                });
            }
        }
        Ok(description)
    }

    /// Remembers a token; false where it, or a later one of its lane, is there.
    pub(super) fn claim(&mut self, token: &Token) -> bool {
        let lane = (token.writer, token.lane);
        let new = self.claimed.get(&lane).is_none_or(|sequence| *sequence < token.sequence);
        if new {
            self.claimed.insert_mut(lane, token.sequence);
        }
        new
    }

    pub(super) fn look_up(&self, look_up: &LookUp) -> Result<RecordBatch> {
        let mut data = self.table(look_up.table.name())?.clone();
        let definition = data.definition.clone();
        let schema = look_up.keys.schema();
        let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
        let key = definition.places(&names)?;
        let names: Vec<&str> = look_up.table.columns().iter().map(|column| column.name()).collect();
        let wanted = definition.places(&names)?;
        let order = definition.order(&look_up.order)?;
        let limit = look_up.limit.map_or(usize::MAX, |limit| limit as usize);
        let index = data.index_on(&key);
        let mut ordinals = Vec::new();
        let mut found: Vec<&Row> = Vec::new();
        for ordinal in 0..look_up.keys.num_rows() {
            let values: Vec<Value> = look_up
                .keys
                .columns()
                .iter()
                .map(|array| Value::read(array, ordinal))
                .collect::<Result<_>>()?;
            let ids = data.find(index, &values);
            let mut rows: Vec<&Row> = ids.iter().filter_map(|id| data.rows.get(id)).collect();
            rows.sort_by(|one, other| definition.compare(&order, one, other));
            rows.truncate(limit);
            ordinals.extend(rows.iter().map(|_| ordinal as i64));
            found.extend(rows);
        }
        let mut fields: Vec<FieldRef> = vec![Arc::new(Field::new(ORDINAL, DataType::Int64, false))];
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(ordinals))];
        for (column, place) in look_up.table.columns().iter().zip(wanted) {
            let values: Vec<Value> = found.iter().map(|row| row[place].clone()).collect();
            let array = Value::array(column.field.data_type(), &values)
                .map_err(|error| error.with_table(definition.name.to_string()).with_column(column.name()))?;
            let nullable = column.field.is_nullable() || array.null_count() > 0;
            fields.push(Arc::new((*column.field).clone().with_nullable(nullable)));
            arrays.push(array);
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
    }
}

impl TableData {
    fn new(definition: MemoryTable) -> Result<Self> {
        let mut indexes = Vec::new();
        for (name, columns) in definition.unique_keys() {
            indexes.push(Index::new(definition.places(columns)?, Some(name)));
        }
        Ok(TableData {
            definition: Arc::new(definition),
            rows: RedBlackTreeMapSync::default(),
            indexes,
            next_row: 0,
            last_key: 0,
        })
    }

    /// An index that finds rows by these columns, made now where there is none.
    pub(super) fn index_on(&mut self, columns: &[usize]) -> usize {
        if let Some(index) = self.indexes.iter().position(|index| index.columns == columns) {
            return index;
        }
        let mut index = Index::new(columns.to_vec(), None);
        for (&id, row) in &self.rows {
            index.entries.insert_mut((index.key(&self.definition, row), id));
        }
        self.indexes.push(index);
        self.indexes.len() - 1
    }

    /// The rows whose columns, those of the index, equal the values; none where one of these is NULL.
    pub(super) fn find(&self, index: usize, values: &[Value]) -> Vec<RowId> {
        let index = &self.indexes[index];
        if values.iter().any(Value::is_null) {
            return Vec::new();
        }
        let columns = index.columns.iter().map(|&place| &self.definition.columns[place]);
        let key: Option<Vec<Value>> = columns
            .zip(values)
            .map(|(column, value)| value.fit(&column.data_type).map(|value| column.key_value(&value)))
            .collect();
        key.map_or(Vec::new(), |key| index.find(key))
    }

    /// Adds a row.
    ///
    /// # Errors
    /// `UniqueViolation`.
    pub(super) fn insert(&mut self, row: Row) -> Result<RowId> {
        let id = self.next_row;
        self.put(id, row)?;
        self.next_row += 1;
        Ok(id)
    }

    /// Puts a row in the place of another, or where none was. After an error the table is of no use.
    ///
    /// # Errors
    /// `UniqueViolation`.
    pub(super) fn put(&mut self, id: RowId, row: Row) -> Result<()> {
        let old = self.rows.get(&id).cloned();
        for index in &mut self.indexes {
            let key = index.key(&self.definition, &row);
            if let Some(old) = &old {
                let old_key = index.key(&self.definition, old);
                if old_key == key {
                    continue;
                }
                index.entries.remove_mut(&(old_key, id));
            }
            let free = key.iter().any(Value::is_null) || index.find(key.clone()).is_empty();
            if let Some(name) = &index.unique
                && !free
            {
                let columns: Vec<&str> = index.column_names(&self.definition).collect();
                return Err(Error::new(
                    ErrorKind::UniqueViolation,
                    format!("a row with ({}) = {key:?} is there already", columns.join(", ")),
                )
                .with_table(self.definition.name.to_string())
                .with_column(columns.join(", "))
                .with_constraint(name));
            }
            index.entries.insert_mut((key, id));
        }
        for (column, value) in self.definition.columns.iter().zip(row.iter()) {
            if let Value::Int(value) = value
                && column.identity
            {
                self.last_key = self.last_key.max(*value);
            }
        }
        self.rows.insert_mut(id, row);
        Ok(())
    }

    pub(super) fn remove(&mut self, id: RowId) {
        let Some(row) = self.rows.get(&id).cloned() else { return };
        for index in &mut self.indexes {
            let key = index.key(&self.definition, &row);
            index.entries.remove_mut(&(key, id));
        }
        self.rows.remove_mut(&id);
    }

    /// A key for a row that comes without.
    pub(super) fn draw_key(&mut self) -> Value {
        self.last_key += 1;
        Value::Int(self.last_key)
    }
}

impl Index {
    fn new(columns: Vec<usize>, unique: Option<String>) -> Self {
        Index { columns, unique, entries: RedBlackTreeSetSync::default() }
    }

    fn key(&self, definition: &MemoryTable, row: &[Value]) -> Vec<Value> {
        self.columns.iter().map(|&place| definition.columns[place].key_value(&row[place])).collect()
    }

    fn column_names<'a>(&self, definition: &'a MemoryTable) -> impl Iterator<Item = &'a str> {
        self.columns.iter().map(|&place| definition.columns[place].name.as_str())
    }

    fn find(&self, key: Vec<Value>) -> Vec<RowId> {
        let range = (key.clone(), RowId::MIN)..=(key, RowId::MAX);
        self.entries.range(range).map(|(_, id)| *id).collect()
    }
}

fn missing_table(name: &TableName) -> Error {
    Error::new(ErrorKind::MissingTable, "there is no such table").with_table(name.to_string())
}
