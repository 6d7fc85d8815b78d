//! How a target's steps are run: its statements, prepared once a connection.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use barge_core::store::{Operation, Outcome, Step, TableKind, Target};
use barge_core::{Error, ErrorKind, Result};

use crate::affinity::Affinity;
use crate::batch::{BoundBatch, Cells};
use crate::connection::Connection;
use crate::describe::creation_sql;
use crate::statement::{Statement, column_metadata};
use crate::statements;

/// Plans kept: one a target. When there are more, all are made anew.
const PLANS_MAX: usize = 256;

/// The plans of a connection, by the address of their target. A plan holds its target, so that no other takes the address.
#[derive(Default)]
pub(crate) struct Plans(HashMap<*const Target, Rc<Plan>>);

/// How a target's steps are run on a connection: its prepared statements and what decides their shape.
pub(crate) struct Plan {
    pub(crate) target: Arc<Target>,
    affinities: Vec<Affinity>,
    /// Writes a batch. `None` for updates, which go row by row.
    pub(crate) write: Option<Statement>,
    /// Inserts a batch without its keys, so that SQLite draws them.
    pub(crate) append: Option<Statement>,
    /// The place of the column that is the row id.
    pub(crate) identity: Option<usize>,
    /// Finds the rows of a batch whose keys are there. `None` for inserts.
    pub(crate) matching: Option<Statement>,
    rows: OnceCell<RowStatements>,
    or_abort: bool,
    /// Whether a failing statement may leave changes behind (`RAISE(FAIL)` in a trigger), so that it needs a savepoint.
    pub(crate) needs_savepoint: bool,
    pub(crate) has_triggers: bool,
    pub(crate) is_view: bool,
    /// The key, where rows may be written in its order.
    sorts_by: Option<usize>,
    /// Whether keys never repeat, so that the next is not only above those in the table.
    pub(crate) autoincrement: bool,
}

/// The statements for one row, prepared when first needed.
pub(crate) struct RowStatements {
    pub(crate) write: Statement,
    /// The places of the columns that `write` binds.
    pub(crate) places: Vec<usize>,
    /// Finds whether the row's key is there, where the number of changes doesn't tell.
    pub(crate) matching: Option<Statement>,
}

impl Connection {
    /// The plan of a target.
    pub(crate) fn plan(&mut self, target: &Arc<Target>) -> Result<Rc<Plan>> {
        if let Some(plan) = self.plans.0.get(&Arc::as_ptr(target)) {
            return Ok(Rc::clone(plan));
        }
        let plan = Rc::new(Plan::new(self, target)?);
        if self.plans.0.len() >= PLANS_MAX {
            self.plans.0.clear();
        }
        self.plans.0.insert(Arc::as_ptr(target), Rc::clone(&plan));
        Ok(plan)
    }
}

impl Plan {
    fn new(connection: &mut Connection, target: &Arc<Target>) -> Result<Self> {
        let description = &target.description;
        let named = |error: Error| error.with_table(target.table().to_string());
        let generated = target.generated().map(|index| &target.columns[index]);
        if let Some(column) = generated
            && !description.column(column.name()).is_some_and(|described| described.identity)
        {
            let message = "only an INTEGER PRIMARY KEY draws keys on SQLite, and this column is none";
            return Err(named(Error::new(ErrorKind::Unsupported, message).with_column(column.name())));
        }
        let has_triggers = !description.triggers.is_empty();
        // OR ABORT would also overrule the conflict clauses inside the table's triggers, such as INSERT OR IGNORE. So with triggers it is
        // said only where the table has a conflict clause of its own, however it is spaced.
        let or_abort = !has_triggers || {
            let sql = creation_sql(&connection.inner, target.table()).unwrap_or_default();
            sql.to_ascii_uppercase().contains("CONFLICT")
        };
        let rowid =
            if target.operation == Operation::Delete { connection.rowid_name(description) } else { None };
        let batch = connection.batch_table(target.columns.len())?;
        let write = statements::write(target, &batch, or_abort, rowid);
        let write = write.map(|sql| connection.prepare(&sql)).transpose().map_err(named)?;
        let matching = match target.operation {
            Operation::Insert | Operation::Update => None,
            _ => Some(connection.prepare(&statements::matching(target, &batch)).map_err(named)?),
        };
        let identity = (0..target.columns.len())
            .find(|place| target.described(*place).is_some_and(|described| described.identity));
        // A trigger would see that the row came without its key.
        let append = match identity {
            Some(place)
                if !has_triggers && target.operation == Operation::Insert && target.columns.len() > 1 =>
            {
                Some(connection.prepare(&statements::append(target, place, &batch)).map_err(named)?)
            }
            _ => None,
        };
        let autoincrement = identity.is_some_and(|place| {
            let column = &target.columns[place];
            let table = target.table();
            // SAFETY: the connection is open.
            let metadata = unsafe {
                column_metadata(
                    connection.raw(),
                    table.schema().unwrap_or("main"),
                    table.name(),
                    column.name(),
                )
            };
            metadata.is_some_and(|metadata| metadata.autoincrement)
        });
        let cascades = description.referenced_by.iter().any(|reference| {
            reference.on_delete != barge_core::store::Action::Refuse
                || reference.on_update != barge_core::store::Action::Refuse
        });
        Ok(Plan {
            affinities: affinities(target),
            write,
            append,
            identity,
            matching,
            rows: OnceCell::new(),
            or_abort,
            needs_savepoint: has_triggers
                || (cascades && matches!(target.operation, Operation::Delete | Operation::Update)),
            has_triggers,
            is_view: description.kind == TableKind::View,
            sorts_by: sorts_by(target),
            autoincrement,
            target: Arc::clone(target),
        })
    }

