//! Which row a chunk failed at: a guess.

use std::error::Error as _;

use barge_core::{Error, Result, Transaction};

use super::Search;
use crate::error::error_of;
use crate::statements::TRACE;
use crate::transaction::PostgresTransaction;

impl Search<'_> {
    /// The place of the row at which a COPY failed, by what the server says it was doing: `COPY table, line 7`, in its own language. `None`
    /// where it can't be read.
    pub(super) fn place_in_copy(&self, error: &Error) -> Option<usize> {
        let failure = error.source()?.downcast_ref::<tokio_postgres::Error>()?.as_db_error()?;
        let table = self.step.target.table().name();
        let doing = failure.where_()?.lines().rev().find(|line| line.contains("COPY"))?;
        line_in(doing.split_once(table)?.1)?.checked_sub(1)
    }

    /// Makes the sequence, where that is allowed.
    pub(super) async fn can_trace(&mut self, transaction: &mut PostgresTransaction) -> bool {
        if let Some(traced) = self.traced {
            return traced;
        }
        if transaction.connection().without().temporary {
            return *self.traced.insert(false);
        }
        transaction.mark("barge_trace");
        let made =
            transaction.connection().run(&format!("CREATE TEMPORARY SEQUENCE IF NOT EXISTS {TRACE}")).await;
        let made = transaction.settle("barge_trace", made).await;
        if let Err(error) = &made {
            tracing::debug!(%error, "failing rows are searched for by halves");
        }
        *self.traced.insert(made.is_ok())
    }

    /// The place of the row that was written last, in the chunk that has just failed.
    pub(super) async fn last_row(&mut self, transaction: &mut PostgresTransaction) -> Result<Option<usize>> {
        if self.traced != Some(true) {
            return Ok(None);
        }
        self.statements += 1;
        let sql = format!("SELECT last_value, is_called FROM pg_temp.{TRACE}");
        let rows = transaction.connection().query(&sql, &[]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (last, called): (i64, bool) =
            (row.try_get(0).map_err(error_of)?, row.try_get(1).map_err(error_of)?);
        Ok(called.then_some(last as usize - 1))
    }

    /// Drops the sequence. Where it may not be dropped it stays as long as the session.
    pub(super) async fn drop_trace(&self, transaction: &mut PostgresTransaction) -> Result<()> {
        if self.traced != Some(true) {
            return Ok(());
        }
        transaction.mark("barge_trace");
        let dropped = transaction.connection().run(&format!("DROP SEQUENCE pg_temp.{TRACE}")).await;
        transaction.settle("barge_trace", dropped).await.or_else(|error| match transaction.is_open() {
            true => Ok(()),
            false => Err(error),
        })
    }
}

/// The first number in a text.
fn line_in(text: &str) -> Option<usize> {
    let digits = text.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    let end = digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}
