//! What a transaction did, so that it can be done again.
//!
//! DuckDB has no savepoints: a statement that fails takes its transaction with it. So the steps that went through are kept, and after
//! a failure they are applied again in a new transaction. Where somebody ran SQL of their own or read, what they saw may have
//! decided what came after, and so such a transaction is not done again: it is gone.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayData, Int64Array, RecordBatch};
use arrow::buffer::Buffer;
use arrow::compute::{concat, concat_batches};
use barge_core::store::{Target, Token};
use barge_core::{Result, TableName};

/// The bytes of steps that are kept. A transaction with more of them is gone when a statement fails.
const BYTES_MAX: usize = 256 << 20;

/// One thing that a transaction did.
pub(crate) enum Entry {
    Claim(Token),
    Step(AppliedStep),
}

/// Rows that were written, by one statement or several, and can be written by one.
pub(crate) struct AppliedStep {
    pub(crate) target: Arc<Target>,
    /// The rows, and the keys that were drawn for them.
    pub(crate) parts: Vec<(RecordBatch, Option<Int64Array>)>,
    /// The rows it changed. If they're others when it is done again, somebody else wrote meanwhile.
    pub(crate) affected: u64,
    /// Which rows' keys were there, if that was asked. The same goes for them.
    pub(crate) matched: Option<Vec<bool>>,
}

impl AppliedStep {
    /// All its rows, and their keys.
    pub(crate) fn rows(&self) -> Result<(RecordBatch, Option<Int64Array>)> {
        if let [(batch, keys)] = &self.parts[..] {
            return Ok((batch.clone(), keys.clone()));
        }
        let schema =
            self.parts.first().map_or_else(|| Arc::clone(&self.target.schema), |(batch, _)| batch.schema());
        let batch = concat_batches(&schema, self.parts.iter().map(|(batch, _)| batch))?;
        let keys: Option<Vec<&dyn arrow::array::Array>> =
            self.parts.iter().map(|(_, keys)| keys.as_ref().map(|keys| keys as _)).collect();
        let keys = keys.map(|keys| concat(&keys)).transpose()?;
        Ok((batch, keys.map(|keys| Int64Array::from(keys.to_data()))))
    }

    /// Takes in what came right after it.
    fn join(&mut self, next: AppliedStep) {
        self.parts.extend(next.parts);
        self.affected += next.affected;
        if let (Some(matched), Some(more)) = (&mut self.matched, next.matched) {
            matched.extend(more);
        }
    }
}

/// What the open transaction did.
#[derive(Default)]
pub(crate) struct Journal {
    entries: Vec<Entry>,
    /// What the entries' rows take.
    memory: Memory,
    /// Where the entries begin of which those that follow each other are done again as one.
    run: Option<usize>,
    /// Whether something was done that can't be done again.
    incomplete: bool,
    /// The tables of which rows or their values may be gone.
    released: Vec<TableName>,
    /// Whether SQL was run that may have written anything.
    ran_sql: bool,
    wrote: bool,
}

impl Journal {
    pub(crate) fn push(&mut self, entry: Entry) {
        if let Entry::Step(applied) = &entry {
            self.wrote = true;
            applied.parts.iter().for_each(|(batch, _)| self.memory.add(batch));
            let target = &applied.target;
            if releases(target) && !self.released.contains(target.table()) {
                self.released.push(target.table().clone());
            }
        }
        let in_run = self.run.is_some_and(|run| self.entries.len() > run);
        match (self.entries.last_mut(), entry) {
            (Some(Entry::Step(last)), Entry::Step(next))
                if in_run && Arc::ptr_eq(&last.target, &next.target) =>
            {
                last.join(next);
            }
            (_, entry) => self.entries.push(entry),
        }
        if self.memory.bytes > BYTES_MAX {
            self.incomplete = true;
        }
        if self.incomplete {
            self.entries = Vec::new();
        }
    }

