//! Why rows fail, found for many at once: by one statement for each constraint.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::util::display::array_value_to_string;
use barge_core::store::{ForeignKey, Operation, UniqueKey};
use barge_core::{Error, ErrorKind, Result, TableName, Transaction};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::{Search, key_rows};
use crate::apply::{is_plain, ordinals};
use crate::batch::Parameters;
use crate::connection::Connection;
use crate::error::error_of;
use crate::statements::{Plan, Rows};
use crate::transaction::PostgresTransaction;

/// A batch's keys are looked up by an index, one by one: the planner, which reckons with a disk, may read the whole table instead. Servers
/// that don't know the settings need none.
const BY_INDEX: &str = "SELECT CASE WHEN current_setting(name, true) IS NOT NULL THEN set_config(name, 'off', true) END \
    FROM unnest(ARRAY['enable_hashjoin', 'enable_mergejoin', 'enable_seqscan', 'enable_bitmapscan']) AS name";

impl<'a> Search<'a> {
    /// Which unique key each of these rows breaks, as far as that can be seen by looking for its values.
    pub(super) async fn broken_keys(
        &mut self,
        transaction: &mut PostgresTransaction,
        rows: &[u32],
    ) -> Result<BTreeMap<u32, Error>> {
        let mut broken = BTreeMap::new();
        if rows.is_empty() {
            return Ok(broken);
        }
        for unique in &self.step.target.description.unique {
            if unique.partial || self.finds_rows_by(unique) {
                continue;
            }
            let Some(places) = self.places_of(unique) else { continue };
            let found = match self.near(transaction, rows, &places).await? {
                Some(found) => found,
                None => {
                    let names: Vec<&str> = unique.columns.iter().flatten().map(String::as_str).collect();
                    let (plan, parameters) = self.narrowed(rows, &places)?;
                    let sql = plan.matching_on(&names, &all_of(&places));
                    self.pointed(transaction, &sql, &parameters).await?
                }
            };
            for place in found {
                let row = rows[place];
                broken.entry(row).or_insert_with(|| self.duplicate(row, unique, &places));
            }
        }
        Ok(broken)
    }

    fn duplicate(&self, row: u32, unique: &UniqueKey, places: &[usize]) -> Error {
        let names: Vec<&str> = unique.columns.iter().flatten().map(String::as_str).collect();
        let message = format!(
            "duplicate key value violates unique constraint \"{}\": Key ({})=({}) already exists",
            unique.name,
            names.join(", "),
            self.values(row, places)
        );
        let error = Error::new(ErrorKind::UniqueViolation, message)
            .with_code("23505")
            .with_constraint(unique.name.clone())
            .with_table(self.step.target.table().to_string())
            .with_row(row.into());
        if let [name] = names[..] { error.with_column(name) } else { error }
    }

    /// Looks for what made rows fail together over a unique key, `place` of them as COPY says: a key that they name again, which holds such rows
    /// back from now on, or keys that are in the table, which rejects rows.
    pub(super) async fn learn_keys(
        &mut self,
        transaction: &mut PostgresTransaction,
        rows: &[u32],
        place: Option<usize>,
    ) -> Result<()> {
        self.chunk = self.chunk_max;
        if self.there.is_none() && self.names_key_again(rows, place)? {
            return self.hold_back_repeats(transaction).await;
        }
        self.keys_known = true;
        // Those before the one that failed passed.
        let rows = self.unanswered(rows[place.unwrap_or(0)] as usize);
        let mut broken = self.broken_keys(transaction, &rows).await?;
        let primary = self.primary().map(|unique| unique.name.as_str());
        if self.tolerant.is_some() && broken.values().any(|error| error.constraint() != primary) {
            // A row that names a key again, too, would have failed over that first.
            self.hold_back_repeats(transaction).await?;
            let mut seen = HashSet::new();
            let again: HashSet<u32> = (0..self.answers.len() as u32)
                .filter(|&row| !matches!(self.answers[row as usize], Some(Err(_))))
                .filter(|&row| !seen.insert(self.number(row)))
                .collect();
            broken.retain(|row, _| !again.contains(row));
        }
        // A row that fails a CHECK, too, would have failed over that first: it is left to be sent.
        if self.can_find_failed_checks() {
            let lone: Vec<u32> = broken.keys().copied().collect();
            let failing = self.failed_checks(transaction, &lone).await?;
            broken.retain(|row, _| !failing.contains_key(row));
        }
        self.reject_pointed(transaction, broken).await?;
        Ok(())
    }

