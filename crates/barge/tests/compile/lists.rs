use barge::Record;

struct Point {
    x: f64,
    y: f64,
}

#[derive(Record)]
#[record(table = "lists")]
struct Lists {
    points: Vec<Point>,
    bytes: Vec<Option<u8>>,
}

fn main() {}
