//! The two data sets of the repository.

use crate::Place;

fn data(name: &str) -> String {
    format!("{}/../../data/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_command_of_the_readme_loads_prices() {
    let place = Place::new();
    let file = data("sp500-2000.csv");
    let arguments = ["load", &file, "--to", "sqlite:market.db", "--table", "prices", "--key", "date"];
    let run = place.barge(&arguments).ends(0);
    assert!(run.out.starts_with("Loaded ") && run.has_line("written 5,105"), "{}", run.out);
    let connection = rusqlite::Connection::open(place.path("market.db")).unwrap();
    let sql = "SELECT count(*), min(date), max(date), max(volume), round(sum(close), 2) FROM prices";
    let found: (i64, String, String, i64, f64) = connection
        .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
        .unwrap();
    let mut total = 0.0;
    for line in std::fs::read_to_string(&file).unwrap().lines().skip(1) {
        total += line.split(',').nth(4).unwrap().parse::<f64>().unwrap();
    }
    assert_eq!((found.0, &*found.1, &*found.2, found.3), (5_105, "2000-01-03", "2020-04-17", 11_456_230_000));
    assert!((found.4 - total).abs() < 0.01, "{found:?} {total}");

    // A second time every row is there already; as an upsert it is welcome.
    let run = place.barge(&[&arguments[..], &["--json"]].concat()).ends(3);
    assert_eq!(run.counts(), [5_105, 0, 5_105]);
    assert_eq!(run.rejected().len(), 10);
    let run = place.barge(&[&arguments[..], &["--json", "--mode", "upsert"]].concat()).ends(0);
    assert_eq!(run.json()["rows_updated"], 5_105);
}

#[test]
fn two_hundred_thousand_flights_load() {
    let place = Place::new();
    let run = place.load(&data("flights-200k.arrow"), &["--json"]).ends(0);
    assert_eq!(run.counts(), [200_000, 200_000, 0]);
    let found = place.rows("SELECT count(*), min(delay), max(delay), min(distance), max(distance) FROM t");
    assert_eq!(found, ["200000|-86|1444|30|4962"]);

    // Nothing in it is a key: all but the first row of each time are rejected, and the first of those are told.
    place.sql().execute_batch("DROP TABLE t").unwrap();
    let run = place.load(&data("flights-200k.arrow"), &["--key", "time", "--json"]).ends(3);
    let [read, written, rejected] = run.counts();
    assert_eq!((read, place.count("t") as u64), (written + rejected, written));
    assert_eq!(run.rejected().len(), 10);
}
