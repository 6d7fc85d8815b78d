//! One operation over rows of a batch, one row after the other; foreign keys are checked at its end.

use std::sync::Arc;

use arrow::array::RecordBatch;
use barge_core::store::{Action, Outcome, Target};
use barge_core::{Error, ErrorKind, Operation, Result, TableName};

use super::definition::{MemoryRow, MemoryTable};
use super::state::{Row, RowId, State};
use crate::Value;

/// How often a cascade may reach one further table: a limit on cycles of foreign keys.
const CASCADE_DEPTH_MAX: usize = 1_000;

/// A target whose names were found in its table.
pub(super) struct Plan<'a> {
    target: &'a Target,
    table: TableName,
    definition: Arc<MemoryTable>,
    /// The table's columns, in the order of the batch's.
    columns: Vec<usize>,
    /// The key's columns in the table.
    key: Vec<usize>,
    assigned: Vec<usize>,
    generated: Option<usize>,
}

/// What became of a row, how many rows of the table changed, and the row's key where the table draws keys.
#[derive(Debug)]
pub(super) struct RowResult {
    pub(super) outcome: Outcome,
    pub(super) affected: u64,
    pub(super) generated: Option<i64>,
}

/// A statement under way.
pub(super) struct Statement<'a> {
    state: &'a mut State,
    plan: &'a Plan<'a>,
    pending: Vec<Pending>,
}

/// What must hold of a foreign key when the statement ends, and the row of the batch that is to blame where it doesn't.
struct Pending {
    child: TableName,
    foreign_key: usize,
    of: PendingRow,
    ordinal: usize,
}

enum PendingRow {
    /// This child must have a parent.
    Child(RowId),
    /// No child may name this parent, unless there is one again.
    Parent(Vec<Value>),
}

impl<'a> Plan<'a> {
    pub(super) fn new(state: &mut State, target: &'a Target) -> Result<Self> {
        let table = target.table().clone();
        let definition = state.table(&table)?.definition.clone();
        let names: Vec<&str> = target.columns.iter().map(|column| column.name()).collect();
        let columns = definition.places(&names)?;
        let key = target.key.iter().map(|&index| columns[index]).collect();
        let generated = target.generated();
        Ok(Plan { target, table, definition, columns, key, assigned: target.assigned().collect(), generated })
    }
}

impl<'a> Statement<'a> {
    pub(super) fn new(state: &'a mut State, plan: &'a Plan<'a>) -> Self {
        Statement { state, plan, pending: Vec::new() }
    }

    /// Applies one row of the batch. After an error the state is of no use.
    pub(super) fn row(&mut self, batch: &RecordBatch, ordinal: usize) -> Result<RowResult> {
        let result = self.given(batch, ordinal).and_then(|given| self.apply(given, ordinal));
        result.map_err(|error| {
            let table = error.table().map_or_else(|| self.plan.table.to_string(), str::to_owned);
            error.with_table(table).with_row(ordinal as u64)
        })
    }

    /// The batch's values as the table's columns hold them.
    fn given(&self, batch: &RecordBatch, ordinal: usize) -> Result<Vec<Value>> {
        let cells = self.plan.columns.iter().zip(batch.columns());
        let cells = cells.map(|(&place, array)| {
            let column = &self.plan.definition.columns[place];
            let value = Value::read(array, ordinal)?;
            value.fit(&column.data_type).ok_or_else(|| {
                Error::new(ErrorKind::InvalidValue, format!("{value:?} doesn't fit {}", column.data_type))
                    .with_column(&column.name)
            })
        });
        cells.collect()
    }

    fn apply(&mut self, given: Vec<Value>, ordinal: usize) -> Result<RowResult> {
        let operation = self.plan.target.operation;
        let matched = if operation.is_keyed() {
            let key: Vec<Value> = self.plan.target.key.iter().map(|&index| given[index].clone()).collect();
            let table = self.state.table_mut(&self.plan.table)?;
            let index = table.index_on(&self.plan.key);
            table.find(index, &key)
        } else {
            Vec::new()
        };
        let (outcome, affected) = match operation {
            Operation::Insert => return self.insert(&given, ordinal),
            Operation::InsertIfAbsent | Operation::Upsert => {
                if matched.is_empty() {
                    return self.insert(&given, ordinal);
                }
                // As in SQL, what would be inserted must be a valid row, though it isn't inserted.
                let mut row = self.new_row(&given);
                self.fill_key(&mut row);
                if !accepts(&self.plan.definition, &row)? {
                    (Outcome::Unchanged, 0)
                } else if operation == Operation::Upsert {
                    self.update(&matched, &given, ordinal)?
                } else {
                    (Outcome::Unchanged, 0)
                }
            }
            Operation::Update => self.update(&matched, &given, ordinal)?,
            Operation::Delete => {
                for &id in &matched {
                    self.delete(&self.plan.table.clone(), id, ordinal, 0)?;
                }
                let outcome = if matched.is_empty() { Outcome::NotFound } else { Outcome::Deleted };
                (outcome, matched.len() as u64)
            }
        };
        let generated = self.plan.generated.and_then(|index| given[index].as_int());
        Ok(RowResult { outcome, affected, generated: generated.and_then(|key| i64::try_from(key).ok()) })
    }

