use barge::Record;
use chrono::{DateTime, NaiveDateTime, Utc};

#[derive(Record)]
#[record(table = "tasks")]
struct TwoCreations {
    #[record(created_at)]
    created: Option<DateTime<Utc>>,
    #[record(created_at)]
    born: Option<DateTime<Utc>>,
}

#[derive(Record)]
#[record(table = "tasks")]
struct TwoUpdates {
    #[record(updated_at)]
    updated: Option<NaiveDateTime>,
    #[record(updated_at)]
    changed: Option<NaiveDateTime>,
}

#[derive(Record)]
#[record(table = "tasks")]
struct Both {
    #[record(created_at, updated_at)]
    at: Option<DateTime<Utc>>,
}

#[derive(Record)]
#[record(table = "tasks")]
struct NotOptional {
    #[record(created_at)]
    at: DateTime<Utc>,
}

fn main() {}
