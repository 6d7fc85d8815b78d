//! Which rows of a batch the database will refuse, found by asking before they are written.
//!
//! A statement that fails costs DuckDB the transaction and tells of one row. So the rows are held against the table's constraints by one
//! query, over their *image*: the rows as they would be in the table. A finding is certain of a row alone, in the state that
//! the transaction has reached; where a row meets an earlier one of the same batch, that one must be written first to know.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions, array_value_to_string};
use barge_core::store::Operation;
use barge_core::{Error, ErrorKind, Result};

use crate::connection::Connection;
use crate::constraints::{Constraint, Rule};
use crate::convert::shortened;
use crate::image;
use crate::plan::Plan;

/// What was found of a row.
#[derive(Debug)]
pub(crate) enum Finding {
    /// It fails.
    Fails(Error),
    /// Whether it fails depends on an earlier row of the batch.
    Depends,
}

/// The codes by which the queries of `image` say what they found.
pub(crate) const FAILS: i64 = 0;
pub(crate) const DEPENDS: i64 = 1;
pub(crate) const CANNOT: i64 = 2;
/// The constraint's own expression fails over the row.
pub(crate) const RAISES: i64 = 3;
/// A value is none of its column's type; the constraint's number is the column's place.
pub(crate) const MALFORMED: i64 = 4;

impl Connection {
    /// What is found of fitted rows, by row, in order. The transaction must be open and sound; it stays so unless this fails.
    pub(crate) fn findings(&mut self, plan: &Plan, rows: &RecordBatch) -> Result<Vec<(usize, Finding)>> {
        let constraints = match self.constraints(&plan.target) {
            Ok(constraints) => constraints,
            Err(error) => {
                self.roll_back();
                return Err(error);
            }
        };
        let mut found: Vec<Option<Finding>> = (0..rows.num_rows()).map(|_| None).collect();
        if let Some(sql) = image::query(plan, &constraints) {
            match self.codes(&sql, plan, rows) {
                Ok(codes) => note(&mut found, codes, plan, &constraints, rows),
                // Some value makes a check itself fail, or a check can't be asked beside its table: it will be found by trying.
                Err(error) if is_about_values(&error) => self.restore()?,
                Err(error) => {
                    self.roll_back();
                    return Err(error);
                }
            }
        }
        // What the transaction removed is still in DuckDB's indexes, as another connection sees it.
        if self.journal.as_ref().is_some_and(|journal| !journal.is_clean())
            && let Some(sql) =
                image::committed_references(plan, &constraints, self.aside()?.handle.batch_relation())
        {
            let codes = self.aside()?.codes(&sql, plan, rows)?;
            note(&mut found, codes, plan, &constraints, rows);
        }
        Ok(found.into_iter().enumerate().filter_map(|(row, finding)| Some((row, finding?))).collect())
    }

    /// Runs a query that gives row, constraint and code.
    fn codes(&mut self, sql: &str, plan: &Plan, rows: &RecordBatch) -> Result<Vec<[i64; 3]>> {
        let batch = self.bind(plan.with_ordinals(rows)?)?;
        let mut codes = Vec::new();
        for part in self.read(sql, Some(&batch))? {
            let columns: Vec<_> = part
                .columns()
                .iter()
                .map(|column| cast(column, &DataType::Int64))
                .collect::<Result<_, _>>()?;
            let value = |column: usize, row| columns[column].as_primitive::<Int64Type>().value(row);
            codes.extend((0..part.num_rows()).map(|row| [value(0, row), value(1, row), value(2, row)]));
        }
        // Of what is said of a row and a constraint, that it can't be outweighs that it fails.
        codes.sort_unstable_by_key(|&[row, constraint, code]| (row, constraint, Reverse(code)));
        Ok(codes)
    }
}

/// The first row that fails for certain.
pub(crate) fn first_failure(findings: Vec<(usize, Finding)>) -> Option<Error> {
    findings.into_iter().find_map(|(_, finding)| match finding {
        Finding::Fails(error) => Some(error),
        Finding::Depends => None,
    })
}

fn is_about_values(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::Statement | ErrorKind::MissingColumn)
        && !error.is_retryable()
        && error.code() != Some("INTERRUPT Error")
}

