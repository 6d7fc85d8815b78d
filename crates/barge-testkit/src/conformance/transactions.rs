//! Beginning, committing, rolling back; tokens; writers side by side; the end of a store.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arrow::datatypes::DataType::{Int64, Utf8};
use barge_core::store::{CommitError, Query, Step, Target, Token};
use barge_core::{ErrorKind, Operation, Result};
use uuid::Uuid;

use super::fixture::*;
use super::{Constraints, Feature, Harness, Support};
use crate::Value;
use Operation::*;

fn token(writer: u128, lane: u32, sequence: u64) -> Token {
    Token { writer: Uuid::from_u128(writer), lane, sequence }
}

/// A committed transaction is there for everyone.
pub async fn a_committed_transaction_is_visible(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let mut transaction = people.store.begin().await.unwrap();
    transaction.apply(&people.step(Insert, &rows![[1, "a", 1]]).await).await.unwrap();
    transaction.apply(&people.step(Insert, &rows![[2, "b", 2]]).await).await.unwrap();
    assert!(transaction.is_open());
    transaction.commit().await.unwrap();
    people.assert_rows(&rows![[1, "a", 1], [2, "b", 2]]).await;
}

/// Before its commit a transaction sees its own rows, and nobody else does.
pub async fn an_open_transaction_is_seen_by_itself_alone(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    people.insert(&rows![[1, "a", 1]]).await;
    let steps =
        [people.step(Insert, &rows![[2, "b", 2]]).await, people.step(Update, &rows![[1, "x", 9]]).await];
    let keys = people.look_up(&rows![[1], [2]]);
    let mut transaction = people.store.begin().await.unwrap();
    for step in &steps {
        transaction.apply(step).await.unwrap();
    }
    let own = people.get_in(transaction.as_mut(), &rows![[1], [2]]).await;
    assert_eq!(own, rows![[1, "x", 9], [2, "b", 2]].into_iter().map(Some).collect::<Vec<_>>());
    let others = people.store.look_up(keys).await;
    match harness.supports(Feature::ConcurrentReads) {
        Support::Kept => assert_eq!(
            found(&others.unwrap().into_batch().await.unwrap()),
            [(0, rows![[1, "a", 1]].remove(0))]
        ),
        _ => assert_eq!(failure(others).kind(), ErrorKind::Busy),
    }
    transaction.commit().await.unwrap();
    people.assert_rows(&rows![[1, "x", 9], [2, "b", 2]]).await;
}

/// A rollback leaves nothing.
pub async fn a_rollback_leaves_nothing(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    people.insert(&rows![[1, "a", 1]]).await;
    let mut transaction = people.store.begin().await.unwrap();
    transaction
        .apply(&people.step(Delete, &rows![[1]]).await)
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    transaction.rollback().await.unwrap();
    people.assert_rows(&rows![[1, "a", 1]]).await;
}

/// Dropping a transaction rolls it back, and frees the way for the next.
pub async fn a_dropped_transaction_leaves_nothing(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let step = people.step(Insert, &rows![[1, "a", 1]]).await;
    let later = people.step(Insert, &rows![[2, "b", 2]]).await;
    for _ in 0..20 {
        let mut transaction = people.store.begin().await.unwrap();
        transaction.apply(&step).await.unwrap();
        drop(transaction);
    }
    people.transact(&[later]).await.unwrap();
    people.assert_rows(&rows![[2, "b", 2]]).await;
}

/// An empty transaction commits.
pub async fn an_empty_transaction_commits(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    people.store.begin().await.unwrap().commit().await.unwrap();
    assert_eq!(people.transact(&[]).await.unwrap(), []);
}

