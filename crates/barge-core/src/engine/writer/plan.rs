//! In which order a flush's rows are sent.
//!
//! The reference is arrival order, row by row. Sending the rows grouped, one step a table and operation, is allowed only
//! where nobody could tell the difference if it succeeds; where it fails, it is rolled back and the rows are replayed in
//! arrival order. So this module need not foresee failures, only *wrong successes*:
//!
//! - Rows of one key keep their order: a second operation on a key waits for the next wave of the flush.
//! - A unique value that one row releases and another takes, outside the key: such tables are replayed where rows move. They
//!   move also where they wait for a parent of the same flush.
//! - Foreign keys: rows that break one are tried again after the rest in arrival order too, so parents before children
//!   changes nothing while every key is named once. Where keys repeat, or a parent's removal changes its children, the
//!   flush is replayed.
//! - Triggers may see any order: tables with triggers are replayed.
//!
//! Within a step a store takes one row after another, but may look at foreign keys only at its end. [`statement_shows`] says
//! where that could be seen: such rows go one by one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};

use super::keys::TableKeys;
use crate::record::Role;
use crate::store::{
    Action, Change, ChangedRows, ForeignKey, Operation, Outcome, Step, Store, TableKind, Target,
};
use crate::{Result, TableName};

/// Rows of one target, in arrival order.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) target: Arc<Target>,
    pub(crate) batch: RecordBatch,
    pub(crate) arrivals: Vec<u32>,
}

impl Part {
    /// What observers of a commit are told of it. `outcomes` says whether they will be told the keys that are drawn; where not, a store that may draw
    /// the key of a row that was removed may have changed what is under any.
    pub(crate) fn change(&self, store: &dyn Store, outcomes: bool) -> Change {
        let target = &*self.target;
        let rows = match target.operation {
            Operation::Insert => {
                let told = target.generated().is_some() && outcomes;
                let foreseen = told || !store.capabilities().reuses_keys || self.gives_the_key();
                foreseen.then(|| self.unique_values()).flatten().map(ChangedRows::Added)
            }
            _ => {
                let keys = self.batch.project(&target.key).ok().filter(|keys| keys.num_columns() > 0);
                keys.filter(is_given).map(ChangedRows::Keys)
            }
        };
        Change { table: Some(target.table().clone()), rows: rows.unwrap_or(ChangedRows::Any) }
    }

    /// Whether the rows have the whole of the table's key, whatever their record takes for it.
    fn gives_the_key(&self) -> bool {
        let key = &self.target.description.key;
        let place = |name: &String| self.place_of(name);
        let places: Option<Vec<usize>> = match key.is_empty() {
            // Nothing tells of a key but the record.
            true => Some(self.target.key.clone()),
            false => key.iter().map(place).collect(),
        };
        places
            .filter(|places| !places.is_empty())
            .and_then(|places| self.batch.project(&places).ok())
            .is_some_and(|keys| is_given(&keys))
    }

    /// The rows' values of the columns by which the table may know a row.
    fn unique_values(&self) -> Option<RecordBatch> {
        let description = &self.target.description;
        let unique = description.unique.iter().flat_map(|unique| unique.columns.iter().flatten());
        let named = description.key.iter().chain(unique).filter_map(|name| self.place_of(name));
        let mut places: Vec<usize> = named.chain(self.target.key.iter().copied()).collect();
        places.sort_unstable();
        places.dedup();
        self.batch.project(&places).ok()
    }

    fn place_of(&self, name: &str) -> Option<usize> {
        self.target.columns.iter().position(|column| column.name().eq_ignore_ascii_case(name))
    }
}

fn is_given(keys: &RecordBatch) -> bool {
    keys.columns().iter().all(|column| column.null_count() == 0)
}

/// What observers of a commit are told of the keys that a step drew; `None` where it drew none, or the change names all it may concern.
pub(crate) fn drawn(step: &Step, keys: &Int64Array) -> Option<Change> {
    let target = &step.target;
    let place = target.generated().filter(|_| target.operation == Operation::Insert)?;
    if step.batch.column(place).null_count() == 0 {
        return None;
    }
    let keys: Int64Array = keys.iter().flatten().map(Some).collect();
    let name = target.columns[place].name().to_owned();
    let keys = RecordBatch::try_from_iter([(name, Arc::new(keys) as ArrayRef)]).ok()?;
    Some(Change { table: Some(target.table().clone()), rows: ChangedRows::Drawn(keys) })
}

/// A step of the grouped plan, and whose outcomes it gives.
#[derive(Debug)]
pub(crate) struct PlannedStep {
    pub(crate) step: Step,
    /// For each row of the step, the row it answers.
    pub(crate) arrivals: Vec<u32>,
    /// Rows that were coalesced into a row of the step: (row of the step, arrival number).
    pub(crate) followers: Vec<(u32, u32)>,
}