/// Takes what a query found. A row's first constraint counts; where an earlier row comes into it, nothing is certain, unless rows are only inserted:
/// then an earlier one takes no reason away that the same constraint has.
fn note(
    found: &mut [Option<Finding>],
    codes: Vec<[i64; 3]>,
    plan: &Plan,
    constraints: &[Arc<Constraint>],
    rows: &RecordBatch,
) {
    // By which constraint a row waits for an earlier one.
    let mut waits = HashMap::new();
    for [row, constraint, code] in codes {
        let Some((row, place)) = usize::try_from(row).ok().and_then(|row| Some((row, found.get_mut(row)?)))
        else {
            continue;
        };
        let inserts = plan.target.operation == Operation::Insert;
        if code == DEPENDS {
            if !(inserts && place.is_some()) {
                *place = Some(Finding::Depends);
                waits.insert(row, constraint);
            }
            continue;
        }
        let fails_anyway = inserts && waits.get(&row) == Some(&constraint);
        let Ok(index) = usize::try_from(constraint) else { continue };
        let error = match (code, constraints.get(index)) {
            _ if matches!(place, Some(Finding::Fails(_))) || (place.is_some() && !fails_anyway) => continue,
            (MALFORMED, _) => malformed(plan, index, rows, row),
            (_, Some(constraint)) => constraint_error(plan, constraint, rows, row, code),
            (_, None) => continue,
        };
        *place = Some(Finding::Fails(error));
    }
}

/// What is wrong with a value that its column's type doesn't take.
fn malformed(plan: &Plan, column: usize, rows: &RecordBatch, row: usize) -> Error {
    let value = array_value_to_string(rows.column(column), row).unwrap_or_default();
    let message = format!("{} is no value of type {}", shortened(&value), plan.types[column].sql);
    let error = Error::new(ErrorKind::InvalidValue, message).with_table(plan.target.table().to_string());
    error.with_column(plan.target.columns[column].name()).with_row(row as u64)
}

/// What is wrong with a row, in words.
fn constraint_error(
    plan: &Plan,
    constraint: &Constraint,
    rows: &RecordBatch,
    row: usize,
    code: i64,
) -> Error {
    let columns = constraint.columns.join(", ");
    let shown =
        shown(plan, &constraint.columns, rows, row).map(|shown| format!(" {shown}")).unwrap_or_default();
    let (kind, message) = match (&constraint.rule, code) {
        (Rule::Check(expression), RAISES) => {
            (ErrorKind::InvalidValue, format!("the check {expression} can't be computed of the row"))
        }
        (Rule::UniqueExpressions(expressions), RAISES) => {
            (ErrorKind::InvalidValue, format!("{} can't be computed of the row", expressions.join(", ")))
        }
        (Rule::UniqueExpressions(expressions), _) => (
            ErrorKind::UniqueViolation,
            format!("a row with the same {} is there already", expressions.join(", ")),
        ),
        (Rule::Check(expression), _) => {
            (ErrorKind::CheckViolation, format!("the check {expression} is not met"))
        }
        (Rule::Unique, _) => {
            (ErrorKind::UniqueViolation, format!("a row with {columns}{shown} is there already"))
        }
        (Rule::Parent { table, columns, .. }, FAILS) => {
            (ErrorKind::ForeignKeyViolation, format!("{table} has no row with {}{shown}", columns.join(", ")))
        }
        (Rule::Parent { .. }, _) => {
            (ErrorKind::Unsupported, "DuckDB takes no row that is its own parent".to_owned())
        }
        (Rule::Child { table, .. }, FAILS) => {
            (ErrorKind::ForeignKeyViolation, format!("rows of {table} still name the row"))
        }
        (Rule::Child { table, .. }, _) if plan.target.operation == Operation::Delete => (
            ErrorKind::Unsupported,
            format!(
                "rows of {table} that named the row were removed in the same transaction: DuckDB removes it only in a later one"
            ),
        ),
        (Rule::Child { table, .. }, _) => (
            ErrorKind::Unsupported,
            format!(
                "rows of {table} name the row, and DuckDB can't change its indexed columns and lists then, whatever their values"
            ),
        ),
    };
    let error = Error::new(kind, message).with_table(plan.target.table().to_string()).with_row(row as u64);
    let error = match constraint.rule {
        Rule::Child { .. } => error,
        _ => error.with_column(columns),
    };
    match &constraint.name {
        Some(name) => error.with_constraint(name),
        None => error,
    }
}

/// A row's values in some columns, where the batch has them.
fn shown(plan: &Plan, columns: &[String], rows: &RecordBatch, row: usize) -> Option<String> {
    let options = FormatOptions::default().with_null("NULL");
    let values = columns.iter().map(|name| {
        let place = plan.target.columns.iter().position(|column| column.name().eq_ignore_ascii_case(name))?;
        let formatter = ArrayFormatter::try_new(rows.column(place), &options).ok()?;
        Some(shortened(&formatter.value(row).try_to_string().ok()?))
    });
    Some(values.collect::<Option<Vec<_>>>()?.join(", "))
}
