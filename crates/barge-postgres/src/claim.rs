//! Tokens of flushes, so that a flush happens once.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};

use barge_core::store::Token;
use barge_core::{Error, ErrorKind, Result};
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::connection::{Connection, Parameter, pipeline};
use crate::error::{error_of, leaves_commit_unknown};

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

/// SQLSTATE of a right that the user lacks.
const REFUSED: &str = "42501";

/// SQLSTATE of a lock that was not to be had in time.
const NOT_IN_TIME: &str = "55P03";

/// The lanes whose last transaction was not seen to end: their row may still be locked by it.
#[derive(Default)]
pub(crate) struct Tries(Mutex<Begun>);

#[derive(Default)]
struct Begun {
    lanes: HashSet<Lane>,
    /// Whether there were too many to remember: then any may be among them.
    forgotten: bool,
}

type Lane = (Uuid, u32);

/// Lanes remembered.
const LANES_KEPT: usize = 4_096;

impl Tries {
    /// Notes that a lane's transaction begins, and says whether an earlier one may still be open.
    fn begin(&self, lane: Lane) -> bool {
        let mut begun = self.lock();
        if begun.lanes.len() >= LANES_KEPT && !begun.lanes.contains(&lane) {
            begun.lanes.clear();
            begun.forgotten = true;
        }
        !begun.lanes.insert(lane) || begun.forgotten
    }

    /// Notes that the server said that the lane's transaction has ended; it had claimed the lane's row, so no earlier one is open either.
    fn end(&self, lane: Lane) {
        self.lock().lanes.remove(&lane);
    }

    fn lock(&self) -> MutexGuard<'_, Begun> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Connection {
    /// Claims a token; false where a committed transaction claimed it before. Either way but `true`, the transaction is over.
    ///
    /// After a transaction that was seen to end it never waits. Else it waits until that one, of the same flush or of the one before, has ended;
    /// where the server has not noticed that its client is gone, that may be long. So this wait ends after a second with `Busy`, to be tried
    /// again as long as retries go on.
    pub(crate) async fn claim(&self, token: &Token) -> Result<bool> {
        let writer = token.writer.to_string();
        let lane = i64::from(token.lane);
        // A sequence counts flushes from 1: it doesn't reach 2⁶³.
        let sequence = i64::try_from(token.sequence).unwrap_or(i64::MAX);
        let parameters: [Parameter<'_>; 3] =
            [(&writer, Type::TEXT), (&lane, Type::INT8), (&sequence, Type::INT8)];
        let key = (token.writer, token.lane);
        let may_wait = self.tries().begin(key);
        if may_wait {
            self.prepare_claim().await?;
        }
        let claimed = match may_wait {
            true => self.claim_in_time(&parameters).await,
            false => self.query_raw(CLAIM, &parameters).await,
        };
        let Err(error) = claimed else {
            self.holds(key);
            return Ok(true);
        };
        match error.code().map(|code| code.code()) {
            Some(CLAIMED_BEFORE) => Ok(false),
            Some(NOT_IN_TIME) if may_wait => {
                let waited = "waiting until an earlier try of this flush, or of the one before, whose connection was lost, has ended on the server";
                Err(error_of(error).context(waited))
            }
            Some(MISSING) => Err(error_of(error).with_table(FLUSHES)),
            Some(REFUSED) => Err(without_permission(&error_of(error))),
            _ => Err(error_of(error)),
        }
    }

    /// Ends the transaction by COMMIT or ROLLBACK. What claimed a token is over when the server says so.
    pub(crate) async fn end(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        let ended = self.run_raw(sql).await;
        if let Some(lane) = self.held()
            && !ended.as_ref().is_err_and(leaves_commit_unknown)
        {
            self.tries().end(lane);
        }
        ended
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
        "the table {FLUSHES}, by which a writer finds out whether a cut-off commit happened, can't be made or written: {}; let the \
         user create tables in the schema, or create it there: CREATE TABLE {FLUSHES}(writer uuid NOT NULL, lane bigint \
         NOT NULL, sequence bigint NOT NULL, PRIMARY KEY (writer, lane)) and grant SELECT, INSERT and UPDATE on it",
        error.message()
    );
    Error::new(ErrorKind::Permission, message).with_code(error.code().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_waits_for_a_transaction_that_was_not_seen_to_end() {
        let tries = Tries::default();
        let lane = |number| (Uuid::nil(), number);
        assert!(!tries.begin(lane(1)));
        assert!(tries.begin(lane(1)), "the first try is open");
        assert!(!tries.begin(lane(2)));
        tries.end(lane(1));
        assert!(!tries.begin(lane(1)));
        // What is forgotten counts as open.
        (0..LANES_KEPT as u32 + 10).for_each(|number| {
            tries.begin(lane(100 + number));
        });
        assert!(tries.begin(lane(2)));
    }
}
