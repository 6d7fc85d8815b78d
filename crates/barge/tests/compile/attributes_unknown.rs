use barge::{FromRow, Record};

#[derive(Record)]
#[record(tabel = "tasks")]
struct MisspeltTable {
    id: i64,
}

#[derive(Record)]
#[record(table = "tasks")]
struct MisspeltKey {
    #[record(kye)]
    id: i64,
}

#[derive(Record)]
#[record(table = "tasks", key = "id")]
struct KeyOnTheStruct {
    id: i64,
}

#[derive(Record)]
#[record(table = "tasks")]
struct RenameAllOnAField {
    #[record(rename_all = "camelCase")]
    id: i64,
}

#[derive(FromRow)]
struct SerdesWord {
    #[record(default)]
    id: i64,
}

fn main() {}
