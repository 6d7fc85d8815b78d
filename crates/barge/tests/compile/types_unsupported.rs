use barge::Record;

struct Point {
    x: f64,
    y: f64,
}

#[derive(Record)]
#[record(table = "places")]
struct Place<'a> {
    count: usize,
    position: Option<Point>,
    name: &'a std::path::Path,
}

fn main() {}
