use barge::TextEnum;

#[derive(TextEnum)]
struct Status {
    done: bool,
}

#[derive(TextEnum)]
enum Shape {
    Point,
    Circle(f64),
    Square { side: f64 },
}

#[derive(TextEnum)]
enum Never {}

#[derive(TextEnum)]
#[text(rename_all = "lowercase")]
enum Twice {
    Ab,
    #[text(rename = "x")]
    Cd,
    AB,
}

#[derive(TextEnum)]
enum Empty {
    #[text(rename = "")]
    Nothing,
}

#[derive(TextEnum)]
#[text(rename = "status")]
enum RenamedWhole {
    Done,
}

#[derive(TextEnum)]
enum RuleOnVariant {
    #[text(rename_all = "lowercase")]
    Done,
}

#[derive(TextEnum)]
#[text(rename_all = "loud")]
enum NoSuchRule {
    Done,
}

#[derive(TextEnum)]
enum Generic<'a> {
    Done(&'a str),
}

fn main() {}
