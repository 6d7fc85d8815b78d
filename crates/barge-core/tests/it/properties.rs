//! The writer against a model that takes one row after another.
//!
//! Random operations on a few tables with unique and foreign keys, through writers of every batch size, must end with the
//! model's tables and the model's outcomes. The model knows two things beside its tables: a flush is so many rows, or
//! what came before a call of `flush`; and rows that broke a foreign key are tried again at the flush's end, unless a
//! later row names their key.
//!
//! Rows that coalesce are valid here: that values in between are not checked is the one documented difference.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use barge_core::record::batch_of;
use barge_core::store::Action;
use barge_core::{Database, ErrorKind, Operation, Outcome, Receipt, Record, Writer};
use barge_testkit::{MemoryStore, MemoryTable, Value};
use proptest::prelude::*;

use super::{Account, Order};

/// A table with nothing but its key, whose upserts and updates coalesce.
#[derive(Clone, Debug, PartialEq, Record)]
#[record(table = "counters")]
struct Counter {
    #[record(key)]
    id: i64,
    n: i64,
}

/// Some of an order's columns.
#[derive(Clone, Debug, PartialEq, Record)]
#[record(table = "orders")]
struct OrderAmount {
    #[record(key)]
    id: i64,
    amount: i64,
}

/// A row on its way.
#[derive(Clone, Debug)]
enum Row {
    Account(Account),
    Order(Order),
    Amount(OrderAmount),
    Counter(Counter),
}

type Added = (Operation, Row);

#[derive(Clone, Debug)]
enum Act {
    Add(Operation, Row),
    /// Orders as one record batch.
    Batch(Operation, Vec<Order>),
    Flush,
}

#[derive(Clone, Debug)]
struct Case {
    acts: Vec<Act>,
    max_rows: usize,
    on_delete: Action,
    atomic: bool,
    /// Whether receipts are kept, so that outcomes are computed.
    receipts: bool,
    /// Whether flushes claim tokens.
    tokens: bool,
    /// Whether a failed step takes the transaction with it.
    failure_ends_transaction: bool,
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![3 => Just(Insert), 1 => Just(InsertIfAbsent), 2 => Just(Upsert), 2 => Just(Update), 2 => Just(Delete)]
}

fn account() -> impl Strategy<Value = Account> {
    let email =
        proptest::option::weighted(0.8, 0..4i64).prop_map(|email| email.map(|email| format!("{email}@x")));
    (0..5i64, email).prop_map(|(id, email)| Account { id, email })
}

/// One order in ten fails its CHECK.
fn order() -> impl Strategy<Value = Order> {
    let amount = prop_oneof![9 => 0..100i64, 1 => Just(-1i64)];
    (0..6i64, proptest::option::weighted(0.8, 0..6i64), amount).prop_map(|(id, account, amount)| Order {
        id,
        account,
        amount,
    })
}

fn act() -> impl Strategy<Value = Act> {
    let partial = (0..6i64, 0..100i64).prop_map(|(id, amount)| Row::Amount(OrderAmount { id, amount }));
    let counter = (0..4i64, 0..100i64).prop_map(|(id, n)| Row::Counter(Counter { id, n }));
    prop_oneof![
        5 => (operation(), account()).prop_map(|(operation, row)| Act::Add(operation, Row::Account(row))),
        6 => (operation(), order()).prop_map(|(operation, row)| Act::Add(operation, Row::Order(row))),
        2 => partial.prop_map(|row| Act::Add(Operation::Update, row)),
        3 => (operation(), counter).prop_map(|(operation, row)| Act::Add(operation, row)),
        1 => (operation(), prop::collection::vec(order(), 1..6)).prop_map(|(operation, rows)| Act::Batch(operation, rows)),
        1 => Just(Act::Flush),
    ]
}

