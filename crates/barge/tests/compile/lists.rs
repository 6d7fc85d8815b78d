use barge::Record;

#[derive(Record)]
#[record(table = "lists")]
struct Lists {
    points: Vec<[f32; 2]>,
    bytes: Vec<Option<u8>>,
}

fn main() {}
