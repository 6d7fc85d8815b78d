//! Servers that are away, come back, or say nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use barge_core::ErrorKind;
use barge_core::cache::{Lease, SharedTier};
use barge_redis::RedisTier;
use barge_testkit::servers::{self, Reply};
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{LONG, get, key, lease, put, until_ok};

#[tokio::test]
async fn a_server_that_is_down_is_no_reason_not_to_open() {
    let server = servers::own_redis();
    server.kill();
    let tier = RedisTier::open(&server.url()).unwrap();
    let began = Instant::now();
    for error in [tier.ping().await.unwrap_err(), get(&tier, "a").await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{error}");
        assert!(error.is_retryable() && error.to_string().contains(&server.port().to_string()), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "a refused connection is told at once");

    server.start();
    tier.ping().await.unwrap();
    put(&tier, "a", "value").await.unwrap();
    assert_eq!(get(&tier, "a").await.unwrap().as_deref(), Some("value"));
}

#[tokio::test]
async fn a_server_that_was_restarted_costs_no_call() {
    let server = servers::own_redis();
    let tier = RedisTier::open(&server.url()).unwrap();
    for round in 0..5 {
        // Its scripts are forgotten, too.
        put(&tier, "a", "value").await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(get(&tier, "a").await.unwrap().as_deref(), Some("value"));
        server.kill();
        server.start();
        assert_eq!(get(&tier, "a").await.unwrap_or_else(|error| panic!("round {round}: {error}")), None);
    }
}

#[tokio::test]
async fn calls_under_way_fail_when_the_server_is_killed_and_later_ones_succeed() {
    let server = servers::own_redis();
    let tier = RedisTier::open(&server.url()).unwrap();
    put(&tier, "a", "value").await.unwrap();
    server.pause();
    let name = key("a");
    let calls = join_all((0..50).map(|_| tier.read(&name)));
    let killed = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.kill();
    };
    let (answers, ()) = tokio::join!(calls, killed);
    for error in answers.into_iter().map(Result::unwrap_err) {
        assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{error}");
    }
    server.start();
    assert_eq!(get(&tier, "a").await.unwrap(), None);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_in_time() {
    let server = servers::own_redis();
    let tier =
        RedisTier::open(&format!("{}?response_timeout=200ms&connect_timeout=300ms", server.url())).unwrap();
    put(&tier, "a", "value").await.unwrap();
    server.pause();
    for _ in 0..2 {
        let began = Instant::now();
        let names = key("a");
        // Many at once wait no longer than one.
        let answers = join_all((0..20).map(|_| tier.read(&names))).await;
        for error in answers.into_iter().map(Result::unwrap_err) {
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        }
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(200) && took < Duration::from_millis(2_500), "{took:?}");
    }
    let error = tier.invalidate(&key("a"), LONG).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    server.resume();
    tier.ping().await.unwrap();
    // What was sent while nobody listened may yet happen.
    let _ = get(&tier, "a").await.unwrap();
}

/// A host that swallows everything, as behind a firewall: an address that nobody has.
#[tokio::test]
async fn a_server_that_never_accepts_is_given_up_in_time() {
    // A queue of one that is full: the system answers no further connection.
    let listener = tokio::net::TcpSocket::new_v4().unwrap();
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listener.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let _full: Vec<_> = (0..4).map(|_| tokio::spawn(tokio::net::TcpStream::connect(address))).collect();
    tokio::time::sleep(Duration::from_millis(100)).await;

    let tier =
        RedisTier::open(&format!("redis://{address}?connect_timeout=200ms&response_timeout=200ms")).unwrap();
    let began = Instant::now();
    let names = key("a");
    for answer in join_all((0..20).map(|_| tier.read(&names))).await {
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Timeout);
    }
    assert!(began.elapsed() < Duration::from_millis(2_500), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_a_server_kept_from_before_is_read_again() {
    let server = servers::own_redis();
    let tier = RedisTier::open(&server.url()).unwrap();
    put(&tier, "a", "old").await.unwrap();
    assert_eq!(lease(&tier, "b", "old").await.unwrap(), Lease::Granted);
    server.save_aside();
    tier.invalidate(&[key("a"), key("b")].concat(), LONG).await.unwrap();
    assert_eq!(get(&tier, "a").await.unwrap(), None);

    server.go_back();
    assert_eq!(get(&tier, "a").await.unwrap().as_deref(), Some("old"));
    assert_eq!(lease(&tier, "b", "new").await.unwrap(), Lease::Held);
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_sent_again() {
    let server = servers::own_redis();
    let tier = RedisTier::open(&server.url()).unwrap();
    for round in 0..3 {
        server.command(&["SCRIPT", "FLUSH"]);
        put(&tier, "a", &round.to_string()).await.unwrap();
        assert_eq!(get(&tier, "a").await.unwrap(), Some(round.to_string()));
        tier.invalidate(&key("b"), LONG).await.unwrap();
    }
    assert_eq!(lease(&tier, "b", "one").await.unwrap(), Lease::Barred);
}

#[tokio::test]
async fn keys_are_as_they_are_documented() {
    let server = servers::own_redis();
    let tier = RedisTier::open(&server.url()).unwrap();
    put(&tier, "orders/7", "value").await.unwrap();
    lease(&tier, "orders/8", "token").await.unwrap();
    tier.invalidate(&key("orders/9"), LONG).await.unwrap();
    let text = |command: &[&str]| server.command(command).text().to_owned();
    assert_eq!(text(&["GET", "barge:{=orders/7}"]), "value");
    assert_eq!(text(&["GET", "barge:{=orders/8}lease"]), "by token");
    assert_eq!(text(&["GET", "barge:{=orders/9}lease"]), "barred");
    assert_eq!(server.command(&["DBSIZE"]), Reply::Number(3));
    for name in ["barge:{=orders/7}", "barge:{=orders/8}lease", "barge:{=orders/9}lease"] {
        let left = server.command(&["PTTL", name]).number();
        assert!(left > 500_000 && left <= 600_000, "{name}: {left}");
    }
}

#[tokio::test]
async fn databases_and_prefixes_are_worlds_of_their_own() {
    let server = servers::own_redis();
    let tiers = ["/0", "/3", "/3?prefix=other:"].map(|end| RedisTier::open(&(server.url() + end)).unwrap());
    for (number, tier) in tiers.iter().enumerate() {
        assert_eq!(get(tier, "a").await.unwrap(), None);
        put(tier, "a", &number.to_string()).await.unwrap();
    }
    for (number, tier) in tiers.iter().enumerate() {
        assert_eq!(get(tier, "a").await.unwrap(), Some(number.to_string()));
    }
    let error = get(&RedisTier::open(&(server.url() + "/99")).unwrap(), "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
}

/// Each test's runtime may end before the cache: a connection goes with the runtime that it was made in.
#[test]
fn a_cache_outlives_a_runtime() {
    let server = servers::own_redis();
    let tier = RedisTier::open(&server.url()).unwrap();
    for round in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            put(&tier, "a", &round.to_string()).await.unwrap();
            assert_eq!(get(&tier, "a").await.unwrap(), Some(round.to_string()));
        });
    }
}

