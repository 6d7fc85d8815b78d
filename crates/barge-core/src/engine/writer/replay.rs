//! A flush in arrival order: the reference itself, run by run of one table and operation.
//!
//! A store may end a transaction over a row (SQLite: `RAISE(ROLLBACK)`, `ON CONFLICT ROLLBACK`). Then the flush starts anew in
//! another one, knowing more: first it goes row by row, so that the row is known, then that row is rejected unsent. Each start
//! makes a row known, so there are at most as many as there are rows, and two. Where COMMIT finds a deferred constraint
//! broken, the flush starts anew once more, with such constraints checked row by row; a row that breaks a foreign key is then tried again
//! after the rest, as with any.

use std::collections::BTreeMap;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;

use super::flush::{Failed, FlushOptions, Work, raise};
use super::keys::{TableKeys, find_keys};
use super::plan::{Part, counts_tell, runs, statement_shows};
use crate::database::Core;
use crate::store::{CommitError, CommitOutcome, Step, Target, Transaction};
use crate::{Error, ErrorKind, Result};

/// Sends the parts' rows in arrival order, and rejects those that fail. `refused` is the failure that ended the grouped attempt.
pub(super) async fn replay(
    core: &Core,
    parts: &[Part],
    rejected: &[(u32, Error)],
    options: &FlushOptions<'_>,
    refused: Option<&Error>,
) -> Result<Work, Failed> {
    let keys = find_keys(&mut core.ask(), parts, true).await?;
    let refused = refused.filter(|error| error.is_row()).cloned();
    let mut known = Known { refused, ..Known::default() };
    loop {
        let replay = Replay {
            core,
            parts,
            keys: &keys,
            options,
            known: &known,
            transaction: begin(core, options, &known).await?,
            work: Work::new(rejected, options),
            deferred: Vec::new(),
            last_arrivals: vec![None; keys.len()],
        };
        match replay.run().await {
            Ok(work) => return Ok(work),
            Err(Stopped::Failed(failed)) => return Err(failed),
            Err(Stopped::Ended(ended)) => known.learn(ended),
            Err(Stopped::Refused) => known.immediate = true,
        }
    }
}

async fn begin(
    core: &Core,
    options: &FlushOptions<'_>,
    known: &Known,
) -> Result<Box<dyn Transaction>, Failed> {
    let mut transaction = core.store.begin().await?;
    if let Some(token) = options.token
        && !transaction.claim(token).await?
    {
        return Err(Failed::CommittedBefore);
    }
    if known.immediate {
        transaction.check_deferred_at_once().await?;
    }
    Ok(transaction)
}

/// What transactions that ended have taught.
#[derive(Default)]
struct Known {
    /// How a row failed when the rows went grouped: a step of its table's rows would most likely fail again.
    refused: Option<Error>,
    caution: Caution,
    /// Rows that end their transaction, by arrival.
    rows: BTreeMap<u32, Error>,
    /// Whether deferred constraints are checked with every row.
    immediate: bool,
}

/// How rows are sent.
#[derive(Clone, Copy, Default, PartialEq)]
enum Caution {
    /// A run as one step, and row by row where it fails or is likely to.
    #[default]
    Runs,
    /// Row by row, in one call.
    Rows,
    /// Row by row, in a call each: for a store that doesn't say which row ended the transaction.
    Calls,
}

impl Known {
    fn learn(&mut self, Ended { arrivals, error }: Ended) {
        let named = error.row().and_then(|row| arrivals.get(usize::try_from(row).ok()?));
        let own = match (self.caution, named) {
            // A step may take the transaction with it over a row that alone would be left out.
            (Caution::Runs, _) => return self.caution = Caution::Rows,
            _ if !error.is_row() || arrivals.len() == 1 => &arrivals[..],
            (_, Some(row)) => std::slice::from_ref(row),
            (_, None) => return self.caution = Caution::Calls,
        };
        for &arrival in own {
            let error = if error.is_row() { error.clone().with_row(arrival.into()) } else { error.clone() };
            self.rows.insert(arrival, error);
        }
    }
}

/// An error that ended the transaction, and the rows that were sent.
struct Ended {
    arrivals: Vec<u32>,
    error: Error,
}

/// Why a replay did not come to its end.
enum Stopped {
    Failed(Failed),
    Ended(Ended),
    /// COMMIT found a deferred constraint broken.
    Refused,
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Stopped::Failed(error.into())
    }
}

/// A row that broke a foreign key.
struct Deferred {
    part: usize,
    row: u32,
    error: Error,
}

