//! Clusters whose keys move and whose nodes die.

use std::time::{Duration, Instant};

use barge_core::cache::SharedTier;
use barge_core::{ErrorKind, Result};
use barge_redis::RedisTier;
use barge_testkit::servers::{self, OwnRedis, OwnRedisCluster};

use crate::support::{LONG, get, key, put, until_ok};

/// Keys enough for every node to have some.
fn names() -> Vec<String> {
    (0..300).map(|number| format!("key {number}")).collect()
}

async fn put_all(tier: &RedisTier, value: &str) -> Result<()> {
    for name in names() {
        put(tier, &name, value).await?;
    }
    Ok(())
}

async fn count(tier: &RedisTier) -> Result<usize> {
    Ok(tier.read(&names()).await?.iter().flatten().count())
}

fn slot_of(node: &OwnRedis, name: &str) -> u16 {
    node.command(&["CLUSTER", "KEYSLOT", &format!("barge:{{={name}}}")]).number().try_into().unwrap()
}

/// A key on a node, as the cluster was made.
fn key_on(cluster: &OwnRedisCluster, node: usize) -> String {
    let is_there = |name: &String| cluster.slots(node).contains(&slot_of(&cluster.nodes()[0], name));
    names().into_iter().find(is_there).unwrap()
}

fn id_of(node: &OwnRedis) -> String {
    node.command(&["CLUSTER", "MYID"]).text().to_owned()
}

#[tokio::test]
async fn one_node_tells_of_the_others() {
    let cluster = servers::own_redis_cluster();
    let port = cluster.nodes()[1].port();
    let tier = RedisTier::open(&format!("redis-cluster://127.0.0.1:1,127.0.0.1:{port}")).unwrap();
    tier.ping().await.unwrap();
    put_all(&tier, "value").await.unwrap();
    assert_eq!(count(&tier).await.unwrap(), names().len());
    for node in cluster.nodes() {
        assert!(node.command(&["DBSIZE"]).number() > 50);
    }

    let single = RedisTier::open(&cluster.nodes()[0].url()).unwrap();
    let error = get(&single, &key_on(&cluster, 2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert!(error.to_string().contains("redis-cluster://"), "{error}");
    let server = servers::own_redis();
    let tier = RedisTier::open(&server.url().replace("redis:", "redis-cluster:")).unwrap();
    assert_eq!(tier.ping().await.unwrap_err().kind(), ErrorKind::InvalidConfig);
}

#[tokio::test]
async fn a_user_of_a_cluster_needs_what_is_documented() {
    let cluster = servers::own_redis_cluster();
    let rule =
        "ACL SETUSER shop on >secret ~barge:* +get +set +del +eval +evalsha +ping +cluster|slots +asking";
    for node in cluster.nodes() {
        node.command(&rule.split(' ').collect::<Vec<_>>());
    }
    let tier = RedisTier::open(&cluster.url().replace("://", "://shop:secret@")).unwrap();
    tier.ping().await.unwrap();
    put_all(&tier, "value").await.unwrap();
    assert_eq!(count(&tier).await.unwrap(), names().len());
    tier.invalidate(&names(), LONG).await.unwrap();
    assert_eq!(count(&tier).await.unwrap(), 0);
    let error = RedisTier::open(&cluster.url().replace("://", "://shop:wrong@")).unwrap().ping().await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Permission);
}

#[tokio::test]
async fn a_slot_that_moves_is_followed() {
    let cluster = servers::own_redis_cluster();
    let tier = RedisTier::open(&cluster.url()).unwrap();
    put_all(&tier, "value").await.unwrap();
    let name = key_on(&cluster, 0);
    let [from, to, _] = cluster.nodes() else { panic!("three nodes") };
    let slot = slot_of(from, &name);

    // About to move: what is still there is answered there, the rest (ASK) where it goes.
    to.command(&["CLUSTER", "SETSLOT", &slot.to_string(), "IMPORTING", &id_of(from)]);
    from.command(&["CLUSTER", "SETSLOT", &slot.to_string(), "MIGRATING", &id_of(to)]);
    assert_eq!(get(&tier, &name).await.unwrap().as_deref(), Some("value"));
    from.command(&[
        "MIGRATE",
        "127.0.0.1",
        &to.port().to_string(),
        &format!("barge:{{={name}}}"),
        "0",
        "5000",
    ]);
    assert_eq!(get(&tier, &name).await.unwrap().as_deref(), Some("value"));
    put(&tier, &name, "newer").await.unwrap();
    assert_eq!(count(&tier).await.unwrap(), names().len());
    assert_eq!(get(&tier, &name).await.unwrap().as_deref(), Some("newer"));

    // Moved: MOVED.
    for node in [to, from] {
        node.command(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &id_of(to)]);
    }
    for _ in 0..2 {
        assert_eq!(count(&tier).await.unwrap(), names().len());
        tier.invalidate(&key(&name), Duration::from_millis(1)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        put(&tier, &name, "newest").await.unwrap();
        assert_eq!(get(&tier, &name).await.unwrap().as_deref(), Some("newest"));
    }
}

#[tokio::test]
async fn a_dead_nodes_keys_fail_and_the_others_are_served() {
    let cluster = servers::own_redis_cluster();
    let tier = RedisTier::open(&cluster.url()).unwrap();
    put_all(&tier, "value").await.unwrap();
    let (there, gone) = (key_on(&cluster, 0), key_on(&cluster, 1));
    cluster.nodes()[1].kill();
    let began = Instant::now();
    let error = get(&tier, &gone).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{error}");
    assert_eq!(tier.read(&names()).await.unwrap_err().kind(), ErrorKind::ConnectionLost);
    assert_eq!(get(&tier, &there).await.unwrap().as_deref(), Some("value"));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());

    // The others agree after a while that it is dead.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let error = get(&tier, &gone).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    until_ok(async || get(&tier, &there).await).await;

    cluster.nodes()[1].start();
    assert_eq!(until_ok(async || get(&tier, &gone).await).await, None);
    until_ok(async || put(&tier, &gone, "new").await).await;
    assert_eq!(get(&tier, &gone).await.unwrap().as_deref(), Some("new"));
}

