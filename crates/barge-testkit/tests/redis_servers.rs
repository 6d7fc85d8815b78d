//! The throw-away Redis servers of `barge_testkit::servers`: that they serve, die and come back as asked.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap as tests do")]

use std::fs;
use std::net::TcpStream;

use barge_testkit::servers::{self, OwnRedis, Reply};

fn text(text: &str) -> Reply {
    Reply::Text(text.to_owned())
}

fn is_listening(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[test]
fn the_shared_servers_are_one_and_give_each_test_a_prefix() {
    let server = servers::redis();
    assert_eq!(server.ports().collect::<Vec<_>>(), servers::redis().ports().collect::<Vec<_>>());
    let (first, second) = (server.fresh_url(), server.fresh_url());
    assert!(first.starts_with("redis://127.0.0.1:") && first != second);
    assert_eq!(server.command(0, &["PING"]), text("PONG"));
    assert_eq!(server.command(0, &["GET", "missing"]), Reply::Nothing);

    let cluster = servers::redis_cluster();
    assert_eq!(cluster.ports().count(), 3);
    for node in 0..3 {
        assert_eq!(cluster.command(node, &["CLUSTER", "SLOTS"]).parts().len(), 3);
    }
}

#[test]
fn a_server_of_ones_own_is_killed_halted_and_taken_back_in_time() {
    let server = servers::own_redis();
    server.command(&["SET", "a", "old"]);
    server.save_aside();
    server.command(&["SET", "a", "new"]);
    server.go_back();
    assert_eq!(server.command(&["GET", "a"]), text("old"));

    server.pause();
    assert!(is_listening(server.port()), "the system accepts for it");
    server.resume();
    assert_eq!(server.command(&["INCR", "b"]).number(), 1);

    server.kill();
    assert!(!is_listening(server.port()));
    fs::remove_file(server.directory().join("dump.rdb")).unwrap();
    server.start();
    assert_eq!(server.command(&["GET", "a"]), Reply::Nothing);

    let (directory, port) = (server.directory().to_owned(), server.port());
    drop(server);
    assert!(!directory.exists() && !is_listening(port));
}

#[test]
fn a_server_with_a_password_takes_commands_of_its_test() {
    let server = servers::own_redis_with_password();
    assert_eq!(server.command(&["SET", "a", "1"]), text("OK"));
}

#[test]
fn nodes_end_with_their_cluster() {
    let cluster = servers::own_redis_cluster();
    assert!(cluster.url().starts_with("redis-cluster://127.0.0.1:"));
    assert_eq!(cluster.slots(0).chain(cluster.slots(1)).chain(cluster.slots(2)).count(), 16_384);
    let ports: Vec<u16> = cluster.nodes().iter().map(OwnRedis::port).collect();
    drop(cluster);
    assert!(!ports.into_iter().any(is_listening));
}
