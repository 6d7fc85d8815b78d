//! Tokens of flushes, so that a flush happens once.

use barge_core::Result;
use barge_core::store::Token;

use crate::connection::Connection;

/// The table of tokens: a row for each lane of each writer.
pub(crate) const FLUSHES: &str = "barge_flushes";

impl Connection {
    /// Claims a token; false where a committed transaction claimed it before.
    pub(crate) fn claim(&mut self, token: &Token) -> Result<bool> {
        self.run(
            "CREATE TABLE IF NOT EXISTS barge_flushes(writer TEXT NOT NULL, lane INTEGER NOT NULL, \
             sequence INTEGER NOT NULL, PRIMARY KEY (writer, lane)) WITHOUT ROWID",
        )?;
        let statement = self.statement(
            "INSERT INTO barge_flushes(writer, lane, sequence) VALUES (?1, ?2, ?3) \
             ON CONFLICT (writer, lane) DO UPDATE SET sequence = excluded.sequence \
             WHERE barge_flushes.sequence < excluded.sequence RETURNING 1",
        )?;
        statement.bind_text(1, &token.writer.to_string());
        statement.bind_integer(2, token.lane.into());
        // A sequence counts flushes from 1: it doesn't reach 2⁶³.
        statement.bind_integer(3, i64::try_from(token.sequence).unwrap_or(i64::MAX));
        let mut run = statement.run();
        let mut claimed = false;
        while run.next().map_err(|failure| self.error(failure))?.is_some() {
            claimed = true;
        }
        Ok(claimed)
    }
}
