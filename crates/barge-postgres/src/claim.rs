//! Tokens of flushes, so that a flush happens once.

use barge_core::store::Token;
use barge_core::{Error, ErrorKind, Result};
use tokio_postgres::types::Type;

use crate::error::error_of;
use crate::pool::Connection;

/// The table of tokens: a row for each lane of each writer.
pub(crate) const FLUSHES: &str = "barge_flushes";

/// Claims a token, or fails by dividing by zero where it was claimed before: so the transaction's other statements can be sent behind
/// it without waiting, and none of them happens twice.
const CLAIM: &str = "WITH claimed AS (\
    INSERT INTO barge_flushes(writer, lane, sequence) VALUES ($1::uuid, $2, $3) \
    ON CONFLICT (writer, lane) DO UPDATE SET sequence = excluded.sequence \
    WHERE barge_flushes.sequence < excluded.sequence RETURNING 1) \
    SELECT 1 / (SELECT count(*) FROM claimed)";

/// SQLSTATE of a division by zero.
const CLAIMED_BEFORE: &str = "22012";

impl Connection {
    /// Claims a token; false where a committed transaction claimed it before. Either way but `true`, the transaction is over.
    pub(crate) async fn claim(&self, token: &Token) -> Result<bool> {
        let writer = token.writer.to_string();
        let lane = i64::from(token.lane);
        // A sequence counts flushes from 1: it doesn't reach 2⁶³.
        let sequence = i64::try_from(token.sequence).unwrap_or(i64::MAX);
        let parameters: [crate::pool::Parameter<'_>; 3] =
            [(&writer, Type::TEXT), (&lane, Type::INT8), (&sequence, Type::INT8)];
        match self.query_raw(CLAIM, &parameters).await {
            Ok(_) => Ok(true),
            Err(error) if error.code().is_some_and(|code| code.code() == CLAIMED_BEFORE) => Ok(false),
            Err(error) => Err(error_of(error)),
        }
    }

    /// Sees to it that the claim can be sent behind others without being prepared first.
    pub(crate) async fn prepare_claim(&self) -> Result<()> {
        self.prepare(CLAIM, &[Type::TEXT, Type::INT8, Type::INT8]).await
    }

    /// Makes the table of tokens, outside any transaction.
    pub(crate) async fn create_flushes(&self) -> Result<()> {
        let created = self
            .run(
                "CREATE TABLE IF NOT EXISTS barge_flushes(\
                 writer uuid NOT NULL, lane bigint NOT NULL, sequence bigint NOT NULL, PRIMARY KEY (writer, lane))",
            )
            .await;
        match created {
            // Another process made it at the same moment.
            Err(error) if matches!(error.code(), Some("23505" | "42P07")) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Permission => Err(without_permission(&error)),
            created => created,
        }
    }
}

fn without_permission(error: &Error) -> Error {
    let message = format!(
        "the table {FLUSHES}, by which a writer finds out whether a cut-off commit happened, can't be made: {}; let the \
         user create tables in the schema, or create it there: CREATE TABLE {FLUSHES}(writer uuid NOT NULL, lane bigint \
         NOT NULL, sequence bigint NOT NULL, PRIMARY KEY (writer, lane)) and grant SELECT, INSERT and UPDATE on it",
        error.message()
    );
    Error::new(ErrorKind::Permission, message).with_code(error.code().unwrap_or_default())
}
