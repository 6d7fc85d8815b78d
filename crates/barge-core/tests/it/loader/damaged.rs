//! Entries of a shared cache that are not what they say.

use barge_core::cache::SharedTier;
use barge_testkit::MemoryTier;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use super::sharing::{TTL, clock, elsewhere, shared, tasks_of};
use super::*;

/// Where a row's bytes begin: behind the layout, the checksum, the time, an empty mark and the row's length.
const ROW: usize = 1 + 4 + 8 + 1 + 4;

/// Bytes changed, and the checksum with them: as if another had written them on purpose.
fn damage(name: &str, entry: &Bytes, random: &mut StdRng) -> Bytes {
    let mut bytes = entry.to_vec();
    for _ in 0..random.random_range(1..4) {
        let place = random.random_range(ROW..bytes.len());
        bytes[place] = random.random();
    }
    let mut sum = crc32fast::Hasher::new();
    sum.update(name.as_bytes());
    sum.update(&bytes[5..]);
    bytes[1..5].copy_from_slice(&sum.finalize().to_le_bytes());
    bytes.into()
}

#[tokio::test(start_paused = true)]
async fn damaged_entries_are_read_from_the_store_and_cost_the_others_nothing() {
    clock();
    let (db, tier) = (filled(20).await, MemoryTier::new());
    let filling = tasks_of(&elsewhere(&db), shared(&tier, TTL));
    filling.load_many(0..20).await.unwrap();
    sleep(Duration::from_millis(5)).await;
    let mut random = StdRng::seed_from_u64(5);
    let names = tier.keys();
    assert_eq!(names.len(), 20);
    let entries: Vec<Bytes> = names.iter().map(|name| tier.value(name).unwrap()).collect();
    let mut missed = 0;
    for _ in 0..100 {
        // Every other one; its row is cut off in the middle of its text, which no row is.
        for (name, entry) in names.iter().zip(&entries).step_by(2) {
            let value = damage(name, entry, &mut random);
            tier.mark(&[(name.clone(), value)], TTL).await.unwrap();
        }
        let loader = tasks_of(&elsewhere(&db), shared(&tier, TTL));
        let found = loader.load_many(0..20).await.unwrap();
        assert!(found.iter().all(Option::is_some), "{found:?}");
        let statistics = loader.statistics();
        assert!(statistics.shared_hits >= 10, "{statistics:?}");
        missed += statistics.store_keys;
        sleep(Duration::from_millis(5)).await;
    }
    assert!(missed > 100, "{missed}: the damage was hardly any");
}