impl PlannedStep {
    /// The outcomes of the rows that were coalesced. The row each was coalesced into was there by the time it would
    /// have been written.
    pub(crate) fn followed<'a>(
        &'a self,
        outcomes: &'a [Outcome],
    ) -> impl Iterator<Item = (u32, Outcome)> + 'a {
        let target = &self.step.target;
        let assigns = target.assigned().next().is_some();
        self.followers.iter().map(move |&(row, arrival)| {
            let outcome = match target.operation {
                Operation::Upsert if assigns => Outcome::Updated,
                Operation::Upsert => Outcome::Unchanged,
                _ => outcomes[row as usize],
            };
            (arrival, outcome)
        })
    }

    /// Whether the number of rows that changed tells how many of the rows sent did nothing.
    pub(crate) fn counts_tell(&self) -> bool {
        let target = &self.step.target;
        let followers_change = target.operation == Operation::Upsert && target.assigned().next().is_some();
        counts_tell(target) && (self.followers.is_empty() || followers_change)
    }
}

/// Consecutive arrivals of one part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Run {
    pub(crate) part: usize,
    pub(crate) start: usize,
    pub(crate) rows: usize,
}

/// Parts whose rows can go in one step become one part.
pub(crate) fn merge(parts: Vec<Part>) -> Result<Vec<Part>> {
    let mut merged: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts {
        let same = |other: &&mut Part| {
            other.target.same_step(&part.target)
                && other.batch.schema_ref().fields() == part.batch.schema_ref().fields()
        };
        match merged.iter_mut().find(same) {
            None => merged.push(part),
            Some(other) => {
                let batch = concat_batches(other.batch.schema_ref(), [&other.batch, &part.batch])?;
                let arrivals: Vec<u32> = other.arrivals.iter().chain(&part.arrivals).copied().collect();
                let mut order: Vec<u32> = (0..arrivals.len() as u32).collect();
                order.sort_unstable_by_key(|&row| arrivals[row as usize]);
                other.arrivals = order.iter().map(|&row| arrivals[row as usize]).collect();
                other.batch = take_record_batch(&batch, &UInt32Array::from(order))?;
            }
        }
    }
    Ok(merged)
}

/// The steps that do what the rows would have done in arrival order, if they all succeed. `None` where grouping could
/// show, and the rows must go in arrival order at once.
pub(crate) fn group(parts: &[Part], tables: &[TableKeys]) -> Result<Option<Vec<PlannedStep>>> {
    if tables.iter().any(|keys| order_shows(parts, tables, keys)) {
        return Ok(None);
    }
    if let [part] = parts
        && !tables[0].repeats()
    {
        let step = Step { target: part.target.clone(), batch: part.batch.clone(), outcomes: false };
        return Ok(Some(vec![PlannedStep { step, arrivals: part.arrivals.clone(), followers: Vec::new() }]));
    }
    let mut slots = Vec::new();
    for keys in tables {
        slots.extend(waves(parts, keys));
    }
    let ranks: Vec<usize> = parts.iter().map(|part| rank(parts, part.target.table(), 0)).collect();
    slots.sort_by_key(|slot| {
        let delete = parts[slot.part].target.operation == Operation::Delete;
        let rank = ranks[slot.part] as isize;
        (slot.wave, delete, if delete { -rank } else { rank }, slot.arrivals[0])
    });
    slots.into_iter().map(|slot| slot.plan(parts)).collect::<Result<Vec<_>>>().map(Some)
}

/// Whether rows of the table may name the same key without our being able to tell.
fn is_ambiguous(parts: &[Part], keys: &TableKeys) -> bool {
    let keyed = keys.parts.iter().any(|&index| parts[index].target.operation.is_keyed());
    keys.ids.is_none() && (keyed || keys.parts.len() > 1)
}

/// Whether this table's rows, grouped, could succeed with another result than in arrival order.
fn order_shows(parts: &[Part], tables: &[TableKeys], keys: &TableKeys) -> bool {
    if parts.len() == 1 && keys.rows == 1 {
        return false;
    }
    let own: Vec<&Target> = keys.parts.iter().map(|&index| &*parts[index].target).collect();
    let description = &own[0].description;
    let in_order = parts.len() == 1 && !keys.repeats();
    let moved = own.len() > 1
        || keys.repeats()
        || description
            .foreign_keys
            .iter()
            .any(|key| tables.iter().any(|t| same_table(&key.parent, &t.table)));
    let releases = || {
        own.iter().any(|target| !matches!(target.operation, Operation::Insert | Operation::InsertIfAbsent))
    };
    let related = || {
        tables.iter().any(|other| {
            let is_parent = |child: &TableKeys, parent: &TableKeys| {
                let child = &parts[child.parts[0]].target.description;
                child.foreign_keys.iter().any(|foreign_key| same_table(&foreign_key.parent, &parent.table))
            };
            is_parent(keys, other) || is_parent(other, keys)
        })
    };
    is_ambiguous(parts, keys)
        || (moved && releases() && own.iter().any(|target| touches_secondary_unique(target)))
        || (keys.repeats() && related())
        || if in_order {
            reaches_other_rows(own[0])
        } else {
            !description.triggers.is_empty()
                || description.kind != TableKind::Table
                || own.iter().any(|target| changes_children(target))
        }
}

