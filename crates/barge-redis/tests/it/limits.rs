//! Servers that refuse: full, loading, replicas, busy.

use std::sync::Arc;

use barge_core::ErrorKind;
use barge_core::cache::{Lease, SharedTier};
use barge_redis::RedisTier;
use barge_testkit::servers;
use bytes::Bytes;

use crate::support::{LONG, get, key, lease, put};

#[tokio::test]
async fn a_full_server_refuses_values_and_still_invalidates() {
    let server = servers::own_redis();
    let tier = RedisTier::open(&server.url()).unwrap();
    put(&tier, "a", "old").await.unwrap();
    assert_eq!(lease(&tier, "b", "one").await.unwrap(), Lease::Granted);
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);

    for error in [
        put(&tier, "c", "value").await.unwrap_err(),
        tier.mark(&[("m".into(), "mark".into())], LONG).await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.code()), (ErrorKind::DiskFull, Some("OOM")), "{error}");
    }
    assert_eq!(get(&tier, "a").await.unwrap().as_deref(), Some("old"));
    tier.invalidate(&[key("a"), key("b")].concat(), LONG).await.unwrap();
    assert_eq!(get(&tier, "a").await.unwrap(), None);

    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(lease(&tier, "a", "two").await.unwrap(), Lease::Barred);
    assert_eq!(lease(&tier, "b", "two").await.unwrap(), Lease::Barred);
}

#[tokio::test]
async fn a_server_that_evicts_goes_on() {
    let server = servers::own_redis_with(&["--maxmemory", "4mb", "--maxmemory-policy", "allkeys-lru"]);
    let tier = RedisTier::open(&server.url()).unwrap();
    let value = "x".repeat(10_000);
    for number in 0..1_000 {
        put(&tier, &number.to_string(), &value).await.unwrap();
    }
    let names: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
    let left = tier.read(&names).await.unwrap().iter().flatten().count();
    assert!(left > 0 && left < 500, "{left}");
}

#[tokio::test]
async fn a_replica_refuses_writes() {
    let server = servers::own_redis();
    let tier = RedisTier::open(&server.url()).unwrap();
    put(&tier, "a", "value").await.unwrap();
    // Of nobody who answers; it serves what it has.
    server.command(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(get(&tier, "a").await.unwrap().as_deref(), Some("value"));
    let error = tier.invalidate(&key("a"), LONG).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::ConnectionLost, Some("READONLY")), "{error}");
    server.command(&["REPLICAOF", "NO", "ONE"]);
    tier.invalidate(&key("a"), LONG).await.unwrap();
}

#[tokio::test]
async fn a_server_that_reads_what_it_kept_is_busy() {
    // Two milliseconds for each key, and clients are looked after in between.
    let server = servers::own_redis_with(&[
        "--key-load-delay",
        "2000",
        "--loading-process-events-interval-bytes",
        "1024",
        "--rdbcompression",
        "no",
    ]);
    let tier = RedisTier::open(&server.url()).unwrap();
    let value = Bytes::from(vec![b'x'; 2_000]);
    let marks: Vec<(String, Bytes)> = (0..300).map(|number| (number.to_string(), value.clone())).collect();
    tier.mark(&marks, LONG).await.unwrap();
    server.command(&["SAVE"]);
    server.kill();
    let mut busy = 0;
    let server = Arc::new(server);
    let starting = std::thread::spawn({
        let server = Arc::clone(&server);
        move || server.start()
    });
    while !starting.is_finished() {
        match get(&tier, "7").await {
            Err(error) if error.code() == Some("LOADING") => {
                assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
                busy += 1;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{error}"),
            Ok(_) => {}
        }
    }
    starting.join().unwrap();
    assert!(busy > 0);
    assert_eq!(get(&tier, "7").await.unwrap().unwrap().len(), 2_000);
}

#[tokio::test]
async fn too_many_clients_are_told_so() {
    let server = servers::own_redis_with(&["--maxclients", "2"]);
    let tiers: Vec<RedisTier> = (0..4).map(|_| RedisTier::open(&server.url()).unwrap()).collect();
    let mut refused = 0;
    for tier in &tiers {
        if let Err(error) = tier.ping().await {
            assert!([ErrorKind::Busy, ErrorKind::ConnectionLost].contains(&error.kind()), "{error}");
            refused += 1;
        }
    }
    assert!(refused >= 2, "{refused}");
}
