//! The rows that are moved: tasks of six columns, with a bigint key, three short texts, a bigint and a double.

use barge::{FromRow, Record};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

pub(crate) const CREATE: &str = "CREATE TABLE tasks (id INTEGER PRIMARY KEY NOT NULL, task_type TEXT NOT NULL, \
     status TEXT NOT NULL, data TEXT NOT NULL, account INTEGER NOT NULL, amount REAL NOT NULL)";

/// An owned task.
#[derive(Clone, Debug, PartialEq, Record, FromRow)]
#[record(table = "tasks")]
pub(crate) struct Task {
    #[record(key)]
    pub(crate) id: i64,
    pub(crate) task_type: String,
    pub(crate) status: String,
    pub(crate) data: String,
    pub(crate) account: i64,
    pub(crate) amount: f64,
}

/// A borrowed one.
#[derive(Record)]
#[record(table = "tasks")]
pub(crate) struct TaskRef<'a> {
    #[record(key)]
    id: i64,
    task_type: &'a str,
    status: &'a str,
    data: &'a str,
    account: i64,
    amount: f64,
}

impl Task {
    #[inline]
    pub(crate) fn borrowed(&self) -> TaskRef<'_> {
        TaskRef {
            id: self.id,
            task_type: &self.task_type,
            status: &self.status,
            data: &self.data,
            account: self.account,
            amount: self.amount,
        }
    }
}

/// Tasks with the keys 1 to `rows`, in order or shuffled; always the same.
pub(crate) fn tasks(rows: usize, shuffled: bool) -> Vec<Task> {
    let mut random = StdRng::seed_from_u64(7);
    let mut ids: Vec<i64> = (1..=rows as i64).collect();
    if shuffled {
        ids.shuffle(&mut random);
    }
    let task = |id: i64| Task {
        id,
        task_type: ["email", "report", "resize", "invoice"][random.random_range(0..4)].to_owned(),
        status: "PENDING".to_owned(),
        data: format!("{{\"attempt\":{},\"of\":{id}}}", random.random_range(0..9)),
        account: random.random_range(0..50_000),
        amount: random.random_range(0.0..10_000.0),
    };
    ids.into_iter().map(task).collect()
}
