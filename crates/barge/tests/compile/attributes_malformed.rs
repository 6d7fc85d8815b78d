use barge::Record;

#[derive(Record)]
#[record]
struct NoParentheses {
    id: i64,
}

#[derive(Record)]
#[record(table)]
struct NoName {
    id: i64,
}

#[derive(Record)]
#[record(table = "")]
struct EmptyName {
    id: i64,
}

#[derive(Record)]
#[record(table = "a", table = "b")]
struct TwoTables {
    id: i64,
}

#[derive(Record)]
#[record(table = "tasks", rename_all = "Camel")]
struct NoSuchRule {
    id: i64,
}

#[derive(Record)]
#[record(table = "tasks")]
struct TwiceOnAField {
    #[record(key)]
    #[record(key)]
    id: i64,
    #[record(key = true)]
    other: i64,
    #[record(rename = "")]
    empty: i64,
    #[record(rename = "a\0")]
    nul: i64,
}

fn main() {}
