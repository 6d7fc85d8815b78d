//! What is remembered of tables, and who is asked about them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use arrow::array::RecordBatch;

use crate::store::{Description, Operation, Store, Target, Transaction};
use crate::{Result, Table, TableName};

/// Who says how tables are: the database as everybody sees it, or a transaction, which has a connection already and sees what it changed.
pub(crate) enum Asked<'a> {
    Store(&'a dyn Store),
    Transaction(&'a mut dyn Transaction),
}

impl Asked<'_> {
    pub(crate) async fn describe(&mut self, table: &TableName) -> Result<Description> {
        match self {
            Asked::Store(store) => store.describe(table).await,
            Asked::Transaction(transaction) => transaction.describe(table).await,
        }
    }

    pub(crate) async fn key_groups(&mut self, target: &Target, keys: &RecordBatch) -> Result<Vec<u32>> {
        match self {
            Asked::Store(store) => store.key_groups(target, keys).await,
            Asked::Transaction(transaction) => transaction.key_groups(target, keys).await,
        }
    }
}

/// Tables as they were described.
#[derive(Debug, Default)]
pub(crate) struct Descriptions(Mutex<HashMap<TableName, Arc<Description>>>);

impl Descriptions {
    /// A record's table held against the database's, which is asked where nothing is remembered.
    pub(crate) async fn target(
        &self,
        asked: &mut Asked<'_>,
        table: &Table,
        operation: Operation,
    ) -> Result<Arc<Target>> {
        let target = self
            .hold(asked, table.name(), |description| Target::new(table, operation, Arc::clone(description)));
        target.await.map(Arc::new)
    }

    /// Holds something against a table's description. Where what is remembered doesn't fit, the table may have changed since: it is
    /// described anew.
    pub(crate) async fn hold<T>(
        &self,
        asked: &mut Asked<'_>,
        table: &TableName,
        against: impl Fn(&Arc<Description>) -> Result<T>,
    ) -> Result<T> {
        let known = self.lock().get(table).cloned();
        if let Some(Ok(held)) = known.as_ref().map(&against) {
            return Ok(held);
        }
        against(&self.ask(asked, table).await?)
    }

    /// Has a table described, and remembers it.
    pub(crate) async fn ask(&self, asked: &mut Asked<'_>, table: &TableName) -> Result<Arc<Description>> {
        let description = Arc::new(asked.describe(table).await?);
        self.lock().insert(table.clone(), Arc::clone(&description));
        Ok(description)
    }

    /// Whether a description is the one remembered.
    pub(crate) fn holds(&self, description: &Arc<Description>) -> bool {
        self.lock().get(&description.name).is_some_and(|known| Arc::ptr_eq(known, description))
    }

    pub(crate) fn forget(&self, table: &TableName) {
        self.lock().remove(table);
    }

    pub(crate) fn forget_all(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TableName, Arc<Description>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