#[tokio::test]
async fn a_closed_cache_leaves_no_connection() {
    let server = servers::own_redis();
    let tier = RedisTier::open(&server.url()).unwrap();
    put(&tier, "a", "value").await.unwrap();
    let clients = || server.command(&["CLIENT", "LIST"]).text().lines().count();
    assert_eq!(clients(), 2, "the cache and this question");
    tier.clone().close().await;
    until_ok(async || if clients() == 1 { Ok(()) } else { Err(std::io::Error::other("still open").into()) })
        .await;
    assert_eq!(get(&tier, "a").await.unwrap_err().kind(), ErrorKind::Closed);
}

/// A made-up server that answers each read with one `OK`, and before the first answer of each connection does `before`, which is told how many
/// connections there were before. Gives its address, and how many connections it accepted.
async fn server_that<F: Future<Output = ()> + Send>(
    before: impl Fn(usize) -> F + Clone + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (number, before) = (count.fetch_add(1, Ordering::Relaxed), before.clone());
            tokio::spawn(async move {
                let mut commands = [0; 1_024];
                let mut is_first = true;
                while stream.read(&mut commands).await.is_ok_and(|read| read > 0) {
                    if std::mem::take(&mut is_first) {
                        before(number).await;
                    }
                    stream.write_all(b"+OK\r\n").await.unwrap();
                }
            });
        }
    });
    (address, accepted)
}

/// Pings until it succeeds, giving up each call after that time.
async fn ping_impatiently(tier: &RedisTier, patience: Duration) {
    until_ok(async || match tokio::time::timeout(patience, tier.ping()).await {
        Ok(answer) => answer,
        Err(_) => Err(barge_core::Error::new(ErrorKind::Timeout, "given up")),
    })
    .await;
}

/// A look-up gives a shared cache less time than a connection may take, as to a server far away.
#[tokio::test]
async fn a_connection_is_made_though_each_call_gives_up_before() {
    // The first answer is to the log-in.
    let (address, accepted) = server_that(|_| tokio::time::sleep(Duration::from_millis(300))).await;
    let tier = RedisTier::open(&format!("redis://:secret@{address}")).unwrap();
    ping_impatiently(&tier, Duration::from_millis(100)).await;
    assert_eq!(accepted.load(Ordering::Relaxed), 1, "all waited for one attempt");
}

/// A look-up gives a shared cache less time than its answers may take. A connection over which nothing comes any more, as after a failover behind a
/// firewall, is left all the same.
#[tokio::test]
async fn a_connection_that_says_nothing_is_left_though_each_call_gives_up_before() {
    let nothing_on_the_first = |number| async move {
        if number == 0 {
            std::future::pending().await
        }
    };
    let (address, accepted) = server_that(nothing_on_the_first).await;
    let tier = RedisTier::open(&format!("redis://{address}?response_timeout=500ms")).unwrap();
    ping_impatiently(&tier, Duration::from_millis(50)).await;
    assert_eq!(accepted.load(Ordering::Relaxed), 2, "the first was given its time, and no more");
}
