//! Working bench: not for the repository.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::*;
use arrow::datatypes::*;
use barge_core::store::{LookUp, Step, Target};
use barge_core::{Operation, Store, Table};
use barge_sqlite::SqliteStore;

const CREATE: &str = "CREATE TABLE tasks(id INTEGER NOT NULL PRIMARY KEY, task_type TEXT NOT NULL, status TEXT NOT NULL, data TEXT NOT NULL, attempts INTEGER NOT NULL, score REAL NOT NULL)";

fn schema() -> Schema {
    Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("task_type", DataType::Utf8, false),
        Field::new("status", DataType::Utf8, false),
        Field::new("data", DataType::Utf8, false),
        Field::new("attempts", DataType::Int64, false),
        Field::new("score", DataType::Float64, false),
    ])
}

struct Row {
    id: i64,
    t: String,
    s: String,
    d: String,
    a: i64,
    f: f64,
}

fn rows(keys: &[i64]) -> Vec<Row> {
    keys.iter()
        .map(|&id| Row {
            id,
            t: format!("type{}", id % 10),
            s: "PENDING".into(),
            d: format!("{{\"n\":{id}}}"),
            a: id % 5,
            f: id as f64 / 3.0,
        })
        .collect()
}

fn to_batch(rows: &[Row]) -> RecordBatch {
    RecordBatch::try_new(
        Arc::new(schema()),
        vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.id))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.t))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.s))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.d))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.a))),
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.f))),
        ],
    )
    .unwrap()
}

fn plain(path: Option<&str>) -> rusqlite::Connection {
    let c = match path {
        Some(p) => rusqlite::Connection::open(p).unwrap(),
        None => rusqlite::Connection::open_in_memory().unwrap(),
    };
    if path.is_some() {
        c.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;").unwrap();
    }
    c.execute_batch(CREATE).unwrap();
    c
}

fn loop_write(c: &mut rusqlite::Connection, sql: &str, rows: &[Row]) {
    for chunk in rows.chunks(1000) {
        let tx = c.transaction().unwrap();
        {
            let mut st = tx.prepare_cached(sql).unwrap();
            for r in chunk {
                st.execute(rusqlite::params![r.id, r.t, r.s, r.d, r.a, r.f]).unwrap();
            }
        }
        tx.commit().unwrap();
    }
}

const INSERT: &str = "INSERT INTO tasks VALUES (?1,?2,?3,?4,?5,?6)";
const UPDATE: &str = "UPDATE tasks SET task_type=?2, status=?3, data=?4, attempts=?5, score=?6 WHERE id=?1";
const UPSERT: &str = "INSERT INTO tasks VALUES (?1,?2,?3,?4,?5,?6) ON CONFLICT(id) DO UPDATE SET task_type=excluded.task_type, status=excluded.status, data=excluded.data, attempts=excluded.attempts, score=excluded.score";

async fn barge_write(store: &SqliteStore, op: Operation, rows: &[Row], outcomes: bool) -> Duration {
    let key: &[&str] = &["id"];
    let table = Table::of_schema("tasks", &schema(), key).unwrap();
    let d = Arc::new(store.describe(table.name()).await.unwrap());
    let target = Arc::new(Target::new(&table, op, d).unwrap());
    let batches: Vec<_> = rows.chunks(1000).map(|c| target.project(&to_batch(c)).unwrap()).collect();
    let t = cpu();
    for batch in batches {
        assert!(store.check(&target, &batch).is_empty());
        store.transact(None, &[Step { target: target.clone(), batch, outcomes }]).await.unwrap();
    }
    std::thread::sleep(Duration::from_micros(100));
    cpu().saturating_sub(t)
}

fn cpu() -> Duration {
    let mut ns = 0;
    for t in std::fs::read_dir("/proc/self/task").unwrap() {
        let Ok(text) = std::fs::read_to_string(t.unwrap().path().join("schedstat")) else { continue };
        ns += text.split(' ').next().unwrap().parse::<u64>().unwrap();
    }
    Duration::from_nanos(ns)
}

