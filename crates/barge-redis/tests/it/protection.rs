//! Passwords, users and TLS.

use std::path::Path;

use barge_core::cache::SharedTier;
use barge_core::{Error, ErrorKind};
use barge_redis::{RedisOptions, RedisTier, TlsVerify};
use barge_testkit::servers::{self, OwnRedis, REDIS_PASSWORD};

use crate::support::{LONG, get, key, put};

fn at(server: &OwnRedis) -> RedisOptions {
    RedisOptions::host("127.0.0.1").port(server.port())
}

async fn refused(options: RedisOptions) -> Error {
    let error = options.open().unwrap().ping().await.expect_err("it is refused");
    let shown = format!("{error} {error:?} {options:?} {:?}", options.open());
    assert!(!shown.contains(REDIS_PASSWORD) && !shown.contains("not the password"), "{shown}");
    error
}

#[tokio::test]
async fn a_password_is_asked_for() {
    let server = servers::own_redis_with_password();
    for options in [
        at(&server),
        at(&server).password("not the password"),
        at(&server).user("u").password(REDIS_PASSWORD),
    ] {
        let error = refused(options).await;
        assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
        assert!(!error.is_retryable());
    }
    for options in
        [at(&server).password(REDIS_PASSWORD), at(&server).user("default").password(REDIS_PASSWORD)]
    {
        put(&options.open().unwrap(), "a", "value").await.unwrap();
    }
    let url = format!("redis://:s3cret%3A%2F%40%3F@127.0.0.1:{}/1", server.port());
    assert_eq!(get(&RedisTier::open(&url).unwrap(), "a").await.unwrap(), None);
}

/// What docs/redis.md says that a user of access lists needs is enough, and nothing of it is too much.
#[tokio::test]
async fn a_user_needs_what_is_documented() {
    const ALLOWED: [&str; 8] = ["+get", "+mget", "+set", "+del", "+eval", "+evalsha", "+ping", "+select"];
    let server = servers::own_redis();
    let tier = || {
        let options = at(&server).user("shop").password("its password").prefix("shop:").database(1);
        options.open().unwrap()
    };
    let allow = |commands: &[&str]| {
        let mut rule = vec!["ACL", "SETUSER", "shop", "reset", "on", ">its password", "~shop:*"];
        rule.extend(commands);
        server.command(&rule);
    };
    async fn everything(tier: RedisTier) -> barge_core::Result<()> {
        tier.ping().await?;
        put(&tier, "a", "value").await?;
        get(&tier, "a").await?;
        tier.release(&key("a"), "token").await?;
        tier.mark(&[("m".into(), "mark".into())], LONG).await?;
        tier.invalidate(&key("a"), LONG).await
    }
    allow(&ALLOWED);
    everything(tier()).await.unwrap();
    for left_out in ALLOWED {
        let rest: Vec<&str> = ALLOWED.into_iter().filter(|command| *command != left_out).collect();
        allow(&rest);
        // The server forgets scripts, so that EVAL is needed.
        server.command(&["SCRIPT", "FLUSH"]);
        match everything(tier()).await {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Permission, "{left_out}: {error}"),
            // A single server is read by MGET, and GET is for leases and scripts: all the others are needed.
            Ok(()) => panic!("{left_out} is not needed"),
        }
    }
    allow(&ALLOWED);
    let error = put(&at(&server).user("shop").password("its password").open().unwrap(), "a", "value").await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Permission, "keys under another prefix");
}

