//! The loader: what it costs a key, what a hit costs, and what it saves on each store.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use barge::{Cache, Database, FromRow, Loader, Record, Requests};
use barge_testkit::servers::{self, Proxy};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::measure::{Contest, Run, compare};

/// The comparisons, by the names that `--only` takes.
pub(crate) const PARTS: [&str; 4] = ["overhead", "hits", "stores", "redis"];

/// Keys that are asked for at once, and how often.
const KEYS: u64 = 1_000;
const TURNS: usize = 200;
const HITS: usize = 2_000_000;
/// Accounts on a page.
const ACCOUNTS: i64 = 100;
const REDIS_KEYS: usize = 10_000;

pub(crate) fn run(rounds: usize, only: Option<&str>) {
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("\n## The loader\n\nAbove 1: Barge is faster.");
    if wanted("overhead") {
        overhead(rounds);
    }
    if wanted("hits") {
        hits(rounds);
    }
    if wanted("stores") {
        stores(&runtime, rounds);
    }
    if wanted("redis") {
        redis::run(&runtime, rounds);
    }
}

/// Runs `turns` times: as many loads as there are keys, all at once, each by itself.
async fn loads<F: Future>(load: impl Fn(u64) -> F) -> Run {
    let started = Instant::now();
    for turn in 0..TURNS as u64 {
        // Other keys each time, so that nobody has them from before.
        let loads = (turn * KEYS..(turn + 1) * KEYS).map(&load);
        futures::future::join_all(loads).await;
    }
    Run { rows: KEYS as usize * TURNS, time: started.elapsed() }
}

/// What batching alone costs: the handler answers at once, and keeps nothing.
fn overhead(rounds: usize) {
    println!("\n### Loads of {KEYS} different keys at once, no store beneath\n");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut contest = Contest::new();
    contest.add("Barge", || {
        runtime.block_on(async {
            let loader: Loader<u64, u64> = Loader::builder(|keys: Requests<u64>| async move {
                Ok(keys.iter().map(|key| Ok(Some(*key))).collect())
            })
            .start();
            loads(|key| {
                let loader = &loader;
                async move { assert_eq!(loader.load(key).await.unwrap(), Some(key)) }
            })
            .await
        })
    });
    contest.add("async-graphql's DataLoader, no delay", || {
        runtime.block_on(async {
            let loader = async_graphql::dataloader::DataLoader::new(Echo, tokio::spawn)
                .delay(Duration::ZERO)
                .max_batch_size(10_000);
            loads(|key| {
                let loader = &loader;
                async move { assert_eq!(loader.load_one(key).await.unwrap(), Some(key)) }
            })
            .await
        })
    });
    contest.add("ultra-batch's BatchFetcher, no delay", || {
        runtime.block_on(async {
            let loader = ultra_batch::BatchFetcher::build(Echo).delay_duration(Duration::ZERO).finish();
            loads(|key| {
                let loader = &loader;
                async move { assert_eq!(loader.load(key).await.unwrap(), key) }
            })
            .await
        })
    });
    contest.add("dataloader, which keeps nothing", || {
        runtime.block_on(async {
            let loader = dataloader::non_cached::Loader::new(Echo).with_max_batch_size(10_000);
            loads(|key| {
                let loader = loader.clone();
                async move { assert_eq!(loader.load(key).await, key) }
            })
            .await
        })
    });
    contest.hold(rounds).print(1);
}

/// Gives each key back.
struct Echo;

impl async_graphql::dataloader::Loader<u64> for Echo {
    type Value = u64;
    type Error = Infallible;

    async fn load(&self, keys: &[u64]) -> Result<HashMap<u64, u64>, Infallible> {
        Ok(keys.iter().map(|key| (*key, *key)).collect())
    }
}

impl ultra_batch::Fetcher for Echo {
    type Key = u64;
    type Value = u64;
    type Error = Infallible;

    async fn fetch(
        &self,
        keys: &[u64],
        values: &mut ultra_batch::Cache<'_, u64, u64>,
    ) -> Result<(), Infallible> {
        keys.iter().for_each(|key| values.insert(*key, *key));
        Ok(())
    }
}

impl dataloader::BatchFn<u64, u64> for Echo {
    async fn load(&mut self, keys: &[u64]) -> HashMap<u64, u64> {
        keys.iter().map(|key| (*key, *key)).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Record, FromRow)]
#[record(table = "accounts")]
struct Account {
    #[record(key)]
    id: i64,
    user_id: i64,
    currency: String,
    balance: i64,
    locked: i64,
}

fn accounts(count: i64) -> Vec<Account> {
    let account =
        |id| Account { id, user_id: id / 4, currency: "EUR".to_owned(), balance: id * 100, locked: 0 };
    (0..count).map(account).collect()
}

