use barge::Record;
use chrono::{DateTime, Utc};

#[derive(Record)]
#[record(table = "tasks")]
struct OptionalKey {
    #[record(key)]
    id: Option<i64>,
}

#[derive(Record)]
#[record(table = "tasks")]
struct GeneratedWithoutKey {
    #[record(generated)]
    id: Option<i64>,
}

#[derive(Record)]
#[record(table = "tasks")]
struct GeneratedAmongOthers {
    #[record(key)]
    tenant: i64,
    #[record(key, generated)]
    id: Option<i64>,
}

#[derive(Record)]
#[record(table = "tasks")]
struct FilledKey {
    #[record(key, created_at)]
    at: DateTime<Utc>,
}

#[derive(Record)]
#[record(table = "tasks")]
struct SkippedKey {
    #[record(key, skip)]
    id: i64,
    name: String,
}

fn main() {}
