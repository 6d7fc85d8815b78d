//! What a writer says at its end.

use crate::engine::Statistics;
use crate::record::TableName;
use crate::store::Operation;
use crate::{Error, Result};

/// A rejected row: where it was going, and why it didn't get there.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// The table it was for.
    pub table: TableName,
    /// What should have been done with it.
    pub operation: Operation,
    /// The row as JSON; see [`row_to_json`](crate::record::row_to_json).
    pub row: serde_json::Map<String, serde_json::Value>,
    /// Why it was rejected.
    pub error: Error,
}

/// How a writer ended: every row accounted for.
#[derive(Clone, Debug)]
#[must_use = "rows may have been rejected: look, or call into_result()"]
pub struct Report {
    /// The final numbers. `added = committed + rejected`.
    pub statistics: Statistics,
    /// The first rejected rows, up to the writer's `max_reported`.
    pub rejected: Vec<Rejected>,
    /// Why rejected rows could not be kept in the dead letter file, where that happened.
    pub dead_letter_failure: Option<Error>,
}

impl Report {
    /// The final numbers, or the first rejected row's error.
    ///
    /// # Errors
    /// Where any row was rejected: of that row's kind, saying how many there were. Where the dead letter file failed: that.
    pub fn into_result(self) -> Result<Statistics> {
        if let Some(error) = self.dead_letter_failure {
            return Err(error.context("rejected rows could not be kept"));
        }
        match self.rejected.first() {
            Some(first) => {
                let (rejected, added) = (self.statistics.rejected, self.statistics.added);
                Err(first
                    .error
                    .clone()
                    .context(format!("{rejected} of {added} rows were rejected; the first")))
            }
            None => Ok(self.statistics),
        }
    }
}
