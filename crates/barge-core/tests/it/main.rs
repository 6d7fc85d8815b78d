//! The engine over the in-memory store: no database needed, and the clock may be paused.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap as tests do")]

extern crate barge_core as barge;

mod batcher;
mod database;
mod faults;
mod loader;
mod look_ups;
mod order;
mod properties;
mod unordered;
mod writer;

use std::time::Duration;

use barge_core::store::Action;
use barge_core::{Database, FromRow, Record};
use barge_testkit::{MemoryStore, MemoryTable};

/// A task with a text, for most tests.
#[derive(Clone, Debug, PartialEq, Record, FromRow)]
#[record(table = "tasks")]
struct Task {
    #[record(key)]
    id: i64,
    name: String,
}

fn task(id: i64, name: &str) -> Task {
    Task { id, name: name.to_owned() }
}

/// A store with empty tables for the records, and a database over it.
async fn database() -> (MemoryStore, Database) {
    let store = MemoryStore::new();
    let database = Database::new(store.clone());
    database.create_table::<Task>().await.unwrap();
    (store, database)
}

/// The same, in which a commit takes some time.
async fn slow_database(commit_time: Duration) -> (MemoryStore, Database) {
    let store = MemoryStore::new().commit_time(commit_time);
    store.create(MemoryTable::new(Task::table())).unwrap();
    (store.clone(), Database::new(store))
}

/// Accounts with a unique email, and orders that name an account.
#[derive(Clone, Debug, PartialEq, Record, FromRow)]
#[record(table = "accounts")]
struct Account {
    #[record(key)]
    id: i64,
    email: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Record, FromRow)]
#[record(table = "orders")]
struct Order {
    #[record(key)]
    id: i64,
    account: Option<i64>,
    amount: i64,
}

fn account(id: i64, email: &str) -> Account {
    Account { id, email: Some(email.to_owned()) }
}

fn order(id: i64, account: i64, amount: i64) -> Order {
    Order { id, account: Some(account), amount }
}

fn shop(on_delete: Action) -> (MemoryStore, Database) {
    let store = MemoryStore::new();
    store.create(MemoryTable::new(Account::table()).unique(&["email"])).unwrap();
    let orders = MemoryTable::new(Order::table());
    store.create(orders.foreign_key(&["account"], "accounts", &["id"], on_delete, Action::Refuse)).unwrap();
    (store.clone(), Database::new(store))
}
