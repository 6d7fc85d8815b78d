//! Tokens of flushes, so that a flush happens once.

use barge_core::Result;
use barge_core::store::Token;

use crate::connection::Connection;
use crate::journal::Entry;

/// The table of tokens: a row for each lane of each writer.
pub(crate) const FLUSHES: &str = "barge_flushes";

impl Connection {
    /// Claims a token; false where a committed transaction claimed it before.
    pub(crate) fn claim(&mut self, token: &Token) -> Result<bool> {
        let claimed = self.claim_token(token)?;
        if let (true, Some(journal)) = (claimed, &mut self.journal) {
            journal.push(Entry::Claim(token.clone()));
        }
        Ok(claimed)
    }

    pub(crate) fn claim_token(&mut self, token: &Token) -> Result<bool> {
        self.run(
            "CREATE TABLE IF NOT EXISTS barge_flushes(writer UUID NOT NULL, lane UINTEGER NOT NULL, \
             sequence UBIGINT NOT NULL, PRIMARY KEY (writer, lane))",
        )?;
        let claimed = self.run(&format!(
            "INSERT INTO barge_flushes VALUES ('{}', {}, {}) ON CONFLICT (writer, lane) DO UPDATE \
             SET sequence = excluded.sequence WHERE barge_flushes.sequence < excluded.sequence",
            token.writer, token.lane, token.sequence
        ))?;
        Ok(claimed > 0)
    }
}