    fn insert(&mut self, given: &[Value], ordinal: usize) -> Result<RowResult> {
        let mut row = self.new_row(given);
        self.fill_key(&mut row);
        if !accepts(&self.plan.definition, &row)? {
            return Ok(RowResult { outcome: Outcome::Unchanged, affected: 0, generated: None });
        }
        let table = self.state.table_mut(&self.plan.table)?;
        let generated = self.plan.generated.map(|index| &row[self.plan.columns[index]]);
        let generated = generated.and_then(Value::as_int).and_then(|key| i64::try_from(key).ok());
        let id = table.insert(row.into())?;
        self.must_have_parents(&self.plan.table.clone(), id, ordinal)?;
        Ok(RowResult { outcome: Outcome::Inserted, affected: 1, generated })
    }

    /// A row with the given values, and defaults for the rest.
    fn new_row(&self, given: &[Value]) -> Vec<Value> {
        let defaults = self.plan.definition.columns.iter();
        let mut row: Vec<Value> =
            defaults.map(|column| column.default.clone().unwrap_or(Value::Null)).collect();
        for (&place, value) in self.plan.columns.iter().zip(given) {
            row[place] = value.clone();
        }
        row
    }

    /// Draws the key where the row has none.
    fn fill_key(&mut self, row: &mut [Value]) {
        let identity = self.plan.definition.columns.iter().position(|column| column.identity);
        if let Some(place) = identity
            && row[place].is_null()
            && let Ok(table) = self.state.table_mut(&self.plan.table)
        {
            row[place] = table.draw_key();
        }
    }

    fn update(&mut self, matched: &[RowId], given: &[Value], ordinal: usize) -> Result<(Outcome, u64)> {
        let mut affected = 0;
        // Where nothing is set, a row that is there stays as it was.
        let changed = if self.plan.assigned.is_empty() { &[] } else { matched };
        for &id in changed {
            let Some(old) = self.state.table(&self.plan.table)?.rows.get(&id) else { continue };
            let mut row = old.to_vec();
            for &index in &self.plan.assigned {
                row[self.plan.columns[index]] = given[index].clone();
            }
            if accepts(&self.plan.definition, &row)? {
                self.put(&self.plan.table.clone(), id, row.into(), ordinal, 0)?;
                affected += 1;
            }
        }
        let outcome = match (matched.len(), affected) {
            (0, _) => Outcome::NotFound,
            (_, 0) => Outcome::Unchanged,
            _ => Outcome::Updated,
        };
        Ok((outcome, affected))
    }

    /// Changes a row, and what depends on it.
    fn put(&mut self, table: &TableName, id: RowId, row: Row, ordinal: usize, depth: usize) -> Result<()> {
        let data = self.state.table_mut(table)?;
        let Some(old) = data.rows.get(&id).cloned() else { return Ok(()) };
        let definition = data.definition.clone();
        data.put(id, row.clone())?;
        self.must_have_parents(table, id, ordinal)?;
        for (child, index) in self.children(table) {
            let key = self.state.table(&child)?.definition.foreign_keys[index].clone();
            let parent = definition.places(&key.parent_columns)?;
            let values =
                |row: &Row| -> Vec<Value> { parent.iter().map(|&place| row[place].clone()).collect() };
            if values(&old) != values(&row) {
                self.parent_goes(
                    &child,
                    index,
                    key.on_update,
                    values(&old),
                    Some(values(&row)),
                    ordinal,
                    depth,
                )?;
            }
        }
        Ok(())
    }

    /// Removes a row, and what depends on it.
    fn delete(&mut self, table: &TableName, id: RowId, ordinal: usize, depth: usize) -> Result<()> {
        let data = self.state.table_mut(table)?;
        let Some(old) = data.rows.get(&id).cloned() else { return Ok(()) };
        let definition = data.definition.clone();
        data.remove(id);
        for (child, index) in self.children(table) {
            let key = self.state.table(&child)?.definition.foreign_keys[index].clone();
            let parent = definition.places(&key.parent_columns)?;
            let values = parent.iter().map(|&place| old[place].clone()).collect();
            self.parent_goes(&child, index, key.on_delete, values, None, ordinal, depth)?;
        }
        Ok(())
    }

