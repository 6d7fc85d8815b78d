//! One flush, cut at each message in turn.

use std::sync::Arc;

use barge_core::Database;
use barge_postgres::PostgresStore;
use barge_testkit::servers::{FaultPoint, Way};

use super::work::{Work, run};
use super::{Place, patient};

/// One flush, of which every message in turn is the last that gets through: from the client or to it, each step of it is cut.
async fn cut_at_every_message(flush: impl Fn(i64) -> Work) {
    let place = Place::new().await;
    let mut seed = 0;
    let mut one_flush = async |store: &Arc<PostgresStore>, fault: Option<FaultPoint>| {
        seed += 1;
        let work = flush(seed);
        // A writer that waits for nothing but `flush` makes one batch of all.
        let db = Database::over(Arc::clone(store) as Arc<dyn barge_core::Store>);
        if let Some(fault) = &fault {
            place.proxy.fail(fault.clone());
        }
        let before = place.proxy.counts();
        let run = run(&db, &work, async || place.proxy.heal()).await;
        run.check_all(&place.side).await;
        (place.proxy.counts().since(before), run.report.statistics.retries)
    };
    let statement_cache = flush(0).statement_cache;
    let store = place.store(statement_cache).await;
    one_flush(&store, None).await;
    let (counts, _) = one_flush(&store, None).await;
    let mut retries = 0;
    for way in [Way::ToServer, Way::ToClient] {
        let messages = counts.of(way).messages;
        // A row that is searched for is asked after again and again: of answers some are enough.
        let step = if way == Way::ToClient { (messages / 25).max(1) } else { 1 };
        for message in (0..messages).step_by(step as usize) {
            retries += one_flush(&store, Some(FaultPoint::AfterMessages(way, message))).await.1;
        }
    }
    let commits = [FaultPoint::BeforeCommit, FaultPoint::AfterCommit];
    for fault in commits {
        let (_, tried_again) = one_flush(&store, Some(fault.clone())).await;
        assert!(tried_again > 0, "{fault:?} was not noticed");
    }
    assert!(retries > 10, "{retries} retries: the faults were not noticed");
}

/// One flush of so many lines, and other rows where `mixed`.
fn one_flush(lines: i64) -> Work {
    Work {
        seed: 0,
        tasks: 1,
        lines,
        burst: lines,
        bad: false,
        mixed: false,
        max_rows: 10_000,
        unordered: 1,
        atomic: false,
        statement_cache: 0,
        retry: patient(),
    }
}

#[tokio::test]
async fn every_message_of_an_insert_can_be_the_last() {
    cut_at_every_message(|seed| Work { seed: seed as u64, ..one_flush(20) }).await;
}

#[tokio::test]
async fn every_message_of_an_insert_with_kept_statements_can_be_the_last() {
    cut_at_every_message(|seed| Work { seed: seed as u64, statement_cache: 16, ..one_flush(20) }).await;
}

#[tokio::test]
async fn every_message_of_a_copy_can_be_the_last() {
    cut_at_every_message(|seed| Work { seed: seed as u64, ..one_flush(300) }).await;
}

#[tokio::test]
async fn every_message_of_a_flush_of_several_tables_can_be_the_last() {
    cut_at_every_message(|seed| Work { seed: seed as u64, mixed: true, burst: 5, ..one_flush(20) }).await;
}

#[tokio::test]
async fn every_message_of_a_flush_with_bad_rows_can_be_the_last() {
    cut_at_every_message(|seed| Work {
        seed: seed as u64,
        bad: true,
        mixed: true,
        burst: 10,
        ..one_flush(20)
    })
    .await;
}

#[tokio::test]
async fn every_message_of_a_copy_with_bad_rows_can_be_the_last() {
    cut_at_every_message(|seed| Work { seed: seed as u64, bad: true, ..one_flush(300) }).await;
}
