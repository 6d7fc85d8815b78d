use barge::Record;

type Nanoseconds = i64;

#[derive(Record)]
#[record(table = "tasks")]
struct Task {
    #[record(created_at)]
    created_at: Option<String>,
    #[record(updated_at)]
    updated_at: Nanoseconds,
}

fn main() {}
