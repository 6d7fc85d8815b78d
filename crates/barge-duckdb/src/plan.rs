//! How a target's steps are run: the types of its columns and its statements.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{Field, Schema};
use barge_core::record::quote;
use barge_core::store::{Operation, Outcome, TableKind, Target};
use barge_core::{Error, ErrorKind, Result};

use crate::connection::{Connection, with_ordinals};
use crate::convert::convert;
use crate::raw::{Failure, Place, c_string};
use crate::sql::{MAIN, holds_unions, qualified};
use crate::types::DuckType;

/// Plans kept: one a target. When there are more, all are made anew.
const PLANS_MAX: usize = 256;

/// The plans of a connection, by the address of their target. A plan holds its target, so that no other takes the address.
#[derive(Default)]
pub(crate) struct Plans(HashMap<usize, Arc<Plan>>);

/// How a target's steps are run on a connection.
pub(crate) struct Plan {
    pub(crate) target: Arc<Target>,
    /// The types of the target's columns in the database.
    pub(crate) types: Vec<DuckType>,
    pub(crate) write: Write,
    /// Finds the ordinals of rows whose keys are there. `None` for inserts.
    pub(crate) matching: Option<String>,
    /// What the database that was opened is called.
    pub(crate) catalog: Arc<str>,
    /// The table's whole name.
    pub(crate) table: String,
    /// The batch as a relation, with the columns as they're handed over.
    pub(crate) batch: String,
    /// The same with the columns in their own types, as statements ask by it: what is no value of its type is NULL there.
    pub(crate) relation: String,
    /// Whether rows may give or take values of a unique key that isn't the one they're found by.
    pub(crate) moves_unique: bool,
    /// Whether DuckDB holds rows against the table's checks only where it writes them, while other databases look at every row.
    pub(crate) skips_checks: bool,
}

/// How a batch is written.
pub(crate) enum Write {
    /// Through the Appender.
    Append(Place, Vec<CString>),
    /// By a statement over it.
    Statement(String),
}

impl Connection {
    /// The plan of a target.
    pub(crate) fn plan(&mut self, target: &Arc<Target>) -> Result<Arc<Plan>> {
        let address = Arc::as_ptr(target).addr();
        if let Some(plan) = self.plans.0.get(&address) {
            return Ok(Arc::clone(plan));
        }
        let plan = Plan::new(target, &self.catalog, self.handle.batch_relation());
        let mut plan = plan.map_err(|error| error.with_table(target.table().to_string()))?;
        plan.skips_checks =
            target.operation == Operation::InsertIfAbsent && self.has_checks(target.table())?;
        let plan = Arc::new(plan);
        if self.plans.0.len() >= PLANS_MAX {
            self.plans.0.clear();
        }
        self.plans.0.insert(address, Arc::clone(&plan));
        Ok(plan)
    }
}