    /// From now on rows that name the key of one before them are sent no more, but judged when that one is written.
    async fn hold_back_repeats(&mut self, transaction: &mut PostgresTransaction) -> Result<()> {
        if self.there.is_none() {
            self.numbers = Some(self.numbers(transaction).await?);
            let written = (0..self.answers.len()).filter(|&row| matches!(self.answers[row], Some(Ok(_))));
            self.there = Some(written.map(|row| self.number(row as u32)).collect());
        }
        Ok(())
    }

    /// Whether the row that failed names the key of one before it; where it isn't known which failed, whether that may be.
    fn names_key_again(&self, rows: &[u32], place: Option<usize>) -> Result<bool> {
        let (Some(key), Some(place)) = (&self.tolerant, place) else { return Ok(self.tolerant.is_some()) };
        let columns = key.iter().map(|&index| self.prepared.batch.columns[index].0.clone()).collect();
        let keys = key_rows(columns)?;
        let row = rows[place] as usize;
        Ok((0..row).any(|other| keys.row(other) == keys.row(row)))
    }

    /// Rejects rows that name the key of one that was written.
    pub(super) async fn reject_repeats(
        &mut self,
        transaction: &mut PostgresTransaction,
        rows: &[u32],
    ) -> Result<()> {
        let places = self.primary().and_then(|unique| Some((unique, self.places_of(unique)?)));
        let repeats = places
            .iter()
            .flat_map(|(unique, places)| rows.iter().map(|&row| (row, self.duplicate(row, unique, places))));
        self.reject_pointed(transaction, repeats.collect()).await?;
        let left: Vec<u32> =
            rows.iter().copied().filter(|&row| self.answers[row as usize].is_none()).collect();
        self.one_by_one(transaction, &left).await
    }

    /// Rejects the rows from one on whose parents are missing, or sees to it that they are sent alone. Whether there were any.
    pub(super) async fn find_orphans(
        &mut self,
        transaction: &mut PostgresTransaction,
        from: usize,
    ) -> Result<bool> {
        self.orphans_known = true;
        if self.prepared.plan.target.operation == Operation::Delete {
            return Ok(false);
        }
        let rows = self.unanswered(from);
        let description = &self.step.target.description;
        let mut orphans = BTreeMap::new();
        for foreign_key in &description.foreign_keys {
            let places: Option<Vec<usize>> =
                foreign_key.columns.iter().map(|column| self.place_of(column)).collect();
            let Some(places) = places else { continue };
            let (sql, parameters) = match self.parent_places(foreign_key) {
                Some(parents) => {
                    let both = [places.as_slice(), &parents].concat();
                    let (plan, parameters) = self.narrowed(&rows, &both)?;
                    (plan.orphans_among_themselves(foreign_key), parameters)
                }
                None => {
                    let (plan, parameters) = self.narrowed(&rows, &places)?;
                    (plan.orphans(foreign_key), parameters)
                }
            };
            for place in self.pointed(transaction, &sql, &parameters).await? {
                let row = rows[place];
                orphans.entry(row).or_insert_with(|| self.orphan(row, foreign_key, &places));
            }
        }
        if self.prepared.plan.target.operation != Operation::Insert {
            // Of those, a row that is not there, or is there already, may have nothing to write.
            self.suspects.extend(orphans.keys());
            return Ok(!orphans.is_empty());
        }
        // A row that breaks a unique key or fails a CHECK, too, would have failed over that first: it is left to be sent.
        let lone: Vec<u32> = orphans.keys().copied().collect();
        let broken = self.broken_keys(transaction, &lone).await?;
        orphans.retain(|row, _| !broken.contains_key(row));
        if self.can_find_failed_checks() {
            let lone: Vec<u32> = orphans.keys().copied().collect();
            let failing = self.failed_checks(transaction, &lone).await?;
            orphans.retain(|row, _| !failing.contains_key(row));
        }
        self.reject_pointed(transaction, orphans).await
    }

