//! A network that is silent: nothing comes through, and neither side is told that the other is gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use barge_core::{Database, ErrorKind, Retry};
use barge_postgres::PostgresOptions;

use super::checks::is_in_doubt;
use super::work::{Work, run};
use super::{Line, Place, Random, come_to, in_time, patient, seeds};

/// Falls silent so many times, or until the rows are written. Every other silence ends as one does that TCP was not willing to wait for: the
/// connections are lost with all that was on its way. Returns how often it was silent.
async fn fall_silent(place: &Place, random: &mut Random, times: u64, written: &AtomicBool) -> u64 {
    let proxy = &place.proxy;
    for silence in 0..times {
        // Messages and not a time, so that a slow machine's silences interrupt the same.
        let (before, messages) = (proxy.counts(), random.below(100));
        come_to(written, || proxy.counts().since(before).to_server.messages >= messages).await;
        if written.load(Ordering::Relaxed) {
            return silence;
        }
        proxy.silence();
        come_to(written, || proxy.holds()).await;
        tokio::time::sleep(Duration::from_millis(random.below(40))).await;
        if random.below(2) == 0 {
            proxy.cut();
        }
        proxy.resume();
    }
    times
}

#[tokio::test]
async fn no_row_is_lost_or_written_twice_over_a_network_that_falls_silent() {
    let place = Place::new().await;
    let (mut silences, mut retries) = (0, 0);
    for seed in seeds(500..530) {
        let work = Work::from_seed(seed, 1 + 2 * (seed as usize % 2));
        let db = Database::over(place.store(work.statement_cache).await);
        let mut random = Random(!seed);
        let (written, times) = (AtomicBool::new(false), 2 + random.below(10));
        let (run, silent) = tokio::join!(
            run(&db, &work, async || written.store(true, Ordering::Relaxed)),
            fall_silent(&place, &mut random, times, &written)
        );
        run.check_all(&place.side).await;
        silences += silent;
        retries += run.report.statistics.retries;
    }
    assert!(
        retries > silences / 4 || std::env::var_os("BARGE_FAULT_SEED").is_some(),
        "{retries} retries in {silences} silences: they came while nothing was on its way"
    );
}

/// What was sent is neither given up nor sent again while TCP still waits: it is done when the network is back.
#[tokio::test]
async fn a_flush_that_a_silence_interrupts_goes_on_when_the_network_is_back() {
    let place = Place::new().await;
    let writer = Database::over(place.store(0).await).writer().retry(patient()).start();
    writer.insert(&Line { id: 1, n: 1 }).await.unwrap().await.unwrap();
    place.proxy.silence();
    let mut receipt = std::pin::pin!(writer.insert(&Line { id: 2, n: 2 }).await.unwrap());
    let silence = tokio::time::timeout(Duration::from_millis(300), &mut receipt).await;
    assert!(silence.is_err(), "answered {silence:?} by nobody");
    place.proxy.resume();
    in_time("a network that is back", receipt).await.unwrap();
    let report = writer.close().await.unwrap();
    assert_eq!((report.statistics.committed, report.statistics.retries), (2, 0));
    assert_eq!(place.lines().await, [1, 2]);
}

/// A connection that was idle is tried before it is used, and a new one has its time to connect: so a network that is silent from before a flush
/// is known, and nothing is in doubt.
#[tokio::test]
async fn a_network_that_was_silent_before_a_flush_is_not_waited_for_without_end() {
    let place = Place::new().await;
    let options = PostgresOptions::from_url(&place.proxy.url()).unwrap();
    let options = options.idle_check(Duration::ZERO).connect_timeout(Duration::from_millis(500));
    let db = Database::new(options.open().await.unwrap());
    let retry = Retry { limit: Duration::from_secs(1), ..patient() };
    let writer = db.writer().retry(retry).start();
    writer.insert(&Line { id: 1, n: 1 }).await.unwrap().await.unwrap();
    place.proxy.silence();
    let receipt = writer.insert(&Line { id: 2, n: 2 }).await.unwrap();
    let error = in_time("a silent network", receipt).await.unwrap_err();
    assert!(error.kind() == ErrorKind::ConnectionLost && !is_in_doubt(&error), "{error:?}");
    // Nor does anything else wait for it without end.
    let error = in_time("a silent network", db.begin()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{error:?}");
    place.proxy.resume();
    writer.insert(&Line { id: 3, n: 3 }).await.unwrap().await.unwrap();
    let report = writer.close().await.unwrap();
    assert_eq!((report.statistics.committed, report.statistics.rejected), (2, 1));
    assert_eq!(place.lines().await, [1, 3]);
}