#[tokio::test]
async fn certificates_are_verified_as_far_as_is_said() {
    let (server, certificates) = servers::own_redis_with_tls("no");
    let tls = |host: &str, verify, authority: &Path| {
        RedisOptions::host(host).port(server.port()).tls(verify).authorities(authority)
    };
    let (right, wrong) = (certificates.authority.as_path(), certificates.other_authority.as_path());
    for (options, is_trusted) in [
        (tls("localhost", TlsVerify::Full, right), true),
        (tls("127.0.0.1", TlsVerify::Full, right), false),
        (tls("127.0.0.1", TlsVerify::Ca, right), true),
        (tls("localhost", TlsVerify::Full, wrong), false),
        (tls("localhost", TlsVerify::Ca, wrong), false),
        (tls("127.0.0.1", TlsVerify::None, wrong), true),
        (RedisOptions::host("localhost").port(server.port()).tls(TlsVerify::None), true),
    ] {
        let tier = options.open().unwrap();
        match tier.ping().await {
            Ok(()) => assert!(is_trusted, "{options:?}"),
            Err(error) => {
                assert!(!is_trusted, "{options:?}: {error}");
                assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
                assert!(error.to_string().contains("certificate"), "{error}");
            }
        }
    }
    let url = format!("rediss://localhost:{}?tls_ca={}", server.port(), right.display());
    let tier = RedisTier::open(&url).unwrap();
    put(&tier, "a", &"large ".repeat(100_000)).await.unwrap();
    assert_eq!(get(&tier, "a").await.unwrap().unwrap().len(), 600_000);
}

#[tokio::test]
async fn a_server_asks_for_a_certificate() {
    let (server, certificates) = servers::own_redis_with_tls("yes");
    let options = RedisOptions::host("localhost").port(server.port()).tls(TlsVerify::Full);
    let options = options.authorities(&certificates.authority);
    let with = |certificate, key| options.clone().certificate(certificate, key).open().unwrap();
    with(&certificates.client, &certificates.client_key).ping().await.unwrap();
    assert!(with(&certificates.other_client, &certificates.other_client_key).ping().await.is_err());
    assert!(options.open().unwrap().ping().await.is_err());
    let mixed = options.certificate(&certificates.client, &certificates.other_client_key).open();
    assert_eq!(mixed.unwrap_err().kind(), ErrorKind::InvalidConfig);
}

#[tokio::test]
async fn tls_and_none_do_not_meet() {
    let (encrypted, certificates) = servers::own_redis_with_tls("no");
    let plain = servers::own_redis();
    let options = at(&encrypted).connect_timeout(std::time::Duration::from_millis(500));
    assert!(matches!(refused(options).await.kind(), ErrorKind::ConnectionLost | ErrorKind::Timeout));
    let options = at(&plain).tls(TlsVerify::Ca).authorities(&certificates.authority);
    let options = options.connect_timeout(std::time::Duration::from_millis(500));
    let error = options.open().unwrap().ping().await.unwrap_err();
    assert_ne!(error.kind(), ErrorKind::Closed, "{error}");
}

/// Each node is asked over TLS, those that another one named among them, and each one's certificate is looked at.
#[tokio::test]
async fn all_nodes_of_a_cluster_are_encrypted() {
    let (cluster, certificates) = servers::own_redis_cluster_with_tls();
    let at_one = format!("rediss-cluster://127.0.0.1:{}", cluster.nodes()[0].port());
    let trusting = |authority: &Path| format!("{at_one}?tls_verify=ca&tls_ca={}", authority.display());
    let tier = RedisTier::open(&trusting(&certificates.authority)).unwrap();
    let names: Vec<String> = (0..100).map(|number| format!("key {number}")).collect();
    for name in &names {
        put(&tier, name, name).await.unwrap();
    }
    for (name, found) in names.iter().zip(tier.read(&names).await.unwrap()) {
        assert_eq!(found.as_deref(), Some(name.as_bytes()));
    }
    for node in cluster.nodes() {
        assert!(node.command(&["DBSIZE"]).number() > 10, "each has its part");
    }
    // Nodes go by their addresses here, which the certificate isn't for.
    let full = at_one.clone() + &format!("?tls_ca={}", certificates.authority.display());
    for url in [trusting(&certificates.other_authority), full] {
        let error = RedisTier::open(&url).unwrap().ping().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Permission, "{url}: {error}");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    let plain = cluster.url() + "?connect_timeout=500ms";
    let error = RedisTier::open(&plain).unwrap().ping().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ConnectionLost | ErrorKind::Timeout), "{error}");
}
