use std::time::Duration;

use barge_core::ErrorKind;

use super::*;

fn options(url: &str) -> RedisOptions {
    RedisOptions::from_url(url).unwrap_or_else(|error| panic!("{url}: {error}"))
}

#[test]
fn a_url_says_what_the_methods_say() {
    assert_eq!(options("redis://h"), RedisOptions::host("h"));
    assert_eq!(options("redis://h/"), RedisOptions::host("h"));
    assert_eq!(options("redis://h:7/3"), RedisOptions::host("h").port(7).database(3));
    assert_eq!(options("redis://:s%40%3Ae%2Fc@h"), RedisOptions::host("h").password("s@:e/c"));
    assert_eq!(options("redis://u:p@[::1]:8"), RedisOptions::host("::1").port(8).user("u").password("p"));
    assert_eq!(options("rediss://h"), RedisOptions::host("h").tls(TlsVerify::Full));
    assert_eq!(
        options("rediss://h?tls_verify=ca&tls_ca=/ca.crt&tls_cert=/c.crt&tls_key=/c.key"),
        RedisOptions::host("h").tls(TlsVerify::Ca).authorities("/ca.crt").certificate("/c.crt", "/c.key")
    );
    assert_eq!(
        options("redis-cluster://a:1,b,[::2]:3?prefix=%C3%A4:"),
        RedisOptions::host("a").port(1).and_host("b").and_host("::2").port(3).cluster().prefix("ä:")
    );
    assert_eq!(
        options("redis://h?connect_timeout=2s&response_timeout=50ms"),
        RedisOptions::host("h")
            .connect_timeout(Duration::from_secs(2))
            .response_timeout(Duration::from_millis(50))
    );
}

#[test]
fn what_is_wrong_is_named() {
    for (url, message) in [
        ("http://h", "redis-cluster://"),
        ("redis://", "host is missing"),
        ("redis://h:x", "port"),
        ("redis://h:70000", "port"),
        ("redis://h/first", "database is a number"),
        ("redis://a,b", "redis-cluster://"),
        ("redis-cluster://a/1", "no database but 0"),
        ("redis-cluster://a,", "host is missing"),
        ("redis://u@h", "needs a password"),
        ("redis://h?prefix={a}", "braces"),
        ("redis://h?response_timeout=0s", "too short"),
        ("redis://h?response_timeout=1", "1: expected a time"),
        ("redis://h?pool=3", "no parameter pool"),
        ("redis://h?pool", "name=value"),
        ("redis://h?tls_ca=/ca.crt", "rediss://"),
        ("rediss://h?tls_cert=/c.crt", "go together"),
        ("rediss://h?tls_verify=maybe", "full, ca or none"),
        ("redis://[::1", "ends with ]"),
        ("redis://h%4", "malformed"),
    ] {
        let error = RedisOptions::from_url(url).expect_err(url);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}");
        assert!(error.to_string().contains(message), "{url}: {error}");
    }
}

#[test]
fn no_message_shows_a_password() {
    for url in [
        "redis://u:hunter@h?pool=3",
        "redis://u:hun/ter@h",
        "redis://u:hunter?x@h",
        "redis://u:hun%ter@h",
        "redis://u:hunter@h:x",
        "redis://u:12:hunter@h/x",
        "redis://:hunter,hunter@h",
        "redis://u:a?hunter=hunter@h",
    ] {
        let shown = match RedisOptions::from_url(url) {
            Ok(options) => format!("{options:?} {:?}", options.open()),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!shown.contains("hunter") && !shown.contains("ter@"), "{url}: {shown}");
    }
}

#[test]
fn files_that_are_not_there_are_named() {
    let error = options("rediss://h?tls_ca=/nowhere/ca.crt").open().expect_err("no such file");
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("tls_ca") && error.to_string().contains("/nowhere/ca.crt"), "{error}");
}