    /// Where a foreign key points at the table itself: the places of the columns it points at.
    fn parent_places(&self, foreign_key: &ForeignKey) -> Option<Vec<usize>> {
        let own = foreign_key.parent == *self.step.target.table();
        let places = foreign_key.parent_columns.iter().map(|column| self.place_of(column));
        if own { places.collect() } else { None }
    }

    /// Whether the values of the batch are all that a CHECK looks at, so that it can be evaluated over the batch alone.
    pub(super) fn can_find_failed_checks(&self) -> bool {
        let inserts = matches!(
            self.step.target.operation,
            Operation::Insert | Operation::InsertIfAbsent | Operation::Upsert
        );
        !self.checks_known && inserts && is_plain(&self.step.target)
    }

    /// Rejects the rows from one on which fail a CHECK. Before it a row is held only against NOT NULL, which was looked at before sending.
    pub(super) async fn find_failed_checks(
        &mut self,
        transaction: &mut PostgresTransaction,
        from: usize,
    ) -> Result<()> {
        self.checks_known = true;
        let failing = self.failed_checks(transaction, &self.unanswered(from)).await?;
        self.reject_pointed(transaction, failing).await?;
        Ok(())
    }

    /// Which CHECK each of these rows fails.
    async fn failed_checks(
        &mut self,
        transaction: &mut PostgresTransaction,
        rows: &[u32],
    ) -> Result<BTreeMap<u32, Error>> {
        let mut failing = BTreeMap::new();
        if rows.is_empty() {
            return Ok(failing);
        }
        for check in self.checks(transaction).await?.iter() {
            let Some(places) = self.foreseen(check) else { continue };
            let names: Vec<&str> = check.columns.iter().map(String::as_str).collect();
            let (plan, parameters) = self.narrowed(rows, &places)?;
            let sql = plan.failing(&names, &check.expression);
            for place in self.pointed(transaction, &sql, &parameters).await? {
                let row = rows[place];
                failing.entry(row).or_insert_with(|| self.failed_check(row, check));
            }
        }
        Ok(failing)
    }

    /// The table's CHECKs, asked for once.
    async fn checks(&mut self, transaction: &mut PostgresTransaction) -> Result<Arc<[Check]>> {
        if let Some(checks) = &self.checks {
            return Ok(Arc::clone(checks));
        }
        let table = self.step.target.table();
        let asking = async |connection: &Connection| checks_of(connection, table).await;
        let checks = self.asked(transaction, asking).await?.unwrap_or_default();
        Ok(Arc::clone(self.checks.insert(checks.into())))
    }

    /// The places of the columns that a CHECK looks at, if the batch has the values of them all: a key that is to be drawn it has not.
    fn foreseen(&self, check: &Check) -> Option<Vec<usize>> {
        let drawn = self.step.target.generated();
        let place_of = |column: &String| self.place_of(column).filter(|&place| Some(place) != drawn);
        let places = check.columns.iter().map(place_of).collect::<Option<Vec<usize>>>();
        places.filter(|places| !places.is_empty())
    }

    fn failed_check(&self, row: u32, check: &Check) -> Error {
        let table = self.step.target.table();
        let message = format!(
            "new row for relation \"{}\" violates check constraint \"{}\": {}",
            table.name(),
            check.name,
            check.expression
        );
        Error::new(ErrorKind::CheckViolation, message)
            .with_code("23514")
            .with_constraint(check.name.clone())
            .with_table(table.to_string())
            .with_row(row.into())
    }