    /// Notes that somebody read, or ran a statement of their own.
    pub(crate) fn push_sql(&mut self, writes: bool) {
        self.incomplete = true;
        self.entries = Vec::new();
        self.ran_sql |= writes;
        self.wrote |= writes;
    }

    /// What was done, where it can be done again.
    pub(crate) fn entries(&self) -> Option<&[Entry]> {
        (!self.incomplete).then_some(&self.entries)
    }

    /// The same for good, and the run that is on.
    pub(crate) fn into_entries(self) -> (Vec<Entry>, Option<usize>) {
        (self.entries, self.run)
    }

    /// Begins a run: what is written from here on to one target, piece by piece, could be written at once. However many pieces there
    /// are, they take one statement when they're done again.
    pub(crate) fn begin_run(&mut self) {
        self.run = Some(self.entries.len());
    }

    pub(crate) fn end_run(&mut self) {
        self.run = None;
    }

    pub(crate) fn set_run(&mut self, run: Option<usize>) {
        self.run = run;
    }

    /// How many things were done.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Forgets what was done after the first so many things: it is to be undone.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.entries.truncate(len);
        self.memory = Memory::default();
        for entry in &self.entries {
            if let Entry::Step(applied) = entry {
                applied.parts.iter().for_each(|(batch, _)| self.memory.add(batch));
            }
        }
    }

    /// Whether nothing was written yet.
    pub(crate) fn is_clean(&self) -> bool {
        !self.wrote
    }

    /// Whether a parent of the target's rows may be gone that DuckDB's index still shows: it then takes children without a parent.
    pub(crate) fn may_lack_parents(&self, target: &Target) -> bool {
        let mut parents = target.description.foreign_keys.iter().map(|key| &key.parent);
        let released = |parent: &TableName| {
            self.released.iter().any(|table| table.name().eq_ignore_ascii_case(parent.name()))
        };
        parents.any(|parent| self.ran_sql || released(parent))
    }
}

/// The memory that batches keep: each allocation once, however many slices share it.
#[derive(Default)]
struct Memory {
    /// The addresses of what is counted. The batches are kept, and so no other takes them.
    counted: HashSet<usize>,
    bytes: usize,
}

impl Memory {
    fn add(&mut self, batch: &RecordBatch) {
        batch.columns().iter().for_each(|column| self.add_array(&column.to_data()));
    }

    fn add_array(&mut self, array: &ArrayData) {
        array.buffers().iter().for_each(|buffer| self.add_buffer(buffer));
        if let Some(nulls) = array.nulls() {
            self.add_buffer(nulls.buffer());
        }
        array.child_data().iter().for_each(|child| self.add_array(child));
    }

    fn add_buffer(&mut self, buffer: &Buffer) {
        if self.counted.insert(buffer.data_ptr().addr().get()) {
            self.bytes += buffer.capacity();
        }
    }
}

/// Whether a step may take away a key that foreign keys name.
fn releases(target: &Target) -> bool {
    use barge_core::Operation::*;
    let referenced = || target.description.referenced_by.iter().flat_map(|reference| &reference.columns);
    match target.operation {
        Delete => true,
        Insert | InsertIfAbsent => false,
        Update | Upsert => target.assigned().any(|index| {
            referenced().any(|column| column.eq_ignore_ascii_case(target.columns[index].name()))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, StringArray};

    #[test]
    fn slices_of_a_batch_are_counted_once() {
        let texts: ArrayRef =
            Arc::new(StringArray::from_iter_values((0..10_000).map(|row| format!("row {row}"))));
        let batch = RecordBatch::try_from_iter([("text", texts)]).unwrap();
        let mut memory = Memory::default();
        (0..100).for_each(|part| memory.add(&batch.slice(part * 100, 100)));
        assert!(memory.bytes <= batch.get_array_memory_size(), "{} bytes", memory.bytes);
        assert!(memory.bytes >= batch.column(0).to_data().get_slice_memory_size().unwrap());
    }
}
