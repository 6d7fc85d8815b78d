use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use barge_core::{Batcher, Error, ErrorKind, Requests, Retry};

#[tokio::test(start_paused = true)]
async fn requests_that_come_while_a_batch_is_handled_form_the_next() {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sizes);
    let batcher = Batcher::builder(move |requests: Requests<u32>| {
        seen.lock().unwrap().push(requests.len());
        async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(requests.iter().map(|request| Ok(request * 2)).collect())
        }
    })
    .start()
    .unwrap();
    let calls = (0..100_u32).map(|request| {
        let batcher = batcher.clone();
        tokio::spawn(async move { batcher.call(request).await.unwrap() })
    });
    let calls: Vec<_> = calls.collect();
    for (request, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), request as u32 * 2);
    }
    let statistics = batcher.close().await;
    assert_eq!(sizes.lock().unwrap().iter().sum::<usize>(), 100);
    assert!(statistics.flushes <= 3, "{statistics:?}");
    assert_eq!(statistics.round_trips_saved, 100 - statistics.flushes);
}

#[tokio::test(start_paused = true)]
async fn a_failed_batch_is_handled_again_in_its_order_before_later_requests() {
    let handled = Arc::new(Mutex::new(Vec::new()));
    let failures = Arc::new(AtomicU32::new(3));
    let log = Arc::clone(&handled);
    let batcher = Batcher::builder(move |requests: Requests<u32>| {
        let fails =
            failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        let log = Arc::clone(&log);
        async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if fails {
                return Err(Error::handler("the service is away", true));
            }
            log.lock().unwrap().extend_from_slice(&requests);
            Ok(requests.iter().map(|_| Ok(())).collect())
        }
    })
    .max_rows(4)
    .start()
    .unwrap();
    let mut answers = Vec::new();
    for request in 0..10 {
        answers.push(batcher.submit(request).await.unwrap());
    }
    for answer in answers {
        answer.await.unwrap();
    }
    assert_eq!(*handled.lock().unwrap(), (0..10).collect::<Vec<_>>());
    assert_eq!(batcher.close().await.retries, 3);
}

#[tokio::test]
async fn a_request_can_fail_alone_a_batch_can_fail_and_a_panic_is_no_end() {
    let batcher = Batcher::builder(|requests: Requests<i32>| async move {
        assert!(!requests.contains(&-1), "the handler's own bug");
        if requests.contains(&0) {
            return Err(Error::handler("no zero", false));
        }
        let answer = |request: &i32| match request % 2 {
            0 => Ok(*request),
            _ => Err(Error::handler(format!("{request} is odd"), false)),
        };
        Ok(requests.iter().map(answer).collect())
    })
    .retry(Retry::never())
    .start()
    .unwrap();
    assert_eq!(batcher.call(2).await.unwrap(), 2);
    assert_eq!(batcher.call(3).await.unwrap_err().to_string(), "3 is odd");
    assert_eq!(batcher.call(0).await.unwrap_err().to_string(), "no zero");
    let panicked = batcher.call(-1).await.unwrap_err();
    assert_eq!((panicked.kind(), panicked.to_string().contains("panicked")), (ErrorKind::Handler, true));
    assert_eq!(batcher.call(4).await.unwrap(), 4);
    let statistics = batcher.close().await;
    assert_eq!((statistics.committed, statistics.rejected, statistics.failed_flushes), (2, 3, 2));
    assert_eq!(batcher.call(4).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn too_few_answers_are_an_error_for_all() {
    let batcher = Batcher::builder(|_: Requests<u8>| async { Ok(Vec::<barge_core::Result<u8>>::new()) });
    let batcher = batcher.start().unwrap();
    let error = batcher.call(1).await.unwrap_err();
    assert!(error.to_string().contains("0 answers to 1 requests"), "{error}");
}
