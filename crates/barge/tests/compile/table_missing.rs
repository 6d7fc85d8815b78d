use barge::Record;

#[derive(Record)]
struct AuditEntry {
    id: i64,
}

#[derive(Record)]
#[record(schema = "app")]
struct Task {
    id: i64,
}

fn main() {}