/// Whether a step of several rows could succeed with another result than its rows one by one: where it looks at foreign
/// keys at its end, and a row may be the parent of another.
pub(crate) fn statement_shows(target: &Target) -> bool {
    let own_parents = |key: &ForeignKey| same_table(&key.parent, target.table());
    target.description.foreign_keys.iter().any(own_parents) || reaches_other_rows(target)
}

/// Whether what a row of a step does beside itself, through foreign keys, may meet another row of the step. A trigger that brings the parent
/// of an earlier row shows nothing: alone, that row would be tried again after the rest, and pass.
fn reaches_other_rows(target: &Target) -> bool {
    let foreign_keys = &target.description.foreign_keys;
    let changed_by_parents =
        || foreign_keys.iter().any(|key| key.on_delete != Action::Refuse || key.on_update != Action::Refuse);
    changes_children(target) && (target.operation != Operation::Delete || changed_by_parents())
}

/// Whether rows of other tables may change with the target's, or find another parent in the place of theirs.
fn changes_children(target: &Target) -> bool {
    target.description.referenced_by.iter().any(|reference| match target.operation {
        Operation::Delete => reference.on_delete != Action::Refuse,
        Operation::Insert | Operation::InsertIfAbsent => false,
        Operation::Upsert | Operation::Update => {
            let assigned = |index: usize| covers(&reference.columns, target, index);
            target.assigned().any(assigned) || computes(target, reference.columns.iter())
        }
    })
}

/// Whether the number of rows that a step changed tells how many of its rows did nothing: where a row is one row of the table.
pub(crate) fn counts_tell(target: &Target) -> bool {
    let key: Vec<&str> = target.key.iter().map(|&index| target.columns[index].name()).collect();
    !matches!(target.operation, Operation::Update | Operation::Delete) || target.description.is_unique(&key)
}

fn covers(columns: &[String], target: &Target, index: usize) -> bool {
    columns.iter().any(|column| column.eq_ignore_ascii_case(target.columns[index].name()))
}

/// Whether the database computes one of the columns, so that it changes with others.
fn computes<'a>(target: &Target, mut columns: impl Iterator<Item = &'a String>) -> bool {
    columns.any(|name| target.description.column(name).is_some_and(|column| column.computed))
}

/// Whether the target may take or release a value of a unique index other than the key it goes by. An index over an expression, or
/// of some rows, may look at any column; a new row's columns that are left out hold their defaults.
fn touches_secondary_unique(target: &Target) -> bool {
    if target.operation == Operation::Delete {
        // What it releases shows only where another row takes it.
        return false;
    }
    let description = &target.description;
    let key: Vec<&str> = target.key.iter().map(|&index| target.columns[index].name()).collect();
    let has_default = |name: &String| description.column(name).is_some_and(|column| column.default.is_some());
    description.unique.iter().any(|unique| {
        let is_key = !unique.partial
            && unique.columns.len() == key.len()
            && key.iter().all(|column| unique.covers(column));
        let touched = || {
            unique.partial
                || unique.columns.iter().any(Option::is_none)
                || target.columns.iter().any(|column| unique.covers(column.name()))
                || computes(target, unique.columns.iter().flatten())
                || (target.operation != Operation::Update && unique.columns.iter().flatten().all(has_default))
        };
        !is_key && touched()
    })
}