fn account_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (operation(), account()).prop_map(|(operation, row)| Act::Add(operation, Row::Account(row))),
        1 => Just(Act::Flush),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let on_delete =
        prop_oneof![3 => Just(Action::Refuse), 1 => Just(Action::Cascade), 1 => Just(Action::Set)];
    let max_rows = prop_oneof![1 => Just(1usize), 2 => 2..8usize, 2 => Just(1_000usize)];
    // Half of the cases stay in one table: unique values change hands there.
    let acts = prop_oneof![prop::collection::vec(act(), 1..60), prop::collection::vec(account_act(), 1..40)];
    (acts, max_rows, on_delete, prop::bool::weighted(0.2), prop::bool::weighted(0.8), any::<bool>()).prop_map(
        |(acts, max_rows, on_delete, atomic, receipts, tokens)| Case {
            acts,
            max_rows,
            on_delete,
            atomic,
            receipts,
            tokens,
            failure_ends_transaction: false,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any operations, with any batch size: the tables and the outcomes are those of the rows one by one.
    #[test]
    fn a_writer_does_what_its_rows_would_have_done_one_by_one(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(&case))?;
    }

    /// The same over a store in which a failed step takes its transaction with it.
    #[test]
    #[ignore = "a failed step that ends the transaction rejects its whole flush: the accepted steps are not replayed yet"]
    fn a_writer_lives_with_transactions_that_end(case in case()) {
        let case = Case { failure_ends_transaction: true, ..case };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(&case))?;
    }
}

async fn run(case: &Case) -> Result<(), TestCaseError> {
    let store = store(case);
    let db = Database::new(store.clone());
    // Lingering long, so that a flush is so many rows or what `flush` says, and the model knows which.
    let mut writer = db.writer().max_rows(case.max_rows).linger(Duration::from_secs(3_600));
    if case.atomic {
        writer = writer.atomic();
    }
    let writer = writer.start();
    let mut model = Model::new(case);
    let mut receipts = Vec::new();
    for act in &case.acts {
        match act {
            Act::Add(operation, row) => {
                let receipt = add(&writer, *operation, row).await;
                receipts.extend(case.receipts.then_some(receipt));
                model.add((*operation, row.clone()));
            }
            Act::Batch(operation, rows) => {
                let batch = batch_of(rows).unwrap();
                let receipt =
                    writer.add_batch(&Arc::new(Order::table().clone()), *operation, &batch).await.unwrap();
                let before = model.answers.len() + model.open.len();
                rows.iter().for_each(|row| model.add((*operation, Row::Order(row.clone()))));
                if case.receipts {
                    writer.flush().await.unwrap();
                    model.flush();
                    let outcomes =
                        receipt.outcomes().await.into_iter().map(|outcome| outcome.map_err(|e| e.kind()));
                    let outcomes: Vec<Answer> = outcomes.collect();
                    prop_assert_eq!(&outcomes, &model.answers[before..]);
                    // A batch has one receipt for all its rows: they are answered here.
                    receipts.extend(rows.iter().map(|_| None));
                }
            }
            Act::Flush => {
                writer.flush().await.unwrap();
                model.flush();
            }
        }
    }
    let report = writer.close().await.unwrap();
    model.flush();
    for (place, receipt) in receipts.into_iter().enumerate() {
        if let Some(receipt) = receipt {
            let answer = receipt.await.map_err(|error| error.kind());
            prop_assert_eq!(answer, model.answers[place], "row {}: {:?}", place, &model.rows[place]);
        }
    }
    model.compare(&store)?;
    let rejected = model.answers.iter().filter(|answer| answer.is_err()).count() as u64;
    prop_assert_eq!(report.statistics.added, model.answers.len() as u64);
    prop_assert_eq!(report.statistics.rejected, rejected);
    prop_assert_eq!(report.statistics.committed, report.statistics.added - rejected);
    prop_assert_eq!(report.rejected.len() as u64, rejected.min(100));
    Ok(())
}

