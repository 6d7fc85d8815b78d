//! What a loader forgets when this process commits.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;

use super::invalidations::{Invalidation, Invalidations};
use super::local::Local;
use crate::TableName;
use crate::engine::loader::{LoaderKey, LoaderValue};
use crate::engine::writer::plan::same_table;
use crate::store::{Change, ChangedRows, CommitObserver, CommitOutcome};

/// Of a commit that names more keys than this it is taken that it may have changed any row: to drop all that is kept is quicker then.
const KEYS_MAX: usize = 1 << 16;

/// Reads the keys of a commit as this loader's; `None` where they aren't of the same columns, or can't be read.
pub(crate) type Keys<K> = Box<dyn Fn(&RecordBatch) -> Option<Vec<K>> + Send + Sync>;

/// Observes commits for one loader.
pub(crate) struct Forget<K: LoaderKey, V: LoaderValue> {
    pub(crate) table: TableName,
    /// The columns that the loader looks up by.
    pub(crate) columns: Vec<String>,
    pub(crate) local: Arc<Local<K, V>>,
    /// `None` where the database may take keys as equal that differ: then a commit may have changed any row.
    pub(crate) keys: Option<Keys<K>>,
    /// To the shared cache.
    pub(crate) invalidations: Option<Arc<Invalidations<K>>>,
}

enum Touched<K> {
    Keys(Vec<K>),
    /// Keys that the database drew. Others need not be told: a shared cache has nothing of them but what was removed by somebody else, and for a moment
    /// that they have no row.
    Drawn(Vec<K>),
    Added,
    All,
}

impl<K: LoaderKey, V: LoaderValue> Forget<K, V> {
    fn touched<'a>(&'a self, changes: &'a [Change]) -> impl Iterator<Item = Touched<K>> + 'a {
        let own = |change: &&Change| change.table.as_ref().is_none_or(|table| same_table(table, &self.table));
        changes
            .iter()
            .filter(own)
            .flat_map(|change| match &change.rows {
                ChangedRows::Added(values) => self.added(values),
                ChangedRows::Any => [Some(Touched::All), None],
                ChangedRows::Keys(keys) => [Some(self.read(keys).map_or(Touched::All, Touched::Keys)), None],
                ChangedRows::Drawn(keys) => {
                    [Some(self.read(keys).map_or(Touched::All, Touched::Drawn)), None]
                }
            })
            .flatten()
    }

    fn read(&self, keys: &RecordBatch) -> Option<Vec<K>> {
        if keys.num_rows() > KEYS_MAX {
            return None;
        }
        self.keys.as_ref().and_then(|read| read(keys))
    }

    /// Rows that are added: those whose keys are given may have been there once, whatever is still kept of them.
    fn added(&self, values: &RecordBatch) -> [Option<Touched<K>>; 2] {
        let unknown = Some(Touched::Added);
        let schema = values.schema();
        let place =
            |name: &String| schema.fields().iter().position(|field| field.name().eq_ignore_ascii_case(name));
        let places: Option<Vec<usize>> = self.columns.iter().map(place).collect();
        let Some(keys) = places.and_then(|places| values.project(&places).ok()) else {
            return [unknown, None];
        };
        let is_given = |row: usize| keys.columns().iter().all(|column| column.is_valid(row));
        let given: UInt32Array =
            (0..keys.num_rows()).filter(|&row| is_given(row)).map(|row| row as u32).collect();
        if self.local.has_many_rows() || given.is_empty() {
            return [unknown, None];
        }
        let all = given.len() == keys.num_rows();
        let read = take_record_batch(&keys, &given).ok().and_then(|given| self.read(&given));
        [Some(read.map_or(Touched::All, Touched::Keys)), unknown.filter(|_| !all)]
    }
}

impl<K: LoaderKey, V: LoaderValue> CommitObserver for Forget<K, V> {
    fn before_commit(&self, changes: &[Change]) {
        for touched in self.touched(changes) {
            match touched {
                Touched::Keys(keys) | Touched::Drawn(keys) => self.local.raise(&keys),
                Touched::Added => self.local.adds(),
                Touched::All => self.local.raise_all(),
            }
        }
    }

    fn after_commit(&self, changes: &[Change], outcome: CommitOutcome) {
        for touched in self.touched(changes) {
            let invalidation = match touched {
                Touched::Keys(keys) => {
                    self.local.lower(&keys, outcome);
                    let has_many_rows = self.local.has_many_rows();
                    Some(if has_many_rows { Invalidation::All } else { Invalidation::Keys(keys) })
                }
                Touched::Drawn(keys) => {
                    self.local.lower(&keys, outcome);
                    None
                }
                Touched::Added => {
                    self.local.added(outcome);
                    self.local.has_many_rows().then_some(Invalidation::All)
                }
                Touched::All => {
                    self.local.lower_all(outcome);
                    Some(Invalidation::All)
                }
            };
            if let (Some(invalidations), Some(invalidation)) = (&self.invalidations, invalidation)
                && outcome != CommitOutcome::RolledBack
            {
                invalidations.tell(invalidation);
            }
        }
    }
}