#[tokio::test]
async fn a_silent_node_is_given_up_in_time() {
    let cluster = servers::own_redis_cluster();
    let url = format!("{}?response_timeout=200ms&connect_timeout=200ms", cluster.url());
    let tier = RedisTier::open(&url).unwrap();
    put_all(&tier, "value").await.unwrap();
    let (there, silent) = (key_on(&cluster, 0), key_on(&cluster, 1));
    cluster.nodes()[1].pause();
    for _ in 0..2 {
        let began = Instant::now();
        let error = get(&tier, &silent).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        assert_eq!(get(&tier, &there).await.unwrap().as_deref(), Some("value"));
    }
    cluster.nodes()[1].resume();
    assert_eq!(until_ok(async || get(&tier, &silent).await).await.as_deref(), Some("value"));
}

#[tokio::test]
async fn a_replica_takes_over() {
    let cluster = servers::own_redis_cluster_with_replica();
    let tier = RedisTier::open(&cluster.url()).unwrap();
    put_all(&tier, "value").await.unwrap();
    let name = key_on(&cluster, 0);
    let [master, _, _, replica] = cluster.nodes() else { panic!("four nodes") };

    // In order: nothing is lost but time.
    master.command(&["WAIT", "1", "5000"]);
    replica.command(&["CLUSTER", "FAILOVER"]);
    let began = Instant::now();
    while !replica.command(&["INFO", "replication"]).text().contains("role:master") {
        let found = get(&tier, &name).await;
        assert!(matches!(&found, Ok(Some(value)) if value == "value"), "{found:?}");
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    assert_eq!(count(&tier).await.unwrap(), names().len());
    put(&tier, &name, "newer").await.unwrap();

    // And back, by death.
    until_ok(async || {
        let is_up = master.command(&["INFO", "replication"]).text().contains("master_link_status:up");
        if is_up { Ok(()) } else { Err(std::io::Error::other("the old master doesn't follow").into()) }
    })
    .await;
    replica.kill();
    let error = get(&tier, &name).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(until_ok(async || get(&tier, &name).await).await.is_some());
    until_ok(async || tier.invalidate(&key(&name), LONG).await).await;
    assert_eq!(get(&tier, &name).await.unwrap(), None);
}

#[tokio::test]
async fn all_nodes_may_be_away_at_once() {
    let cluster = servers::own_redis_cluster();
    let tier = RedisTier::open(&cluster.url()).unwrap();
    put_all(&tier, "value").await.unwrap();
    cluster.nodes().iter().for_each(OwnRedis::kill);
    for _ in 0..3 {
        assert_eq!(count(&tier).await.unwrap_err().kind(), ErrorKind::ConnectionLost);
    }
    cluster.nodes().iter().for_each(OwnRedis::start);
    assert_eq!(until_ok(async || count(&tier).await).await, 0);
    until_ok(async || put_all(&tier, "value").await).await;
    assert_eq!(count(&tier).await.unwrap(), names().len());
}