fn store(case: &Case) -> MemoryStore {
    let mut store = MemoryStore::new();
    if case.tokens {
        store = store.commit_can_be_unknown();
    }
    if case.failure_ends_transaction {
        store = store.failure_ends_transaction();
    }
    store.create(MemoryTable::new(Account::table()).unique(&["email"])).unwrap();
    let orders = MemoryTable::new(Order::table())
        .foreign_key(&["account"], "accounts", &["id"], case.on_delete, Action::Refuse)
        .check("amount_positive", |row| *row.get("amount") >= Value::from(0));
    store.create(orders).unwrap();
    store.create(MemoryTable::new(Counter::table())).unwrap();
    store
}

async fn add(writer: &Writer, operation: Operation, row: &Row) -> Option<Receipt> {
    let receipt = match row {
        Row::Account(row) => writer.add(operation, row).await,
        Row::Order(row) => writer.add(operation, row).await,
        Row::Amount(row) => writer.add(operation, row).await,
        Row::Counter(row) => writer.add(operation, row).await,
    };
    Some(receipt.unwrap())
}

type Answer = Result<Outcome, ErrorKind>;

/// The tables, as plain maps.
#[derive(Clone, Debug, Default, PartialEq)]
struct Tables {
    accounts: BTreeMap<i64, Option<String>>,
    orders: BTreeMap<i64, (Option<i64>, i64)>,
    counters: BTreeMap<i64, i64>,
}

struct Model {
    tables: Tables,
    on_delete: Action,
    atomic: bool,
    max_rows: usize,
    /// The flush that gathers.
    open: Vec<Added>,
    /// All rows that were flushed, and their answers.
    rows: Vec<Added>,
    answers: Vec<Answer>,
}

impl Model {
    fn new(case: &Case) -> Self {
        Model {
            tables: Tables::default(),
            on_delete: case.on_delete,
            atomic: case.atomic,
            max_rows: case.max_rows,
            open: Vec::new(),
            rows: Vec::new(),
            answers: Vec::new(),
        }
    }

