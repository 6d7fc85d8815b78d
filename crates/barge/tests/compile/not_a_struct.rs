use barge::{FromRow, Record};

#[derive(Record)]
#[record(table = "tasks")]
struct Tuple(i64, String);

#[derive(Record)]
#[record(table = "tasks")]
struct Unit;

#[derive(Record, FromRow)]
#[record(table = "tasks")]
enum Status {
    Pending,
}

#[derive(FromRow)]
union Either {
    one: i64,
    other: f64,
}

#[derive(Record)]
#[record(table = "tasks")]
struct Nothing {
    #[record(skip)]
    id: i64,
}

fn main() {}
