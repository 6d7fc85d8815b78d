use barge::FromRow;

#[derive(FromRow)]
struct Place {
    name: &'static str,
    size: u128,
}

fn main() {}
