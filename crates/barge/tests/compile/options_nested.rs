use barge::{FromRow, Record};

#[derive(Record, FromRow)]
#[record(table = "options")]
struct Options {
    value: Option<Option<i64>>,
}

fn main() {}
