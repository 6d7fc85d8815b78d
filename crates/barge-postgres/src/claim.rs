//! Tokens of flushes, so that a flush happens once.

use std::collections::HashMap;
use std::sync::Mutex;

use barge_core::store::Token;
use barge_core::{Error, ErrorKind, Result};
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::connection::{Connection, Parameter, pipeline};
use crate::error::error_of;

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

/// SQLSTATE of a table that isn't there.
const MISSING: &str = "42P01";

/// SQLSTATE of a lock that was not to be had in time.
const NOT_IN_TIME: &str = "55P03";

/// The last token that each lane tried to claim, so that a second try is known for one.
#[derive(Default)]
pub(crate) struct Tries(Mutex<HashMap<(Uuid, u32), u64>>);

/// Lanes remembered. With more of them, a second try may be taken for a first one.
const LANES_KEPT: usize = 4_096;

impl Tries {
    /// Whether the token was tried before.
    fn is_second(&self, token: &Token) -> bool {
        let mut last = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if last.len() >= LANES_KEPT {
            last.clear();
        }
        last.insert((token.writer, token.lane), token.sequence) == Some(token.sequence)
    }
}

impl Connection {
    /// Claims a token; false where a committed transaction claimed it before. Either way but `true`, the transaction is over.
    ///
    /// A first try never waits. A second one waits until the transaction of the first has ended; where the server has not noticed that
    /// its client is gone, that may be long. So this wait ends after a second with `Busy`, to be tried again as long as retries go on.
    pub(crate) async fn claim(&self, token: &Token) -> Result<bool> {
        let writer = token.writer.to_string();
        let lane = i64::from(token.lane);
        // A sequence counts flushes from 1: it doesn't reach 2⁶³.
        let sequence = i64::try_from(token.sequence).unwrap_or(i64::MAX);
        let parameters: [Parameter<'_>; 3] =
            [(&writer, Type::TEXT), (&lane, Type::INT8), (&sequence, Type::INT8)];
        let is_second = self.tries().is_second(token);
        if is_second {
            self.prepare_claim().await?;
        }
        let claimed = match is_second {
            true => self.claim_in_time(&parameters).await,
            false => self.query_raw(CLAIM, &parameters).await,
        };
        let Err(error) = claimed else { return Ok(true) };
        match error.code().map(|code| code.code()) {
            Some(CLAIMED_BEFORE) => Ok(false),
            Some(NOT_IN_TIME) if is_second => {
                Err(error_of(error).context("waiting until an earlier try of the same flush, whose connection was lost, has ended on the server"))
            }
            Some(MISSING) => Err(error_of(error).with_table(FLUSHES)),
            _ => Err(error_of(error)),
        }
    }

    /// Claims under a limit of its own for the wait. All is sent at once, so that other calls may be sent behind it.
    async fn claim_in_time(&self, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, tokio_postgres::Error> {
        let mut claimed = Ok(Vec::new());
        pipeline(vec![
            Box::pin(async { drop(self.run("SET LOCAL lock_timeout = '1s'").await) }),
            Box::pin(async { claimed = self.query_raw(CLAIM, parameters).await }),
            Box::pin(async { drop(self.run("SET LOCAL lock_timeout TO DEFAULT").await) }),
        ])
        .await;
        claimed
    }

    /// Sees to it that the claim can be sent behind others without being prepared first.
    pub(crate) async fn prepare_claim(&self) -> Result<()> {
        let prepared = self.prepare(CLAIM, &[Type::TEXT, Type::INT8, Type::INT8]).await;
        prepared.map_err(|error| match error.kind() {
            ErrorKind::MissingTable => error.with_table(FLUSHES),
            _ => error,
        })
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
