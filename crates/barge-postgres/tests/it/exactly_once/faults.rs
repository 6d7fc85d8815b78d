//! Connections that are lost again and again while several tasks write.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use barge_core::{Database, ErrorKind, Retry};
use barge_testkit::servers::{FaultPoint, Way};

use super::checks::is_in_doubt;
use super::work::{Work, run};
use super::{Place, Random, come_to, patient, seeds};

/// Loses connections, one after another, until so many are lost or the rows are written.
async fn lose_connections(place: &Place, random: &mut Random, times: u64, written: &AtomicBool) {
    let proxy = &place.proxy;
    for _ in 0..times {
        if written.load(Ordering::Relaxed) {
            break;
        }
        match random.below(10) {
            0 => proxy.fail(FaultPoint::BeforeCommit),
            1 | 2 => proxy.fail(FaultPoint::AfterCommit),
            3 => proxy.fail(FaultPoint::AfterMessages(Way::ToServer, random.below(40))),
            4 => proxy.fail(FaultPoint::AfterMessages(Way::ToClient, random.below(40))),
            5 => proxy.fail(FaultPoint::AfterBytes(Way::ToServer, random.below(4_000))),
            6 => proxy.fail(FaultPoint::AfterBytes(Way::ToClient, random.below(1_000))),
            7 | 8 => {
                tokio::time::sleep(Duration::from_micros(random.below(6_000))).await;
                place.terminate().await;
                continue;
            }
            _ => {
                proxy.down();
                proxy.cut();
                tokio::time::sleep(Duration::from_millis(random.below(30))).await;
                proxy.up();
                continue;
            }
        }
        come_to(written, || proxy.has_failed()).await;
    }
    proxy.heal();
}

/// Faults that pass. Returns how often a flush was tried again.
async fn faults_that_pass(range: Range<u64>, unordered: usize) {
    let place = Place::new().await;
    let (mut runs, mut retries) = (0, 0);
    for seed in seeds(range) {
        let work = Work::from_seed(seed, unordered);
        let db = Database::over(place.store(work.statement_cache).await);
        let mut random = Random(!seed);
        let written = AtomicBool::new(false);
        let times = 1 + random.below(6);
        let (run, ()) = tokio::join!(
            run(&db, &work, async || written.store(true, Ordering::Relaxed)),
            lose_connections(&place, &mut random, times, &written)
        );
        run.check_all(&place.side).await;
        runs += 1;
        retries += run.report.statistics.retries;
    }
    // A transaction that was cut off and ended only later changed nothing either.
    let sql = "SELECT id FROM lines GROUP BY id HAVING count(*) > 1";
    assert_eq!(place.side.query(sql, &[]).await.unwrap().len(), 0, "lines that came twice, later");
    // Some come while nothing is on its way.
    assert!(runs < 20 || retries > runs / 8, "{retries} retries in {runs} runs: the faults came too late");
}

// Several tests, so that they run side by side.
#[tokio::test]
async fn no_row_is_lost_or_written_twice_in_seeds_from_0() {
    faults_that_pass(0..60, 1).await;
}

#[tokio::test]
async fn no_row_is_lost_or_written_twice_in_seeds_from_60() {
    faults_that_pass(60..120, 1).await;
}

#[tokio::test]
async fn no_row_is_lost_or_written_twice_in_seeds_from_120() {
    faults_that_pass(120..180, 1).await;
}

#[tokio::test]
async fn no_row_is_lost_or_written_twice_with_three_flushes_in_flight() {
    faults_that_pass(180..240, 3).await;
}

/// Retries that are given up early, or not begun: what is answered is true all the same.
#[tokio::test]
async fn answers_are_true_where_retries_run_out() {
    let place = Place::new().await;
    let (mut failed, mut in_doubt) = (0, 0);
    for seed in seeds(240..320) {
        let limit = Duration::from_millis(seed % 4 * 3);
        let retry = Retry { limit, ..patient() };
        let work = Work { retry, ..Work::from_seed(seed, 1 + 2 * (seed as usize % 2)) };
        let db = Database::over(place.store(work.statement_cache).await);
        let mut random = Random(!seed);
        let written = AtomicBool::new(false);
        let (run, ()) = tokio::join!(
            run(&db, &work, async || written.store(true, Ordering::Relaxed)),
            lose_connections(&place, &mut random, 6, &written)
        );
        run.check_answers(&place.side).await;
        let errors = run.errors();
        failed += errors.iter().filter(|error| error.kind() == ErrorKind::ConnectionLost).count();
        in_doubt += errors.iter().filter(|error| is_in_doubt(error)).count();
        // After doubt, and only then, the writer takes nothing more.
        let poisoned = errors.iter().any(|error| is_in_doubt(error));
        let refused = (run.lines.len() as i64) < work.tasks * work.lines + 1;
        assert!(poisoned || !refused, "{work}: refused without doubt");
    }
    if std::env::var_os("BARGE_FAULT_SEED").is_none() {
        assert!(
            failed > in_doubt && in_doubt > 0,
            "{failed} rows failed, {in_doubt} in doubt: too few to tell"
        );
    }
}