/// What fails in a transaction doesn't come back with its commit: the commit holds exactly what was answered `Ok`.
pub async fn a_commit_holds_what_was_answered(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let mut transaction = people.store.begin().await.unwrap();
    transaction.apply(&people.step(Insert, &rows![[1, "a", 1]]).await).await.unwrap();
    failure(transaction.apply(&people.step(Insert, &rows![[2, "b", 2], [1, "dup", 1]]).await).await);
    if transaction.is_open() {
        failure(transaction.execute("this is no statement").await);
    }
    let open = transaction.is_open();
    match transaction.commit().await {
        Ok(()) => {
            assert!(open, "a transaction that is gone can't commit");
            people.assert_rows(&rows![[1, "a", 1]]).await;
        }
        Err(CommitError::RolledBack(_)) => {
            assert!(!open, "an open transaction must commit");
            people.assert_rows(&[]).await;
        }
        Err(error) => panic!("nothing was cut off: {error:?}"),
    }
}

/// A token is claimed once: a transaction with it that comes later does nothing and says so.
pub async fn a_token_is_claimed_once(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let first = token(1, 0, 1);
    let step = people.step(Insert, &rows![[1, "n", NULL]]).await;
    assert!(people.transact_with(&first, &[step]).await.unwrap().is_some());
    let step = people.step(Insert, &rows![[2, "n", NULL]]).await;
    assert_eq!(people.transact_with(&first, &[step]).await.unwrap(), None);
    let mut transaction = people.store.begin().await.unwrap();
    assert!(!transaction.claim(&first).await.unwrap());
    transaction.rollback().await.unwrap();
    people.assert_rows(&rows![[1, "n", NULL]]).await;
}

/// Claims grow: one that comes after a later one of its lane was committed before, as far as anyone can know.
pub async fn an_earlier_token_counts_as_claimed(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    for (sequence, claimed) in [(1, true), (3, true), (2, false), (3, false), (4, true)] {
        let row = vec![sequence.into(), "n".into(), Value::Null];
        let step = people.step(Insert, &[row]).await;
        let applied = people.transact_with(&token(1, 0, sequence), &[step]).await.unwrap();
        assert_eq!(applied.is_some(), claimed, "{sequence}");
    }
    people.assert_rows(&rows![[1, "n", NULL], [3, "n", NULL], [4, "n", NULL]]).await;
}

/// Writers and lanes don't share tokens.
pub async fn writers_and_lanes_claim_by_themselves(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    for (id, token) in
        [(1, token(1, 0, 5)), (2, token(1, 1, 5)), (3, token(2, 0, 5)), (4, token(u128::MAX, u32::MAX, 1))]
    {
        let step = people.step(Insert, &[vec![id.into(), "n".into(), Value::Null]]).await;
        assert!(people.transact_with(&token, &[step]).await.unwrap().is_some(), "{token:?}");
    }
    // The table of tokens is Barge's own.
    assert_eq!(people.store.tables().await.unwrap(), [people.table.name().clone()]);
}

/// A claim goes with its transaction: after a rollback or a failure the token is free.
pub async fn a_claim_is_rolled_back(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let token = token(1, 0, 1);
    let mut transaction = people.store.begin().await.unwrap();
    assert!(transaction.claim(&token).await.unwrap());
    transaction.rollback().await.unwrap();
    let mut transaction = people.store.begin().await.unwrap();
    assert!(transaction.claim(&token).await.unwrap());
    drop(transaction);
    let bad = people.step(Insert, &rows![[1, "a", 1], [1, "b", 1]]).await;
    assert_eq!(failure(people.transact_with(&token, &[bad]).await).kind(), ErrorKind::UniqueViolation);
    let mut transaction = people.store.begin().await.unwrap();
    assert!(transaction.claim(&token).await.unwrap());
    transaction.apply(&people.step(Insert, &rows![[1, "a", 1]]).await).await.unwrap();
    transaction.commit().await.unwrap();
    let mut transaction = people.store.begin().await.unwrap();
    assert!(!transaction.claim(&token).await.unwrap());
}