impl Plan {
    fn new(target: &Arc<Target>, catalog: &Arc<str>, batch: &str) -> Result<Self> {
        let description = &target.description;
        if description.kind == TableKind::View {
            let message = "DuckDB's views can't be written";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let collated = target
            .key
            .iter()
            .find(|&&index| target.described(index).is_some_and(|described| described.collation.is_some()));
        if let (Some(&index), Operation::Upsert | Operation::InsertIfAbsent) = (collated, target.operation) {
            let message = "DuckDB's ON CONFLICT takes keys as equal that its unique key doesn't, where a column has a collation";
            return Err(Error::new(ErrorKind::Unsupported, message).with_column(target.columns[index].name()));
        }
        if let Some(index) = target.generated()
            && !target.described(index).is_some_and(|described| described.identity)
        {
            let message = "only a column whose default is the next value of a sequence draws keys on DuckDB";
            return Err(Error::new(ErrorKind::Unsupported, message).with_column(target.columns[index].name()));
        }
        let types: Vec<DuckType> = (0..target.columns.len())
            .map(|index| match target.described(index) {
                Some(described) if holds_unions(&described.declared_type) => {
                    let message =
                        "a UNION's text doesn't say of which member it is: such a column can't be written";
                    Err(Error::new(ErrorKind::Unsupported, message).with_column(&described.name))
                }
                Some(described) => Ok(DuckType::parse(&described.declared_type)),
                None => DuckType::for_field(&target.columns[index].field),
            })
            .collect::<Result<_>>()?;
        let places: Vec<(usize, &DuckType)> = types.iter().enumerate().collect();
        let table = qualified(catalog, target.table());
        let matching = match target.operation {
            Operation::Insert => None,
            _ => {
                let keys: Vec<(usize, &DuckType)> =
                    target.key.iter().map(|&index| (index, &types[index])).collect();
                Some(matching(target, &table, &types, &relation(batch, &keys)))
            }
        };
        let asked = relation(batch, &places);
        let write = write(target, (catalog, &table), &types, &cast_relation(batch, &places, "CAST"))?;
        Ok(Plan {
            target: Arc::clone(target),
            types,
            write,
            matching,
            catalog: Arc::clone(catalog),
            table,
            batch: batch.to_owned(),
            relation: asked,
            moves_unique: moves_unique(target),
            skips_checks: false,
        })
    }

    /// A step's rows as the statements read them: in the columns' types, under the names `c0`, `c1`, …; with the keys that were drawn.
    ///
    /// # Errors
    /// `InvalidValue` for a row that doesn't fit.
    pub(crate) fn fit(&self, batch: &RecordBatch, keys: Option<&Int64Array>) -> Result<RecordBatch> {
        let columns = self.fit_columns(batch, keys, 0..self.types.len())?;
        let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
    }

    fn fit_columns(
        &self,
        batch: &RecordBatch,
        keys: Option<&Int64Array>,
        places: impl Iterator<Item = usize>,
    ) -> Result<Vec<(Field, ArrayRef)>> {
        let generated = self.target.generated();
        let columns = places.map(|index| {
            let field = self.types[index].field(&format!("c{index}"));
            let given = batch.column(index);
            let array = match keys.filter(|_| generated == Some(index)) {
                Some(keys) => cast(keys, field.data_type())?,
                None => self.fit_column(index, given, &field)?,
            };
            Ok((field, array))
        });
        columns.collect()
    }

    fn fit_column(&self, index: usize, given: &ArrayRef, field: &Field) -> Result<ArrayRef> {
        let column = &self.target.columns[index];
        let named =
            |error: Error| error.with_table(self.target.table().to_string()).with_column(column.name());
        let converted = convert(given, &column.field, field).map_err(named)?;
        match converted.misfits.into_iter().next() {
            None => Ok(converted.array),
            Some((row, message)) => {
                Err(named(Error::new(ErrorKind::InvalidValue, message).with_row(row as u64)))
            }
        }
    }

    /// Fitted rows with their ordinals.
    pub(crate) fn with_ordinals(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let fields = rows.schema_ref().fields().iter().map(|field| (**field).clone());
        with_ordinals(fields.zip(rows.columns().iter().cloned()).collect(), rows.num_rows())
    }

    /// The keys of fitted rows with their ordinals.
    pub(crate) fn keys_with_ordinals(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        self.with_ordinals(&rows.project(&self.target.key)?)
    }

    /// What becomes of a row, by whether its key was there.
    pub(crate) fn outcome(&self, matched: bool) -> Outcome {
        match (self.target.operation, matched) {
            (Operation::Update | Operation::Delete, false) => Outcome::NotFound,
            (Operation::Insert, _) | (_, false) => Outcome::Inserted,
            (Operation::InsertIfAbsent, true) => Outcome::Unchanged,
            (Operation::Upsert, true) if self.target.assigned().next().is_none() => Outcome::Unchanged,
            (Operation::Upsert | Operation::Update, true) => Outcome::Updated,
            (Operation::Delete, true) => Outcome::Deleted,
        }
    }

    pub(crate) fn name(&self, index: usize) -> String {
        quote(self.target.columns[index].name())
    }

    /// That the row of `b` has the key of the row of `t`.
    pub(crate) fn key_equal(&self, t: &str, b: &str) -> String {
        key_equal(&self.target, &self.types, t, b)
    }
}

fn moves_unique(target: &Target) -> bool {
    if !matches!(target.operation, Operation::Update | Operation::Upsert) {
        return false;
    }
    let assigned: Vec<&str> = target.assigned().map(|index| target.columns[index].name()).collect();
    target.description.unique.iter().any(|unique| {
        // An expression may look at any column.
        unique.columns.iter().any(Option::is_none) || assigned.iter().any(|name| unique.covers(name))
    })
}

/// The batch as a relation of columns in the columns' own types, so that they compare as those do, and whatever else it has. What is no value of
/// its type is NULL.
pub(crate) fn relation(batch: &str, columns: &[(usize, &DuckType)]) -> String {
    cast_relation(batch, columns, "TRY_CAST")
}

fn cast_relation(batch: &str, columns: &[(usize, &DuckType)], cast: &str) -> String {
    let casts: Vec<String> = columns
        .iter()
        .filter(|(_, own)| !own.is_handed_over())
        // NULL cast to a union would be a union that holds NULL.
        .map(|(index, own)| {
            format!("CASE WHEN c{index} IS NOT NULL THEN {cast}(c{index} AS {}) END AS c{index}", own.sql)
        })
        .collect();
    match casts.is_empty() {
        true => batch.to_owned(),
        false => format!("(SELECT * REPLACE ({}) FROM {batch})", casts.join(", ")),
    }
}

/// An expression as unique indexes compare it: text byte by byte, whatever the column's collation.
pub(crate) fn exact(expression: &str, own: &DuckType) -> String {
    if own.is_text() { format!("{expression} COLLATE \"C\"") } else { expression.to_owned() }
}

fn key_equal(target: &Target, types: &[DuckType], t: &str, b: &str) -> String {
    let equal = target.key.iter().map(|&index| {
        let column = format!("{t}.{}", quote(target.columns[index].name()));
        format!("{} = {b}.c{index}", exact(&column, &types[index]))
    });
    equal.collect::<Vec<_>>().join(" AND ")
}

fn matching(target: &Target, table: &str, types: &[DuckType], keys: &str) -> String {
    let equal = key_equal(target, types, "t", "b");
    format!("SELECT b._ordinal FROM {keys} AS b SEMI JOIN {table} AS t ON {equal}")
}

/// How a target's rows are written to its table, which is named in a database and as a whole.
fn write(
    target: &Target,
    (catalog, table): (&str, &str),
    types: &[DuckType],
    relation: &str,
) -> Result<Write> {
    let equal = || key_equal(target, types, "t", "b");
    let name = |index: usize| quote(target.columns[index].name());
    let list = |indexes: &mut dyn Iterator<Item = usize>, text: &dyn Fn(usize) -> String| {
        indexes.map(text).collect::<Vec<_>>().join(", ")
    };
    Ok(match target.operation {
        Operation::Insert if types.iter().all(DuckType::is_handed_over) => {
            let invalid = |failure: Failure| Error::new(ErrorKind::InvalidConfig, failure.0);
            let columns = target.columns.iter().map(|column| c_string(column.name()));
            let columns = columns.collect::<Result<_, _>>().map_err(invalid)?;
            let schema = target.table().schema().unwrap_or(MAIN);
            Write::Append(Place::new(catalog, schema, target.table().name()).map_err(invalid)?, columns)
        }
        Operation::Insert | Operation::InsertIfAbsent | Operation::Upsert => {
            let columns = list(&mut (0..types.len()), &name);
            let cells = list(&mut (0..types.len()), &|index| format!("c{index}"));
            let conflict = on_conflict(target);
            Write::Statement(format!(
                "INSERT INTO {table} ({columns}) SELECT {cells} FROM {relation}{conflict}"
            ))
        }
        Operation::Update => {
            let assigned = list(&mut target.assigned(), &|index| format!("{} = b.c{index}", name(index)));
            Write::Statement(format!(
                "UPDATE {table} AS t SET {assigned} FROM {relation} AS b WHERE {}",
                equal()
            ))
        }
        Operation::Delete => {
            Write::Statement(format!("DELETE FROM {table} AS t USING {relation} AS b WHERE {}", equal()))
        }
    })
}

/// What becomes of a row whose key is there; nothing for a plain insert.
fn on_conflict(target: &Target) -> String {
    let name = |index: usize| quote(target.columns[index].name());
    let assigned: Vec<String> =
        target.assigned().map(|index| format!("{0} = excluded.{0}", name(index))).collect();
    let action = match target.operation {
        Operation::Upsert if !assigned.is_empty() => format!("DO UPDATE SET {}", assigned.join(", ")),
        Operation::Upsert | Operation::InsertIfAbsent => "DO NOTHING".to_owned(),
        _ => return String::new(),
    };
    let key: Vec<String> = target.key.iter().map(|&index| name(index)).collect();
    format!(" ON CONFLICT ({}) {action}", key.join(", "))
}