    fn add(&mut self, row: Added) {
        self.open.push(row);
        if self.open.len() == self.max_rows {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let rows = std::mem::take(&mut self.open);
        let before = self.tables.clone();
        let mut answers: Vec<Answer> = rows.iter().map(|row| self.apply(row)).collect();
        let named_later =
            |place: usize| rows[place + 1..].iter().any(|later| key(later) == key(&rows[place]));
        let broken = |answers: &[Answer]| -> Vec<usize> {
            let broken =
                |&place: &usize| answers[place] == Err(ErrorKind::ForeignKeyViolation) && !named_later(place);
            (0..rows.len()).filter(broken).collect()
        };
        loop {
            let again = broken(&answers);
            for &place in &again {
                answers[place] = self.apply(&rows[place]);
            }
            if broken(&answers).len() == again.len() {
                break;
            }
        }
        let failed = answers.iter().find_map(|answer| answer.err());
        if let Some(kind) = failed
            && self.atomic
        {
            self.tables = before;
            for answer in answers.iter_mut().filter(|answer| answer.is_ok()) {
                *answer = Err(kind);
            }
        }
        self.rows.extend(rows);
        self.answers.extend(answers);
    }

    fn apply(&mut self, (operation, row): &Added) -> Answer {
        match row {
            Row::Account(row) => self.account(*operation, row),
            Row::Order(row) => self.order(*operation, row),
            Row::Amount(row) => {
                let Some(order) = self.tables.orders.get_mut(&row.id) else { return Ok(Outcome::NotFound) };
                order.1 = row.amount;
                Ok(Outcome::Updated)
            }
            Row::Counter(row) => {
                let outcome = plain(*operation, self.tables.counters.contains_key(&row.id))?;
                match outcome {
                    Outcome::Inserted | Outcome::Updated => drop(self.tables.counters.insert(row.id, row.n)),
                    Outcome::Deleted => drop(self.tables.counters.remove(&row.id)),
                    _ => {}
                }
                Ok(outcome)
            }
        }
    }

    fn account(&mut self, operation: Operation, row: &Account) -> Answer {
        let outcome = plain(operation, self.tables.accounts.contains_key(&row.id))?;
        match outcome {
            Outcome::Inserted | Outcome::Updated => {
                let mut others = self.tables.accounts.iter().filter(|(id, _)| **id != row.id);
                if row.email.is_some() && others.any(|(_, email)| *email == row.email) {
                    return Err(ErrorKind::UniqueViolation);
                }
                self.tables.accounts.insert(row.id, row.email.clone());
            }
            Outcome::Deleted => {
                let is_child = |order: &(Option<i64>, i64)| order.0 == Some(row.id);
                match self.on_delete {
                    Action::Refuse if self.tables.orders.values().any(is_child) => {
                        return Err(ErrorKind::ForeignKeyViolation);
                    }
                    Action::Refuse => {}
                    Action::Cascade => self.tables.orders.retain(|_, order| !is_child(order)),
                    Action::Set => self
                        .tables
                        .orders
                        .values_mut()
                        .filter(|order| is_child(order))
                        .for_each(|order| order.0 = None),
                }
                self.tables.accounts.remove(&row.id);
            }
            _ => {}
        }
        Ok(outcome)
    }

    fn order(&mut self, operation: Operation, row: &Order) -> Answer {
        let there = self.tables.orders.contains_key(&row.id);
        let valid = row.amount >= 0;
        // A row to be inserted must be valid, though it may be there already.
        if !valid && matches!(operation, Operation::Upsert | Operation::InsertIfAbsent) {
            return Err(ErrorKind::CheckViolation);
        }
        let outcome = match plain(operation, there) {
            Err(_) | Ok(Outcome::Inserted | Outcome::Updated) if !valid => {
                return Err(ErrorKind::CheckViolation);
            }
            outcome => outcome?,
        };
        match outcome {
            Outcome::Inserted | Outcome::Updated => {
                if row.account.is_some_and(|account| !self.tables.accounts.contains_key(&account)) {
                    return Err(ErrorKind::ForeignKeyViolation);
                }
                self.tables.orders.insert(row.id, (row.account, row.amount));
            }
            Outcome::Deleted => drop(self.tables.orders.remove(&row.id)),
            _ => {}
        }
        Ok(outcome)
    }

    fn compare(&self, store: &MemoryStore) -> Result<(), TestCaseError> {
        let sorted = |table: &str| {
            let mut rows = store.rows(table);
            rows.sort();
            rows
        };
        let accounts: Vec<Vec<Value>> =
            self.tables.accounts.iter().map(|(id, email)| vec![(*id).into(), email.clone().into()]).collect();
        let orders: Vec<Vec<Value>> = self
            .tables
            .orders
            .iter()
            .map(|(id, (account, amount))| vec![(*id).into(), (*account).into(), (*amount).into()])
            .collect();
        let counters: Vec<Vec<Value>> =
            self.tables.counters.iter().map(|(id, n)| vec![(*id).into(), (*n).into()]).collect();
        prop_assert_eq!(sorted("accounts"), accounts);
        prop_assert_eq!(sorted("orders"), orders);
        prop_assert_eq!(sorted("counters"), counters);
        Ok(())
    }
}

/// What an operation does with a key that is there or isn't, constraints aside.
fn plain(operation: Operation, there: bool) -> Answer {
    match (operation, there) {
        (Operation::Insert, true) => Err(ErrorKind::UniqueViolation),
        (Operation::Insert | Operation::InsertIfAbsent | Operation::Upsert, false) => Ok(Outcome::Inserted),
        (Operation::InsertIfAbsent, true) => Ok(Outcome::Unchanged),
        (Operation::Upsert | Operation::Update, true) => Ok(Outcome::Updated),
        (Operation::Delete, true) => Ok(Outcome::Deleted),
        (Operation::Update | Operation::Delete, false) => Ok(Outcome::NotFound),
    }
}

/// The table and the key that a row names.
fn key((_, row): &Added) -> (&'static str, i64) {
    match row {
        Row::Account(row) => ("accounts", row.id),
        Row::Order(row) => ("orders", row.id),
        Row::Amount(row) => ("orders", row.id),
        Row::Counter(row) => ("counters", row.id),
    }
}
