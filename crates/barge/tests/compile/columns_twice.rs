use barge::Record;

#[derive(Record)]
#[record(table = "tasks")]
struct Renamed {
    name: String,
    #[record(rename = "name")]
    title: String,
}

#[derive(Record)]
#[record(table = "tasks", rename_all = "UPPERCASE")]
struct RenamedByRule {
    name: String,
    #[allow(non_snake_case)]
    NAME: String,
}

#[derive(Record)]
#[record(table = "tasks")]
struct Reserved {
    _ordinal: i64,
}

fn main() {}