fn shuffle(keys: &mut [i64]) {
    let mut x = 88172645463325252u64;
    for i in (1..keys.len()).rev() {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        keys.swap(i, (x % (i as u64 + 1)) as usize);
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let n: i64 = std::env::args().nth(1).map_or(100_000, |a| a.parse().unwrap());
    let only = std::env::args().nth(2).unwrap_or_default();
    let extra = std::env::args().nth(3).unwrap_or_default();
    for shuffled in [false, true] {
        for file in [false, true] {
            if std::env::var("FILE").is_ok_and(|v| (v == "1") != file)
                || std::env::var("SHUF").is_ok_and(|v| (v == "1") != shuffled)
            {
                continue;
            }
            let mut best: std::collections::BTreeMap<&str, (Vec<f64>, Vec<f64>)> = Default::default();
            for round in 0..std::env::args().nth(4).map_or(5, |a| a.parse().unwrap()) {
                let dir = tempfile::tempdir_in("/work").unwrap();
                let pp = dir.path().join("plain.db");
                let pb = dir.path().join("barge.db");
                let mut c = plain(file.then(|| pp.to_str().unwrap()));
                let url = if file {
                    format!("sqlite:{}{extra}", pb.display())
                } else {
                    format!("sqlite::memory:{extra}")
                };
                let store = SqliteStore::open(&url).await.unwrap();
                let mut tx = store.begin().await.unwrap();
                tx.execute(CREATE).await.unwrap();
                tx.commit().await.unwrap();
                let mut keys: Vec<i64> = (0..n).collect();
                if shuffled {
                    shuffle(&mut keys);
                }
                let mut data = rows(&keys);
                for (name, sql, op) in [
                    ("insert", INSERT, Operation::Insert),
                    ("update", UPDATE, Operation::Update),
                    ("upsert", UPSERT, Operation::Upsert),
                ] {
                    if !only.is_empty() && !only.contains(name) && name != "insert" {
                        continue;
                    }
                    if name != "insert" {
                        for r in &mut data {
                            r.a += 1;
                            r.s = if name == "update" { "COMPLETED".into() } else { "RETRY".into() };
                            r.f += 1.5;
                        }
                    }
                    let barge_first = round % 2 == 0;
                    let mut b = Duration::ZERO;
                    if barge_first {
                        b = barge_write(&store, op, &data, false).await;
                    }
                    let t = cpu();
                    loop_write(&mut c, sql, &data);
                    let p = cpu().saturating_sub(t);
                    if !barge_first {
                        b = barge_write(&store, op, &data, false).await;
                    }
                    let e = best.entry(name).or_default();
                    e.0.push(p.as_secs_f64());
                    e.1.push(b.as_secs_f64());
                }
                if only.is_empty() || only.contains("lookup") {
                    let table = Arc::new(Table::of_schema("tasks", &schema(), &["id"]).unwrap());
                    let chunks: Vec<&[i64]> = keys.chunks(1000).take(50).collect();
                    let t = cpu();
                    for chunk in &chunks {
                        let mut st = c.prepare_cached("SELECT id, task_type, status, data, attempts, score FROM tasks WHERE id = ?1").unwrap();
                        let mut found = Vec::new();
                        for key in *chunk {
                            found.push(
                                st.query_row([key], |r| {
                                    Ok(Row {
                                        id: r.get(0)?,
                                        t: r.get(1)?,
                                        s: r.get(2)?,
                                        d: r.get(3)?,
                                        a: r.get(4)?,
                                        f: r.get(5)?,
                                    })
                                })
                                .unwrap(),
                            );
                        }
                        std::hint::black_box(&found);
                    }
                    let p = cpu().saturating_sub(t);
                    let t = cpu();
                    for chunk in &chunks {
                        let keys = RecordBatch::try_from_iter([(
                            "id",
                            Arc::new(Int64Array::from(chunk.to_vec())) as ArrayRef,
                        )])
                        .unwrap();
                        let found = store.look_up(LookUp { table: table.clone(), keys }).await.unwrap();
                        assert_eq!(found.num_rows(), chunk.len());
                    }
                    let b = cpu().saturating_sub(t);
                    let e = best.entry("lookup").or_default();
                    e.0.push(p.as_secs_f64());
                    e.1.push(b.as_secs_f64());
                }
                if only.contains("rows") {
                    let table = Table::of_schema("tasks", &schema(), &["id"]).unwrap();
                    let d = Arc::new(store.describe(table.name()).await.unwrap());
                    for op in [Operation::Update, Operation::Upsert, Operation::Delete, Operation::Insert] {
                        let target = Arc::new(Target::new(&table, op, d.clone()).unwrap());
                        let t = Instant::now();
                        for chunk in data.chunks(1000) {
                            let mut tx = store.begin().await.unwrap();
                            tx.apply_rows(&Step {
                                target: target.clone(),
                                batch: target.project(&to_batch(chunk)).unwrap(),
                                outcomes: true,
                            })
                            .await
                            .unwrap();
                            tx.commit().await.unwrap();
                        }
                        println!("apply_rows {op} {:.0} rows/s", n as f64 / t.elapsed().as_secs_f64());
                    }
                }
                if only.contains("latency") && file {
                    let table = Table::of_schema("tasks", &schema(), &["id"]).unwrap();
                    let d = Arc::new(store.describe(table.name()).await.unwrap());
                    let target = Arc::new(Target::new(&table, Operation::Insert, d).unwrap());
                    let more = rows(&(n..n + 4000).collect::<Vec<_>>());
                    let (mut pl, mut ba) = (Vec::new(), Vec::new());
                    for r in &more {
                        let t = Instant::now();
                        c.prepare_cached(INSERT)
                            .unwrap()
                            .execute(rusqlite::params![r.id, r.t, r.s, r.d, r.a, r.f])
                            .unwrap();
                        pl.push(t.elapsed().as_nanos());
                    }
                    let s = Arc::new(store);
                    let ba2 = tokio::spawn(async move {
                        for r in more.chunks(1) {
                            let t = Instant::now();
                            let batch = to_batch(r);
                            s.transact(None, &[Step { target: target.clone(), batch, outcomes: true }])
                                .await
                                .unwrap();
                            ba.push(t.elapsed().as_nanos());
                        }
                        ba
                    })
                    .await;
                    let mut ba = ba2.unwrap();
                    pl.sort();
                    ba.sort();
                    println!(
                        "latency median plain {} ns, barge {} ns, over {} ns",
                        pl[2000],
                        ba[2000],
                        ba[2000] as i128 - pl[2000] as i128
                    );
                }
            }
            for (name, (p, b)) in best {
                let min = |v: &[f64]| v.iter().cloned().fold(f64::MAX, f64::min);
                let med = |v: &[f64]| {
                    let mut v = v.to_vec();
                    v.sort_by(f64::total_cmp);
                    v[v.len() / 2]
                };
                println!(
                    "{:7} shuffled={shuffled:5} file={file:5} plain {:.3}s barge {:.3}s ratio {:.2} (median {:.2})",
                    name,
                    min(&p),
                    min(&b),
                    min(&p) / min(&b),
                    med(&p) / med(&b)
                );
            }
        }
    }
}
