//! What a flush is beside its rows one by one.

use barge_core::{ErrorKind, Table};

use super::{Answer, Case, Tables, Write};
use crate::Value;

/// Tables that take one row after another: what a flush is held against.
pub trait Reference {
    /// Writes one row alone. A row that fails leaves nothing behind.
    fn write(&mut self, tables: &Tables, write: &Write) -> Answer;

    /// Starts a flush.
    fn begin(&mut self);

    /// Ends a flush: what was written since it began is kept, or undone.
    fn end(&mut self, keep: bool);

    /// Whether a write so far may end in either of two ways, so that the case proves nothing.
    fn is_undecided(&self) -> bool {
        false
    }

    /// A table's rows, sorted.
    fn rows(&self, table: &str) -> Vec<Vec<Value>>;
}

/// Cuts rows into flushes, and gives each row its answer.
pub(super) struct Flushes<'a, R> {
    tables: &'a Tables,
    max_rows: usize,
    atomic: bool,
    pub(super) reference: R,
    /// The flush that gathers.
    open: Vec<Write>,
    pub(super) answers: Vec<Answer>,
}

impl<'a, R: Reference> Flushes<'a, R> {
    pub(super) fn new(tables: &'a Tables, case: &Case, reference: R) -> Self {
        let Case { max_rows, atomic, .. } = *case;
        Flushes { tables, max_rows, atomic, reference, open: Vec::new(), answers: Vec::new() }
    }

    pub(super) fn add(&mut self, write: Write) {
        self.open.push(write);
        if self.open.len() == self.max_rows {
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        let writes = std::mem::take(&mut self.open);
        self.reference.begin();
        let mut answers = self.answer(&writes);
        let first_failure = answers.iter().find_map(|answer| answer.err());
        self.reference.end(!(self.atomic && first_failure.is_some()));
        if let Some(kind) = first_failure
            && self.atomic
        {
            for answer in answers.iter_mut().filter(|answer| answer.is_ok()) {
                *answer = Err(kind);
            }
        }
        self.answers.extend(answers);
    }

    fn answer(&mut self, writes: &[Write]) -> Vec<Answer> {
        let refused: Vec<bool> = writes.iter().map(|write| self.is_refused(write)).collect();
        if self.atomic && refused.contains(&true) {
            // Nothing is tried: the others fail with the refused.
            return refused.iter().map(|_| Err(ErrorKind::NotNullViolation)).collect();
        }
        let mut answers: Vec<Answer> = Vec::new();
        for (write, refused) in writes.iter().zip(&refused) {
            let answer = if *refused {
                Err(ErrorKind::NotNullViolation)
            } else {
                self.reference.write(self.tables, write)
            };
            answers.push(answer);
        }
        // Rows that broke a foreign key are tried again until none passes, unless a later row names their key.
        loop {
            let broken = |place: &usize| {
                let mut later = writes[place + 1..].iter().zip(&refused[place + 1..]);
                answers[*place] == Err(ErrorKind::ForeignKeyViolation)
                    && !later.any(|(later, refused)| !refused && self.same_key(later, &writes[*place]))
            };
            let again: Vec<usize> = (0..writes.len()).filter(broken).collect();
            for &place in &again {
                answers[place] = self.reference.write(self.tables, &writes[place]);
            }
            if !again.iter().any(|&place| answers[place].is_ok()) {
                return answers;
            }
        }
    }

    /// Whether a row is refused before it is sent, whatever is in the table: NULL where the column allows none.
    fn is_refused(&self, write: &Write) -> bool {
        let view: &Table = &self.tables.shapes[write.shape].view;
        let is_sent =
            |index: usize| write.operation != barge_core::Operation::Delete || view.columns()[index].is_key();
        let columns = view.columns().iter().zip(&write.row).enumerate();
        columns
            .into_iter()
            .any(|(index, (column, value))| value.is_null() && !column.field.is_nullable() && is_sent(index))
    }

    fn same_key(&self, a: &Write, b: &Write) -> bool {
        let table = |write: &Write| self.tables.shapes[write.shape].table;
        table(a) == table(b) && self.tables.key_of(a) == self.tables.key_of(b)
    }
}