/// A key that is in memory, against moka alone.
fn hits(rounds: usize) {
    println!("\n### A key in this process's memory, {HITS} times\n");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rows: Vec<Arc<Account>> = accounts(1_000).into_iter().map(Arc::new).collect();
    let bare: moka::sync::Cache<i64, Arc<Account>> = moka::sync::Cache::new(10_000);
    rows.iter().for_each(|row| bare.insert(row.id, Arc::clone(row)));
    let directory = tempfile::tempdir().unwrap();
    let loader = runtime.block_on(async {
        let db =
            barge::open(&format!("sqlite:{}", directory.path().join("hits.db").display())).await.unwrap();
        db.create_table::<Account>().await.unwrap();
        db.insert_all(&accounts(1_000)).await.unwrap();
        let loader = db.loader::<Account>().cache(Cache::new(Duration::from_secs(3_600))).start();
        loader.load_many(0..1_000).await.unwrap();
        loader
    });
    let mut contest = Contest::new();
    contest.add("`load`", || {
        runtime.block_on(async {
            let started = Instant::now();
            for hit in 0..HITS {
                let found = loader.load((hit % 1_000) as i64).await.unwrap();
                std::hint::black_box(found);
            }
            Run { rows: HITS, time: started.elapsed() }
        })
    });
    contest.add("moka's `get`", || {
        let started = Instant::now();
        for hit in 0..HITS {
            std::hint::black_box(bare.get(&((hit % 1_000) as i64)));
        }
        Run { rows: HITS, time: started.elapsed() }
    });
    contest.hold(rounds).print(1);
}

/// A page of accounts: each by itself, one after the other, against all of them.
fn stores(runtime: &Runtime, rounds: usize) {
    println!("\n### {ACCOUNTS} accounts of 100000, one at a time against one batch\n");
    println!("| store | one at a time | one batch | ratio |\n|---|---|---|---|");
    let directory = tempfile::tempdir().unwrap();
    let server = servers::postgres();
    let database = server.database();
    let proxy = Proxy::before(&database.url());
    proxy.delay(Duration::from_micros(500));
    let file = |name: &str| directory.path().join(name).display().to_string();
    let mut places = vec![
        ("SQLite, a file", format!("sqlite:{}", file("page.db"))),
        ("PostgreSQL over loopback", database.url()),
        ("PostgreSQL, 0.5 ms each way", proxy.url()),
    ];
    if cfg!(feature = "duckdb") {
        places.push(("DuckDB, a file", format!("duckdb:{}", file("page.duckdb"))));
    }
    for (name, url) in places {
        let db = runtime.block_on(async {
            let db = barge::open(&url).await.unwrap();
            db.create_table::<Account>().await.unwrap();
            db.upsert_all(&accounts(100_000)).await.unwrap();
            db
        });
        let page = Page { db, runtime };
        let result = compare(rounds, || page.batched(), || page.one_by_one());
        println!(
            "| {name} | {:.2} ms | {:.2} ms | **{:.1}** |",
            result.peer.as_secs_f64() * 1e3,
            result.barge.as_secs_f64() * 1e3,
            result.ratio,
        );
    }
    drop::<TempDir>(directory);
}

struct Page<'a> {
    db: Database,
    runtime: &'a Runtime,
}

impl Page<'_> {
    fn keys(&self) -> impl Iterator<Item = i64> {
        (0..ACCOUNTS).map(|place| place * 991 % 100_000)
    }

    /// As handlers ask: each its own key, at the same time.
    fn batched(&self) -> Duration {
        self.runtime.block_on(async {
            let loader = self.db.loader::<Account>().start();
            // The table is described once in a loader's life.
            loader.load(0).await.unwrap();
            let started = Instant::now();
            let loads = self.keys().map(|key| loader.load(key));
            let found = futures::future::join_all(loads).await;
            let time = started.elapsed();
            assert!(found.into_iter().all(|found| found.unwrap().is_some()));
            time
        })
    }

    fn one_by_one(&self) -> Duration {
        self.runtime.block_on(async {
            let started = Instant::now();
            for key in self.keys() {
                let found = self.db.get_all::<Account, _>(&[key]).await.unwrap();
                assert!(found[0].is_some());
            }
            started.elapsed()
        })
    }
}

mod redis {
    use barge::redis::RedisTier;
    use barge_core::cache::SharedTier;

    use super::*;

    /// Values through Redis: all keys in one round, against one GET a key.
    pub(super) fn run(runtime: &Runtime, rounds: usize) {
        println!("\n### {REDIS_KEYS} keys through Redis\n");
        let url = servers::redis().fresh_url();
        let tier = RedisTier::open(&url).unwrap();
        let keys: Vec<String> =
            (0..REDIS_KEYS).map(|key| format!("accounts:0123456789abcdef:{key}")).collect();
        let value = bytes::Bytes::from(vec![b'x'; 100]);
        let marks: Vec<_> = keys.iter().map(|key| (key.clone(), value.clone())).collect();
        runtime.block_on(tier.mark(&marks, Duration::from_secs(3_600))).unwrap();
        let mut contest = Contest::new();
        contest.add("one round", || {
            runtime.block_on(async {
                let started = Instant::now();
                let found = tier.read(&keys).await.unwrap();
                let time = started.elapsed();
                assert!(found.iter().all(Option::is_some));
                Run { rows: keys.len(), time }
            })
        });
        contest.add("one GET a key", || {
            runtime.block_on(async {
                let started = Instant::now();
                for key in &keys {
                    let found = tier.read(std::slice::from_ref(key)).await.unwrap();
                    assert!(found[0].is_some());
                }
                Run { rows: keys.len(), time: started.elapsed() }
            })
        });
        contest.hold(rounds).print(1);
    }
}