    /// Does what a foreign key says when a parent's key is no more, or becomes another.
    #[expect(clippy::too_many_arguments, reason = "one call each for update and delete")]
    fn parent_goes(
        &mut self,
        child: &TableName,
        foreign_key: usize,
        action: Action,
        old: Vec<Value>,
        new: Option<Vec<Value>>,
        ordinal: usize,
        depth: usize,
    ) -> Result<()> {
        if depth > CASCADE_DEPTH_MAX {
            return Err(Error::new(ErrorKind::Statement, "foreign keys cascade without end"));
        }
        if action == Action::Refuse {
            let of = PendingRow::Parent(old);
            self.pending.push(Pending { child: child.clone(), foreign_key, of, ordinal });
            return Ok(());
        }
        let data = self.state.table_mut(child)?;
        let definition = data.definition.clone();
        let places = definition.places(&definition.foreign_keys[foreign_key].columns)?;
        let index = data.index_on(&places);
        for id in data.find(index, &old) {
            let row = self.state.table(child)?.rows.get(&id).cloned();
            match (action, &new, row) {
                (Action::Cascade, None, _) => self.delete(child, id, ordinal, depth + 1)?,
                (_, _, Some(row)) => {
                    let mut row = row.to_vec();
                    for (position, &place) in places.iter().enumerate() {
                        row[place] = match (action, &new) {
                            (Action::Cascade, Some(new)) => new[position].clone(),
                            _ => definition.columns[place].default.clone().unwrap_or(Value::Null),
                        };
                    }
                    accepts(&definition, &row)?;
                    self.put(child, id, row.into(), ordinal, depth + 1)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The foreign keys that point at a table, as child and place.
    fn children(&self, parent: &TableName) -> Vec<(TableName, usize)> {
        let tables = self.state.tables.iter();
        let keys = tables.flat_map(|(name, data)| {
            let keys = data.definition.foreign_keys.iter().enumerate();
            keys.filter(|(_, key)| key.parent == *parent).map(|(index, _)| (name.clone(), index))
        });
        keys.collect()
    }

    fn must_have_parents(&mut self, table: &TableName, id: RowId, ordinal: usize) -> Result<()> {
        for foreign_key in 0..self.state.table(table)?.definition.foreign_keys.len() {
            let of = PendingRow::Child(id);
            self.pending.push(Pending { child: table.clone(), foreign_key, of, ordinal });
        }
        Ok(())
    }

    /// Checks the foreign keys.
    ///
    /// # Errors
    /// `ForeignKeyViolation` of the first row that broke one.
    pub(super) fn finish(mut self) -> Result<()> {
        for pending in std::mem::take(&mut self.pending) {
            self.check_foreign_key(&pending)?;
        }
        Ok(())
    }

    fn check_foreign_key(&mut self, pending: &Pending) -> Result<()> {
        let data = self.state.table_mut(&pending.child)?;
        let definition = data.definition.clone();
        let key = &definition.foreign_keys[pending.foreign_key];
        let places = definition.places(&key.columns)?;
        let values = match &pending.of {
            PendingRow::Child(id) => {
                let Some(row) = data.rows.get(id) else { return Ok(()) };
                places.iter().map(|&place| row[place].clone()).collect()
            }
            PendingRow::Parent(values) => {
                let index = data.index_on(&places);
                if data.find(index, values).is_empty() {
                    return Ok(());
                }
                values.clone()
            }
        };
        if values.iter().any(Value::is_null) {
            return Ok(());
        }
        let parent = self.state.table_mut(&key.parent)?;
        let parent_places = parent.definition.places(&key.parent_columns)?;
        let index = parent.index_on(&parent_places);
        if !parent.find(index, &values).is_empty() {
            return Ok(());
        }
        let message = match pending.of {
            PendingRow::Child(_) => {
                format!("{} has no row with {values:?}: insert the parent first", key.parent)
            }
            PendingRow::Parent(_) => format!("rows of {} still name {values:?}", pending.child),
        };
        let error = Error::new(ErrorKind::ForeignKeyViolation, message)
            .with_table(self.plan.table.to_string())
            .with_column(key.columns.join(", "))
            .with_row(pending.ordinal as u64);
        Err(match &key.name {
            Some(name) => error.with_constraint(name),
            None => error,
        })
    }
}

/// Whether a table takes a row: false where a trigger keeps it out.
///
/// # Errors
/// `NotNullViolation`, `CheckViolation`.
fn accepts(definition: &MemoryTable, values: &[Value]) -> Result<bool> {
    let row = MemoryRow { table: definition, values };
    if definition.triggers.iter().any(|trigger| (trigger.holds)(&row)) {
        return Ok(false);
    }
    for (column, value) in definition.columns.iter().zip(values) {
        if value.is_null() && !column.nullable {
            return Err(Error::new(ErrorKind::NotNullViolation, "the column allows no NULL")
                .with_table(definition.name.to_string())
                .with_column(&column.name));
        }
    }
    match definition.checks.iter().find(|check| !(check.holds)(&row)) {
        Some(check) => Err(Error::new(ErrorKind::CheckViolation, format!("the row fails {}", check.name))
            .with_table(definition.name.to_string())
            .with_constraint(&check.name)),
        None => Ok(true),
    }
}
