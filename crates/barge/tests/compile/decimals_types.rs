use barge::{FromRow, Record};

#[derive(Record, FromRow)]
#[record(table = "accounts")]
struct Account {
    #[record(decimal(12, 2))]
    amount: f64,
}

fn main() {}