    /// The statements for one row.
    pub(crate) fn row_statements(&self, connection: &Connection) -> Result<&RowStatements> {
        if let Some(rows) = self.rows.get() {
            return Ok(rows);
        }
        let named = |error: Error| error.with_table(self.target.table().to_string());
        let (write, places) = statements::write_row(&self.target, self.or_abort);
        let write = connection.prepare(&write).map_err(named)?;
        let matching = match self.matches_rows() {
            true => Some(connection.prepare(&statements::match_row(&self.target)).map_err(named)?),
            false => None,
        };
        Ok(self.rows.get_or_init(|| RowStatements { write, places, matching }))
    }

    /// The batch as the plan's statements read it where they write it whole: in the order of its keys, where that can't show.
    pub(crate) fn bind_whole(
        &self,
        batch: &RecordBatch,
        keys: Option<&Int64Array>,
    ) -> Result<Rc<BoundBatch>> {
        let bound = self.bound(batch, keys)?;
        Ok(Rc::new(match self.sorts_by {
            Some(key) => bound.sorted_by(key),
            None => bound,
        }))
    }

    /// The batch as the plan's statements read it.
    pub(crate) fn bind(&self, batch: &RecordBatch) -> Result<Rc<BoundBatch>> {
        self.bound(batch, None).map(Rc::new)
    }

    /// The batch, with other keys where they were drawn.
    fn bound(&self, batch: &RecordBatch, keys: Option<&Int64Array>) -> Result<BoundBatch> {
        let key = keys.and_then(|keys| Some((self.target.generated()?, Arc::new(keys.clone()) as ArrayRef)));
        let fields = self.target.columns.iter().zip(batch.columns()).enumerate();
        let columns = fields.map(|(index, (column, array))| {
            let array = match &key {
                Some((place, keys)) if *place == index => keys,
                _ => array,
            };
            Cells::new(&column.field, array, self.affinities[index])
                .map_err(|error| error.with_table(self.target.table().to_string()))
        });
        Ok(BoundBatch::new(columns.collect::<Result<Vec<_>>>()?, batch.num_rows()))
    }

    /// Whether a step that fails may leave changes behind: where a trigger does, or where it goes row by row.
    pub(crate) fn may_leave_changes(&self, step: &Step) -> bool {
        let one_by_one =
            self.write.is_none() || self.is_view || (step.outcomes && self.target.generated().is_some());
        self.needs_savepoint || (step.batch.num_rows() > 1 && one_by_one)
    }

    /// Whether row by row needs to know if the key was there before the row: where the number of changes doesn't tell.
    fn matches_rows(&self) -> bool {
        match self.target.operation {
            Operation::Insert | Operation::InsertIfAbsent => false,
            Operation::Upsert => true,
            Operation::Update | Operation::Delete => self.has_triggers || self.is_view,
        }
    }

    /// What became of a row that the statement reached.
    pub(crate) fn outcome(&self, matched: bool) -> Outcome {
        match (self.target.operation, matched) {
            (Operation::Insert, _) | (Operation::InsertIfAbsent | Operation::Upsert, false) => {
                Outcome::Inserted
            }
            (Operation::InsertIfAbsent, true) => Outcome::Unchanged,
            (Operation::Upsert, true) if self.target.assigned().next().is_none() => Outcome::Unchanged,
            (Operation::Upsert | Operation::Update, true) => Outcome::Updated,
            (Operation::Delete, true) => Outcome::Deleted,
            (Operation::Update | Operation::Delete, false) => Outcome::NotFound,
        }
    }
}

/// The affinities of a target's columns.
pub(crate) fn affinities(target: &Target) -> Vec<Affinity> {
    let declared = |index| target.described(index).map_or("", |described| &described.declared_type);
    (0..target.columns.len()).map(|index| Affinity::of(declared(index))).collect()
}

/// The key by which a step's rows may be sorted: one column of integers, and nothing but the key by which rows could get into
/// each other's way. Rows with keys far apart touch other pages each; in their order, at least the way there is shared.
fn sorts_by(target: &Target) -> Option<usize> {
    let &[key] = target.key.as_slice() else { return None };
    let description = &target.description;
    let is_key = |column: &Option<String>| {
        column.as_ref().is_some_and(|column| column.eq_ignore_ascii_case(target.columns[key].name()))
    };
    let only_key_is_unique = description.unique.iter().all(|unique| unique.columns.iter().all(is_key));
    let free = description.kind == TableKind::Table
        && description.triggers.is_empty()
        && target.generated().is_none()
        && only_key_is_unique
        && !description
            .foreign_keys
            .iter()
            .any(|foreign_key| foreign_key.parent.name().eq_ignore_ascii_case(target.table().name()));
    free.then_some(key)
}
