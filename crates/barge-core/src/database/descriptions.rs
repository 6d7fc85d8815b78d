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

/// Tables as they were described, under the names they were asked for: one table may have several, as `t` and `public.t`, and its
/// description has the one that the database gives it.
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
        self.lock().values().any(|known| Arc::ptr_eq(known, description))
    }

    /// Forgets a table under all its names.
    pub(crate) fn forget(&self, table: &TableName) {
        self.lock().retain(|name, known| name != table && known.name != *table);
    }

    pub(crate) fn forget_all(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TableName, Arc<Description>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::TableKind;

    fn described(name: TableName) -> Arc<Description> {
        Arc::new(Description {
            name,
            kind: TableKind::Table,
            partitioned: false,
            inherited: false,
            columns: Vec::new(),
            key: Vec::new(),
            unique: Vec::new(),
            foreign_keys: Vec::new(),
            referenced_by: Vec::new(),
            triggers: Vec::new(),
            reacts_to_inserts: false,
        })
    }

    /// A table that was asked for with its schema was never found again, nor forgotten.
    #[test]
    fn a_table_is_remembered_and_forgotten_under_all_its_names() {
        let (descriptions, described) = (Descriptions::default(), described(TableName::new("t")));
        let names = [TableName::new("t"), TableName::in_schema("public", "t")];
        for name in &names {
            descriptions.lock().insert(name.clone(), Arc::clone(&described));
        }
        assert!(descriptions.holds(&described));
        descriptions.lock().remove(&names[0]);
        assert!(descriptions.holds(&described));
        descriptions.forget(&names[0]);
        assert!(!descriptions.holds(&described));
    }
}