pub(crate) fn same_table(a: &TableName, b: &TableName) -> bool {
    let schemas_agree = match (a.schema(), b.schema()) {
        (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
        _ => true,
    };
    schemas_agree && a.name().eq_ignore_ascii_case(b.name())
}

/// How many generations of parents a table has among the flush's tables.
fn rank(parts: &[Part], table: &TableName, depth: usize) -> usize {
    let part = parts.iter().find(|part| part.target.table() == table);
    let Some(part) = part.filter(|_| depth <= parts.len()) else { return 0 };
    let parents = part.target.description.foreign_keys.iter().map(|foreign_key| &foreign_key.parent);
    let parents = parents.filter(|parent| !same_table(parent, table));
    let parents =
        parents.filter_map(|parent| parts.iter().find(|part| same_table(part.target.table(), parent)));
    parents.map(|parent| rank(parts, parent.target.table(), depth + 1) + 1).max().unwrap_or(0)
}

/// The rows of one part that go in one wave.
struct Slot {
    part: usize,
    wave: usize,
    /// The part's rows that are sent.
    rows: Vec<u32>,
    /// The part's row that came first under the same key: its `created_at` counts, and how it spells the key.
    firsts: Vec<u32>,
    arrivals: Vec<u32>,
    followers: Vec<(u32, u32)>,
}

/// Spreads a table's rows over waves, so that each wave names a key once; coalesces where that can't show.
fn waves(parts: &[Part], keys: &TableKeys) -> Vec<Slot> {
    let mut slots: Vec<Slot> = Vec::new();
    let mut last: Vec<Option<(usize, u32)>> = vec![None; keys.distinct];
    for (arrival, place, row) in in_arrival_order(parts, &keys.parts) {
        let part = keys.parts[place];
        let id = keys.ids.as_ref().map(|ids| ids[place][row as usize] as usize);
        let before = id.and_then(|id| last[id]);
        if let Some((slot, position)) = before
            && slots[slot].part == part
            && coalesces(&parts[part].target)
        {
            slots[slot].rows[position as usize] = row;
            slots[slot].followers.push((position, arrival));
            continue;
        }
        let wave = before.map_or(0, |(slot, _)| slots[slot].wave + 1);
        let slot =
            slots.iter().position(|slot| slot.part == part && slot.wave == wave).unwrap_or_else(|| {
                slots.push(Slot {
                    part,
                    wave,
                    rows: Vec::new(),
                    firsts: Vec::new(),
                    arrivals: Vec::new(),
                    followers: Vec::new(),
                });
                slots.len() - 1
            });
        if let Some(id) = id {
            last[id] = Some((slot, slots[slot].rows.len() as u32));
        }
        slots[slot].rows.push(row);
        slots[slot].firsts.push(row);
        slots[slot].arrivals.push(arrival);
    }
    slots
}

/// Whether a second row of a key may take the first one's place. A column that a foreign key or a unique index looks at
/// must show each of its values.
fn coalesces(target: &Target) -> bool {
    let looked_at = || {
        touches_secondary_unique(target)
            || target.description.foreign_keys.iter().any(|foreign_key| {
                (0..target.columns.len()).any(|index| covers(&foreign_key.columns, target, index))
                    || computes(target, foreign_key.columns.iter())
            })
    };
    matches!(target.operation, Operation::Upsert | Operation::Update) && !looked_at()
}

impl Slot {
    fn plan(self, parts: &[Part]) -> Result<PlannedStep> {
        let part = &parts[self.part];
        let whole = self.rows.len() == part.batch.num_rows() && self.followers.is_empty();
        let batch = if whole { part.batch.clone() } else { self.take(part)? };
        let step = Step { target: part.target.clone(), batch, outcomes: false };
        Ok(PlannedStep { step, arrivals: self.arrivals, followers: self.followers })
    }

    fn take(&self, part: &Part) -> Result<RecordBatch> {
        let batch = take_record_batch(&part.batch, &UInt32Array::from(self.rows.clone()))?;
        if self.followers.is_empty() {
            return Ok(batch);
        }
        let firsts = UInt32Array::from(self.firsts.clone());
        let columns = part.target.columns.iter().enumerate().map(|(index, column)| match column.role {
            Role::CreatedAt | Role::Key | Role::GeneratedKey => {
                arrow::compute::take(part.batch.column(index), &firsts, None)
            }
            Role::Plain | Role::UpdatedAt => Ok(batch.column(index).clone()),
        });
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(RecordBatch::try_new(batch.schema(), columns)?)
    }
}

/// (arrival, place in `members`, row of the part) of every row, in arrival order.
fn in_arrival_order(parts: &[Part], members: &[usize]) -> Vec<(u32, usize, u32)> {
    let rows = members.iter().enumerate().flat_map(|(place, &part)| {
        parts[part].arrivals.iter().enumerate().map(move |(row, &arrival)| (arrival, place, row as u32))
    });
    let mut rows: Vec<_> = rows.collect();
    if members.len() > 1 {
        rows.sort_unstable();
    }
    rows
}

/// The parts' rows in arrival order, cut where the part changes.
pub(crate) fn runs(parts: &[Part]) -> Vec<Run> {
    let members: Vec<usize> = (0..parts.len()).collect();
    let mut runs: Vec<Run> = Vec::new();
    for (_, part, row) in in_arrival_order(parts, &members) {
        match runs.last_mut() {
            Some(run) if run.part == part => run.rows += 1,
            _ => runs.push(Run { part, start: row as usize, rows: 1 }),
        }
    }
    runs
}
