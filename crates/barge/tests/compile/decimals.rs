use barge::Record;
use rust_decimal::Decimal;

#[derive(Record)]
#[record(table = "accounts")]
struct NoDigits {
    #[record(decimal(0, 0))]
    amount: Decimal,
}

#[derive(Record)]
#[record(table = "accounts")]
struct TooManyDigits {
    #[record(decimal(39, 2))]
    amount: Decimal,
}

#[derive(Record)]
#[record(table = "accounts")]
struct MorePlacesThanDigits {
    #[record(decimal(4, 5))]
    amount: Decimal,
}

#[derive(Record)]
#[record(table = "accounts")]
struct NoScale {
    #[record(decimal(4))]
    amount: Decimal,
}

#[derive(Record)]
#[record(table = "accounts")]
struct NoParentheses {
    #[record(decimal = "4, 2")]
    amount: Decimal,
}

fn main() {}