struct Replay<'a> {
    core: &'a Core,
    parts: &'a [Part],
    keys: &'a [TableKeys],
    options: &'a FlushOptions<'a>,
    known: &'a Known,
    transaction: Box<dyn Transaction>,
    work: Work,
    deferred: Vec<Deferred>,
    /// For each table of `keys`, the last arrival of each key; made when a foreign key is first broken.
    last_arrivals: Vec<Option<Vec<u32>>>,
}

impl Replay<'_> {
    async fn run(mut self) -> Result<Work, Stopped> {
        for run in runs(self.parts) {
            self.send(run.part, run.start as u32..(run.start + run.rows) as u32).await?;
        }
        self.retry_deferred().await?;
        self.work.answers.finish();
        if self.options.atomic && !self.work.answers.rejected.is_empty() {
            self.transaction.rollback().await?;
            return Ok(self.work.roll_back_all(self.parts, self.options));
        }
        let fence = raise(self.core, self.parts, self.options);
        match self.transaction.commit().await {
            Ok(()) => {
                self.work.lower(fence, CommitOutcome::Committed);
                Ok(self.work)
            }
            Err(CommitError::RolledBack(error)) => {
                fence.lower(CommitOutcome::RolledBack);
                // A deferred constraint is broken, and COMMIT doesn't say by which row.
                match error.is_row() && !self.known.immediate {
                    true => Err(Stopped::Refused),
                    false => Err(error.into()),
                }
            }
            Err(CommitError::Unknown { error, .. }) => {
                self.work.lower(fence, CommitOutcome::Unknown);
                Err(Stopped::Failed(Failed::Unknown(error, Box::new(self.work))))
            }
        }
    }

    /// Sends a run but for the rows that would end the transaction.
    async fn send(&mut self, part: usize, run: std::ops::Range<u32>) -> Result<(), Stopped> {
        let known = self.known;
        let arrivals = &self.parts[part].arrivals;
        let mut rows: Vec<u32> = run.collect();
        if !known.rows.is_empty() {
            let ends = |row: &u32| known.rows.get_key_value(&arrivals[*row as usize]);
            for (&arrival, error) in rows.iter().filter_map(ends) {
                self.work.answers.reject(arrival, error.clone());
            }
            rows.retain(|row| ends(row).is_none());
        }
        let rows_a_call = if known.caution == Caution::Calls { 1 } else { rows.len().max(1) };
        for rows in rows.chunks(rows_a_call) {
            let step = self.step(part, rows)?;
            if !self.send_step(part, rows, &step).await? {
                let failed = self.apply_rows(part, rows, &step).await?;
                self.defer_or_reject(failed);
            }
        }
        Ok(())
    }

    /// Sends rows as one step, where that is as good as row by row; whether they're answered.
    async fn send_step(&mut self, part: usize, rows: &[u32], step: &Step) -> Result<bool, Stopped> {
        let row_by_row = self.known.caution != Caution::Runs
            || (rows.len() > 1 && (statement_shows(&step.target) || self.is_suspect(&step.target)));
        if row_by_row || !self.names_keys_once(part, rows) {
            return Ok(false);
        }
        self.work.round_trips += 1;
        match self.transaction.apply(step).await {
            Ok(applied) => {
                self.work.take(step, &self.arrivals(part, rows), &applied, self.options);
                Ok(true)
            }
            Err(error) if error.is_row() && self.transaction.is_open() => Ok(false),
            // The statement itself is refused, and would be for every row.
            Err(error) => self.refuse(part, rows, error).map(|()| true),
        }
    }

    /// Whether a row of the target's table failed when the rows went grouped.
    fn is_suspect(&self, target: &Target) -> bool {
        let Some(suspect) = self.known.refused.as_ref().and_then(Error::table) else { return false };
        let table = target.table();
        suspect.eq_ignore_ascii_case(table.name()) || suspect.eq_ignore_ascii_case(&table.to_string())
    }

    /// All rows of the flush.
    fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.arrivals.len()).sum()
    }

    fn step(&self, part: usize, rows: &[u32]) -> Result<Step> {
        let part = &self.parts[part];
        let batch: RecordBatch = match rows {
            &[first, .., last] if (last - first) as usize + 1 == rows.len() => {
                part.batch.slice(first as usize, rows.len())
            }
            &[row] => part.batch.slice(row as usize, 1),
            rows => take_record_batch(&part.batch, &UInt32Array::from(rows.to_vec()))?,
        };
        let outcomes = self.options.outcomes || !counts_tell(&part.target);
        Ok(Step { target: part.target.clone(), batch, outcomes })
    }

    fn arrivals(&self, part: usize, rows: &[u32]) -> Vec<u32> {
        rows.iter().map(|&row| self.parts[part].arrivals[row as usize]).collect()
    }

    fn names_keys_once(&self, part: usize, rows: &[u32]) -> bool {
        if rows.len() == 1 || !self.parts[part].target.operation.is_keyed() {
            return true;
        }
        let Some(ids) = self.ids(part) else { return false };
        let mut ids: Vec<u32> = rows.iter().map(|&row| ids[row as usize]).collect();
        ids.sort_unstable();
        ids.windows(2).all(|pair| pair[0] != pair[1])
    }

    fn ids(&self, part: usize) -> Option<&[u32]> {
        self.keys.iter().find_map(|keys| {
            let place = keys.parts.iter().position(|&other| other == part)?;
            keys.ids.as_ref().map(|ids| &ids[place][..])
        })
    }

    /// Applies rows of a part one by one, and returns those that failed.
    async fn apply_rows(&mut self, part: usize, rows: &[u32], step: &Step) -> Result<Vec<Deferred>, Stopped> {
        self.work.round_trips += 1;
        // Of several runs it may be another's.
        let refused = self
            .known
            .refused
            .as_ref()
            .filter(|_| rows.len() == self.rows() && self.is_suspect(&step.target));
        let applied = match refused {
            Some(refused) => self.transaction.apply_refused(step, refused).await,
            None => self.transaction.apply_rows(step).await,
        };
        let applied = match applied {
            Ok(applied) => applied,
            Err(error) => return self.refuse(part, rows, error).map(|()| Vec::new()),
        };
        self.work.statements += u64::from(applied.statements);
        self.work.note_drawn(step, applied.generated.as_ref());
        let mut failed = Vec::new();
        for (place, (&row, outcome)) in rows.iter().zip(applied.outcomes).enumerate() {
            let arrival = self.parts[part].arrivals[row as usize];
            match outcome {
                Ok(outcome) => {
                    self.work.set(arrival, outcome);
                    if let Some(keys) = &applied.generated {
                        self.work.answers.set_generated(arrival, keys, place, self.options.rows);
                    }
                }
                Err(error) => failed.push(Deferred { part, row, error }),
            }
        }
        Ok(failed)
    }

    /// Rejects rows whose call failed as a whole; stops where the transaction is gone, or the failure is no fault of the rows.
    fn refuse(&mut self, part: usize, rows: &[u32], error: Error) -> Result<(), Stopped> {
        if error.is_whole() {
            return Err(error.into());
        }
        let arrivals = self.arrivals(part, rows);
        if !self.transaction.is_open() {
            return Err(Stopped::Ended(Ended { arrivals, error }));
        }
        for arrival in arrivals {
            self.work.answers.reject(arrival, error.clone());
        }
        Ok(())
    }

    fn defer_or_reject(&mut self, failed: Vec<Deferred>) {
        for failed in failed {
            if failed.error.kind() == ErrorKind::ForeignKeyViolation && !self.is_named_later(&failed) {
                self.deferred.push(failed);
            } else {
                self.reject(failed);
            }
        }
    }

    fn reject(&mut self, failed: Deferred) {
        let arrival = self.parts[failed.part].arrivals[failed.row as usize];
        self.work.answers.reject(arrival, failed.error.with_row(arrival.into()));
    }

    /// Whether a later row of the flush names the same key.
    fn is_named_later(&mut self, failed: &Deferred) -> bool {
        let arrival = self.parts[failed.part].arrivals[failed.row as usize];
        let Some(table) = self.keys.iter().position(|keys| keys.parts.contains(&failed.part)) else {
            return false;
        };
        let keys = &self.keys[table];
        let Some(id) = self.ids(failed.part).map(|ids| ids[failed.row as usize]) else {
            // Keys that can't be compared: only a lone operation without a key is safe to move.
            return keys.parts.len() > 1 || self.parts[failed.part].target.operation.is_keyed();
        };
        let last = self.last_arrivals[table].get_or_insert_with(|| keys.last_arrivals(self.parts));
        last[id as usize] > arrival
    }

    /// Tries the rows that broke a foreign key again, together, until none passes.
    async fn retry_deferred(&mut self) -> Result<(), Stopped> {
        while !self.deferred.is_empty() {
            let deferred = std::mem::take(&mut self.deferred);
            let mut next = Vec::new();
            // Consecutive rows of one part go together, in arrival order.
            for chunk in deferred.chunk_by(|a, b| a.part == b.part) {
                let rows: Vec<u32> = chunk.iter().map(|deferred| deferred.row).collect();
                let rows_a_call = if self.known.caution == Caution::Calls { 1 } else { rows.len() };
                for rows in rows.chunks(rows_a_call) {
                    let step = self.step(chunk[0].part, rows)?;
                    next.extend(self.apply_rows(chunk[0].part, rows, &step).await?);
                }
            }
            if next.len() < deferred.len() {
                self.defer_or_reject(next);
            } else {
                next.into_iter().for_each(|failed| self.reject(failed));
            }
        }
        Ok(())
    }
}
