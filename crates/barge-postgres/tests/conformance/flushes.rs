//! Random flushes into PostgreSQL, against the row-by-row model that the other stores are held against.

use barge_testkit::flushes::{self, Model};

use super::{Kind, Postgres};

#[test]
fn a_flush_does_what_the_model_does() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let harness = Postgres::new(Kind::Plain);
    flushes::for_each(60, |case| runtime.block_on(flushes::check(&case, &harness, Model::default())));
}
