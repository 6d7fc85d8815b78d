use barge::Record;

type MaybeId = Option<i64>;
type Id = i64;

#[derive(Record)]
#[record(table = "tasks")]
struct OptionalKey {
    #[record(key)]
    id: MaybeId,
}

#[derive(Record)]
#[record(table = "tasks")]
struct GeneratedKey {
    #[record(key, generated)]
    id: Id,
}

fn main() {}
