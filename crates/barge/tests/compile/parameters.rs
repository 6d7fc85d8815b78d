use barge::{FromRow, Record};

#[derive(Record)]
#[record(table = "tasks")]
struct Generic<'a, T> {
    name: &'a str,
    value: T,
}

#[derive(Record, FromRow)]
#[record(table = "tasks")]
struct Embedding<const N: usize> {
    vector: [f32; N],
}

#[derive(FromRow)]
struct Borrowed<'a> {
    name: &'a str,
}

fn main() {}
