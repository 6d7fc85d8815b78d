//! The engine of Barge, without any native database in it. Applications depend on the facade, `barge`.

extern crate self as barge;

pub mod cache;
mod database;
pub mod engine;
mod error;
pub mod record;
pub mod store;

pub use barge_derive::{FromRow, Record, TextEnum};
pub use cache::Cache;
pub use database::{Database, LookUpBy, Tx, Written};
pub use engine::batcher::{Answer, Batcher, BatcherBuilder, Requests};
pub use engine::loader::{
    Loader, LoaderBuilder, LoaderKey, LoaderStatistics, LoaderValue, Progress, Scope, WarmOptions, Warmed,
};
pub use engine::writer::{BatchReceipt, Receipt, Rejected, Report, Writer, WriterBuilder, WriterConfig};
pub use engine::{FlushReason, Limits, Retry, Statistics, WhenFull};
pub use error::{Error, ErrorKind, Result};
pub use record::{FromRow, Key, Keys, OwnedKey, Record, Table, TableName};
pub use store::{Dialect, Direction, Operation, Outcome, Sql, Store, Transaction};

/// What the derives' code names. Not for applications.
#[doc(hidden)]
pub mod derive_support {
    pub use arrow;

    pub use crate::Result;
    pub use crate::record::derived::*;
    pub use crate::record::value::*;
    pub use crate::record::{Column, Columns, FromRow, Record, Role, Table, TableName};
}