/// A transaction describes what it made itself, and its description goes with it. Asking for a table that isn't there leaves it open.
pub async fn a_transaction_describes_tables_as_it_sees_them(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let made = table("made", [key("id", Int64), column("note", Utf8)]);
    let mut transaction = people.store.begin().await.unwrap();
    let before = transaction.describe(people.table.name()).await.unwrap();
    assert_eq!(before, people.store.describe(people.table.name()).await.unwrap());
    assert_eq!(failure(transaction.describe(made.name()).await).kind(), ErrorKind::MissingTable);
    assert!(transaction.is_open());
    transaction.execute(&people.store.create_table_sql(&made).unwrap()).await.unwrap();
    let description = transaction.describe(made.name()).await.unwrap();
    let columns: Vec<&str> = description.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!((columns, description.key), (vec!["id", "note"], vec!["id".to_owned()]));
    transaction.rollback().await.unwrap();
    assert_eq!(failure(people.store.describe(made.name()).await).kind(), ErrorKind::MissingTable);
    people.assert_rows(&[]).await;
}

/// Inside a transaction the same keys are equal as outside.
pub async fn a_transaction_compares_keys_as_the_store_does(harness: &dyn Harness) {
    let words = table("words", [key("word", Utf8)]);
    let ignores = kept(harness, Feature::IgnoreCase);
    let constraints = if ignores { Constraints::none().ignore_case("word") } else { Constraints::none() };
    let words = Fixture::new(harness, words, constraints).await;
    let target = words.target(Upsert).await;
    let keys = batch(words.table.columns(), &rows![["b"], ["a"], ["B"], ["b"]]);
    let outside = words.store.key_groups(&target, &keys).await.unwrap();
    let mut transaction = words.store.begin().await.unwrap();
    assert_eq!(transaction.key_groups(&target, &keys).await.unwrap(), outside);
    assert_eq!((outside[0] == outside[3], outside[0] == outside[2]), (true, ignores));
    transaction.rollback().await.unwrap();
}

