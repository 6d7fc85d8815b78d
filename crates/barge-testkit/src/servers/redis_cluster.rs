//! A Redis Cluster that one test has to itself.

use std::path::Path;

use super::certificates::Certificates;
use super::keeper::wait_for;
use super::own_redis::OwnRedis;
use super::redis::{NODES, command_in, port_of};

/// How many slots every cluster has.
const SLOTS: usize = 16_384;

/// A cluster of the test's own: three masters. A node that is down keeps its slots, and the others go on serving theirs.
pub fn own_redis_cluster() -> OwnRedisCluster {
    let nodes: Vec<OwnRedis> = (0..NODES).map(|_| OwnRedis::node()).collect();
    form(&directories(&nodes));
    OwnRedisCluster { nodes }
}

/// A cluster of the test's own whose three masters speak TLS alone, and the certificates that go with it, as for
/// [`own_redis_with_tls`](super::own_redis_with_tls): clients need none of their own.
pub fn own_redis_cluster_with_tls() -> (OwnRedisCluster, Certificates) {
    let (nodes, certificates) = OwnRedis::nodes_with_tls(NODES);
    form(&directories(&nodes));
    (OwnRedisCluster { nodes }, certificates)
}

/// A cluster of the test's own: three masters, and a fourth node that takes the place of the first when that is gone for some seconds.
pub fn own_redis_cluster_with_replica() -> OwnRedisCluster {
    let mut cluster = own_redis_cluster();
    let replica = OwnRedis::node();
    let first = cluster.nodes[0].command(&["CLUSTER", "MYID"]);
    meet(replica.directory(), cluster.nodes[0].directory());
    wait_for("the replica to know its master", || {
        replica.command(&["CLUSTER", "NODES"]).text().lines().any(|line| {
            line.starts_with(first.text()) && line.contains(" connected ") && !line.contains("handshake")
        })
    });
    replica.command(&["CLUSTER", "REPLICATE", first.text()]);
    wait_for("the replica to follow its master", || {
        replica.command(&["INFO", "replication"]).text().contains("master_link_status:up")
    });
    cluster.nodes.push(replica);
    wait_for("all nodes to know the replica", || {
        cluster.nodes.iter().all(|node| {
            let known = node.command(&["CLUSTER", "NODES"]);
            known.text().lines().filter(|line| line.contains("slave") && line.contains(" connected")).count()
                == 1
        })
    });
    cluster
}

/// A Redis Cluster of one test: [`own_redis_cluster`]. Its nodes end when this value is dropped.
#[derive(Debug)]
pub struct OwnRedisCluster {
    nodes: Vec<OwnRedis>,
}

impl OwnRedisCluster {
    /// Its URL, which names all nodes, without what they ask of their clients.
    pub fn url(&self) -> String {
        let places: Vec<String> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis-cluster://{}", places.join(","))
    }

    /// The nodes: three masters, and the replica of the first, where there is one.
    pub fn nodes(&self) -> &[OwnRedis] {
        &self.nodes
    }

    /// The slots of a master.
    pub fn slots(&self, node: usize) -> std::ops::Range<u16> {
        slots_of(node)
    }
}

fn directories(nodes: &[OwnRedis]) -> Vec<&Path> {
    nodes.iter().map(OwnRedis::directory).collect()
}

fn slots_of(node: usize) -> std::ops::Range<u16> {
    let first = |node| (node * SLOTS / NODES) as u16;
    first(node)..first(node + 1)
}

/// Makes a cluster of nodes that run, and waits until each of them knows it whole.
pub(super) fn form(directories: &[&Path]) {
    for (node, directory) in directories.iter().enumerate() {
        let slots: Vec<String> = slots_of(node).map(|slot| slot.to_string()).collect();
        let mut add = vec!["CLUSTER", "ADDSLOTS"];
        add.extend(slots.iter().map(String::as_str));
        command_in(directory, &add);
        // Two nodes of one epoch would argue before they agree.
        command_in(directory, &["CLUSTER", "SET-CONFIG-EPOCH", &(node + 1).to_string()]);
        if node > 0 {
            meet(directory, directories[0]);
        }
    }
    wait_for("the nodes to become a Redis Cluster", || {
        directories.iter().all(|directory| {
            let info = command_in(directory, &["CLUSTER", "INFO"]);
            let is_whole = format!("cluster_size:{}", directories.len());
            info.text().contains("cluster_state:ok") && info.text().contains(&is_whole)
        })
    });
}

fn meet(node: &Path, other: &Path) {
    command_in(node, &["CLUSTER", "MEET", "127.0.0.1", &port_of(other).to_string()]);
}