    /// What a statement over some columns of some rows is made of.
    fn narrowed(&self, rows: &[u32], places: &[usize]) -> Result<(Plan<'a>, Parameters)> {
        let batch = self.prepared.batch.narrow(places).select(rows)?;
        Ok((self.prepared.plan.narrow(places), batch.parameters()))
    }

    /// The places of the rows that a statement points at; none where it can't be run.
    async fn pointed(
        &mut self,
        transaction: &mut PostgresTransaction,
        sql: &str,
        parameters: &Parameters,
    ) -> Result<Vec<usize>> {
        let asking = async |connection: &Connection| connection.query(sql, &parameters.bind()).await;
        match self.asked(transaction, asking).await? {
            Some(found) => ordinals(&found),
            None => Ok(Vec::new()),
        }
    }

    /// What a statement gives. `None` where it can't be run: the user may lack a privilege that inserting doesn't need, or a value makes
    /// an expression fail.
    pub(super) async fn asked<T>(
        &mut self,
        transaction: &mut PostgresTransaction,
        asking: impl AsyncFnOnce(&Connection) -> Result<T>,
    ) -> Result<Option<T>> {
        self.statements += 1;
        transaction.mark("barge_cause");
        transaction.connection().send(BY_INDEX);
        match asking(transaction.connection()).await {
            Ok(found) => {
                // Takes the settings back, too.
                transaction.connection().send("ROLLBACK TO barge_cause; RELEASE barge_cause");
                Ok(Some(found))
            }
            Err(error) => match transaction.settle::<()>("barge_cause", Err(error)).await {
                Err(error) if error.is_retryable() || !transaction.is_open() => Err(error),
                _ => Ok(None),
            },
        }
    }

    /// Rejects rows that were pointed at, if the first of each constraint fails so when it is sent alone: else what pointed at them sees other
    /// rows or compares otherwise than the constraint does. Where a trigger may see to it that they don't fail, each is sent alone in its turn.
    /// Whether any are settled one way or the other.
    async fn reject_pointed(
        &mut self,
        transaction: &mut PostgresTransaction,
        pointed: BTreeMap<u32, Error>,
    ) -> Result<bool> {
        // A CHECK that needs more than the batch comes before all other reasons.
        let foreseen = match pointed.is_empty() {
            true => true,
            false => self.checks(transaction).await?.iter().all(|check| self.foreseen(check).is_some()),
        };
        if !foreseen || !is_plain(&self.step.target) {
            self.suspects.extend(pointed.keys());
            return Ok(!pointed.is_empty());
        }
        let mut settled = false;
        let mut constraints: BTreeMap<Option<String>, Vec<(u32, Error)>> = BTreeMap::new();
        for (row, error) in pointed {
            constraints.entry(error.constraint().map(str::to_owned)).or_default().push((row, error));
        }
        for (constraint, pointed) in constraints {
            let (first, error) = &pointed[0];
            let Some(failed) = self.try_alone(transaction, *first).await? else { continue };
            if failed.kind() == error.kind() && failed.constraint() == constraint.as_deref() {
                settled = true;
                pointed.into_iter().for_each(|(row, error)| self.answer(row, Err(error)));
            }
        }
        Ok(settled)
    }

    /// What a row fails with when it is sent alone. It leaves nothing: its turn has not come.
    async fn try_alone(&mut self, transaction: &mut PostgresTransaction, row: u32) -> Result<Option<Error>> {
        let part = self.prepared.of_rows(&[row])?;
        self.statements += 1;
        transaction.mark("barge_cause");
        let sent = part.run(transaction.connection(), Rows::Sorted).await;
        let failed = sent.as_ref().err().cloned();
        let undone = sent.and(Err::<(), Error>(Error::new(ErrorKind::CheckViolation, "only tried")));
        transaction.settle("barge_cause", undone).await.or_else(|error| match transaction.is_open() {
            true => Ok(()),
            false => Err(error),
        })?;
        Ok(failed)
    }

    /// The rows from one on that have no answer, as many as are sent together.
    fn unanswered(&self, from: usize) -> Vec<u32> {
        let rows = (from..self.answers.len()).filter(|&row| self.answers[row].is_none());
        rows.map(|row| row as u32).take(self.chunk_max).collect()
    }