/// Writers side by side come one after the other: each reads what the one before wrote, and none is lost.
pub async fn writers_are_serialised(harness: &dyn Harness) {
    if !kept(harness, Feature::OneWriter) {
        return;
    }
    const WRITERS: i64 = 8;
    const ROUNDS: i64 = 25;
    let people = Arc::new(Fixture::people(harness).await);
    people.insert(&rows![[1, "count", 0]]).await;
    let target = people.target(Update).await;
    let mut tasks = Vec::new();
    for _ in 0..WRITERS {
        let (people, target) = (people.clone(), target.clone());
        tasks.push(tokio::spawn(async move {
            let mut done = 0;
            while done < ROUNDS {
                match count_up(&people, &target).await {
                    Ok(()) => done += 1,
                    Err(error) => assert!(error.is_retryable(), "{error:?}"),
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    people.assert_rows(&rows![[1, "count", WRITERS * ROUNDS]]).await;
}

/// Reads the count of row 1 and writes the next, in one transaction.
async fn count_up(people: &Fixture, target: &Arc<Target>) -> Result<()> {
    let mut transaction = people.store.begin().await?;
    let row = people.get_in(transaction.as_mut(), &rows![[1]]).await.remove(0).unwrap();
    let next = Value::Int(row[2].as_int().unwrap() + 1);
    let batch = batch(&target.columns, &[vec![1.into(), "count".into(), next]]);
    transaction.apply(&Step { target: target.clone(), batch, outcomes: false }).await?;
    Ok(transaction.commit().await?)
}

/// Transactions given to `transact` by many tasks at once all happen, each once.
pub async fn transactions_of_many_tasks_all_happen(harness: &dyn Harness) {
    let people = Arc::new(Fixture::people(harness).await);
    let target = people.target(Insert).await;
    let mut tasks = Vec::new();
    for task in 0..16i64 {
        let (people, target) = (people.clone(), target.clone());
        tasks.push(tokio::spawn(async move {
            for round in 0..10i64 {
                let id = Value::from(1_000 + task * 10 + round);
                let batch = batch(&target.columns, &[vec![id, "n".into(), Value::Null]]);
                let step = Step { target: target.clone(), batch, outcomes: true };
                people.transact(&[step]).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let keys: Rows = (1_000..1_160).map(|id: i64| vec![id.into()]).collect();
    assert!(people.get(&keys).await.iter().all(Option::is_some));
}

/// A second writer waits for the first; one that gives up waiting doesn't stand in the way.
pub async fn a_second_writer_waits(harness: &dyn Harness) {
    if !kept(harness, Feature::OneWriter) {
        return;
    }
    let people = Fixture::people(harness).await;
    let step = people.step(Insert, &rows![[1, "a", 1]]).await;
    let mut first = people.store.begin().await.unwrap();
    first.apply(&step).await.unwrap();
    for _ in 0..3 {
        let second = tokio::time::timeout(Duration::from_millis(20), people.store.begin()).await;
        assert!(second.is_err(), "two transactions were open at once");
    }
    let waiting = people.store.transact(None, std::slice::from_ref(&step));
    assert!(tokio::time::timeout(Duration::from_millis(20), waiting).await.is_err());
    first.rollback().await.unwrap();
    // The transaction that was given up while it waited did not happen.
    people.assert_rows(&[]).await;
    people.transact(&[step]).await.unwrap();
    people.assert_rows(&rows![[1, "a", 1]]).await;
}

/// A `transact` dropped on its way happened whole or not at all, and the store goes on.
pub async fn a_dropped_transact_is_whole_or_nothing(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let rows: Rows = (1..=20).map(|id: i64| vec![id.into(), "n".into(), Value::Null]).collect();
    let delete = people.step(Delete, &rows.iter().map(|row| row[..1].to_vec()).collect::<Rows>()).await;
    let steps = [people.step(Insert, &rows[..10]).await, people.step(Insert, &rows[10..]).await];
    for polls in 0..12 {
        let mut transact = Box::pin(people.store.transact(None, &steps));
        for _ in 0..polls {
            if polled(&mut transact).await.is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(transact);
        // The next transaction comes after the dropped one, whatever became of it.
        people.store.begin().await.unwrap().commit().await.unwrap();
        let keys: Rows = rows.iter().map(|row| row[..1].to_vec()).collect();
        let there = people.get(&keys).await.iter().flatten().count();
        assert!(there == 0 || there == 20, "{there} rows of 20, dropped after {polls} polls");
        people.transact(std::slice::from_ref(&delete)).await.unwrap();
    }
}

/// Polls a future once.
async fn polled<T>(mut future: impl Future<Output = T> + Unpin) -> Option<T> {
    std::future::poll_fn(|context| match std::pin::Pin::new(&mut future).poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// After `close` everything is `Closed`, and `close` may be called again.
pub async fn a_closed_store_says_so(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let step = people.step(Insert, &rows![[1, "a", 1]]).await;
    people.transact(std::slice::from_ref(&step)).await.unwrap();
    let store = people.store.clone();
    store.close().await.unwrap();
    let kinds = [
        failure(store.begin().await.map(|_| ())).kind(),
        failure(store.transact(None, &[step]).await).kind(),
        failure(store.look_up(people.look_up(&rows![[1]])).await).kind(),
        failure(store.describe(people.table.name()).await).kind(),
        failure(store.tables().await).kind(),
    ];
    assert_eq!(kinds, [ErrorKind::Closed; 5]);
    if kept(harness, Feature::Sql) {
        assert_eq!(failure(store.query(Query::new("SELECT 1")).await).kind(), ErrorKind::Closed);
    }
    store.close().await.unwrap();
}

/// `close` waits for the transaction that is open, which may still commit.
pub async fn close_waits_for_the_open_transaction(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let step = people.step(Insert, &rows![[1, "a", 1]]).await;
    let mut transaction = people.store.begin().await.unwrap();
    let store = people.store.clone();
    let closing = tokio::spawn(async move { store.close().await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!closing.is_finished(), "the store closed under an open transaction");
    transaction.apply(&step).await.unwrap();
    transaction.commit().await.unwrap();
    closing.await.unwrap().unwrap();
}