    fn orphan(&self, row: u32, foreign_key: &ForeignKey, places: &[usize]) -> Error {
        let name = foreign_key.name.as_deref().unwrap_or_default();
        let message = format!(
            "insert or update on table \"{0}\" violates foreign key constraint \"{name}\": Key ({1})=({2}) is not \
             present in table \"{3}\"",
            self.step.target.table().name(),
            foreign_key.columns.join(", "),
            self.values(row, places),
            foreign_key.parent.name()
        );
        let error = Error::new(ErrorKind::ForeignKeyViolation, message)
            .with_code("23503")
            .with_constraint(name)
            .with_table(self.step.target.table().to_string())
            .with_row(row.into());
        if let [column] = &foreign_key.columns[..] { error.with_column(column) } else { error }
    }

    fn values(&self, row: u32, places: &[usize]) -> String {
        let columns = self.step.batch.columns();
        let text = |&place: &usize| array_value_to_string(&columns[place], row as usize).unwrap_or_default();
        places.iter().map(text).collect::<Vec<_>>().join(", ")
    }

    /// Whether a row whose values of a unique key are there is no failure: it is the row to be changed.
    fn finds_rows_by(&self, unique: &UniqueKey) -> bool {
        let target = &self.step.target;
        target.operation.is_keyed()
            && unique.columns.len() == target.key.len()
            && target.key.iter().all(|&index| unique.covers(target.columns[index].name()))
    }

    /// The primary key, which comes first among what a row is held against.
    fn primary(&self) -> Option<&'a UniqueKey> {
        let description = &self.step.target.description;
        description.unique.iter().find(|unique| {
            unique.columns.len() == description.key.len()
                && description.key.iter().all(|column| unique.covers(column))
        })
    }

    fn places_of(&self, unique: &UniqueKey) -> Option<Vec<usize>> {
        unique.columns.iter().map(|column| self.place_of(column.as_deref()?)).collect()
    }

    fn place_of(&self, column: &str) -> Option<usize> {
        self.step.target.columns.iter().position(|own| own.name() == column)
    }
}

/// The places of columns in a batch of these columns alone.
fn all_of(places: &[usize]) -> Vec<usize> {
    (0..places.len()).collect()
}

/// A CHECK constraint of a table.
pub(super) struct Check {
    name: String,
    expression: String,
    /// None where it looks at the row as a whole, at what only a row in the table has, or calls a function that may read tables.
    columns: Vec<String>,
}

async fn checks_of(connection: &Connection, table: &TableName) -> Result<Vec<Check>> {
    let sql = "SELECT k.conname::text, pg_catalog.pg_get_expr(k.conbin, k.conrelid), ARRAY(
        SELECT a.attname::text FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey) AND 0 < ALL (k.conkey) AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_depend d
            LEFT JOIN pg_catalog.pg_operator o ON d.refclassid = 'pg_catalog.pg_operator'::regclass AND o.oid = d.refobjid
            JOIN pg_catalog.pg_proc f ON f.oid = coalesce(o.oprcode::oid, d.refobjid)
            WHERE d.classid = 'pg_catalog.pg_constraint'::regclass AND d.objid = k.oid AND f.provolatile <> 'i'
            AND (o.oid IS NOT NULL OR d.refclassid = 'pg_catalog.pg_proc'::regclass)))
        FROM pg_catalog.pg_constraint k WHERE k.contype = 'c' AND k.conrelid = pg_catalog.to_regclass($1)
        AND to_jsonb(k) ->> 'conenforced' IS DISTINCT FROM 'false' ORDER BY k.conname";
    let rows = connection.query(sql, &[(&table.quoted(), Type::TEXT)]).await?;
    let check = |row: &Row| {
        Ok(Check {
            name: row.try_get(0).map_err(error_of)?,
            expression: row.try_get(1).map_err(error_of)?,
            columns: row.try_get(2).map_err(error_of)?,
        })
    };
    rows.iter().map(check).collect()
}
