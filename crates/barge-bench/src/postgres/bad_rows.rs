//! What bad rows cost: one in a thousand, of each kind, against the same load without any.

use barge::{Database, ErrorKind, Record};

use super::Bench;
use crate::measure::{Contest, Run};
use crate::rows::Task;

/// One row of so many is bad.
const EVERY: usize = 1_000;

/// The rows' table. The key to `accounts` and the trigger cost a clean row, too, so they have tables of their own.
const CREATE: &str = "CREATE TABLE tasks (id bigint PRIMARY KEY, task_type varchar(10) NOT NULL, status text NOT NULL, \
     data text NOT NULL, account bigint NOT NULL, amount double precision NOT NULL CHECK (amount >= 0)) \
     WITH (autovacuum_enabled = off)";
const FOREIGN_KEY: &str = "ALTER TABLE tasks ADD FOREIGN KEY (account) REFERENCES accounts";
const TRIGGER: &str = "CREATE TRIGGER refuse BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION refuse()";
const REFUSE: &str = "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
     IF new.status = 'REFUSED' THEN RAISE EXCEPTION 'refused'; END IF; RETURN new; END $$";

/// A task that may lack its status.
#[derive(Record)]
#[record(table = "tasks")]
struct Row<'a> {
    #[record(key)]
    id: i64,
    task_type: &'a str,
    status: Option<&'a str>,
    data: &'a str,
    account: i64,
    amount: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Clean,
    UniqueInBatch,
    UniqueInTable,
    Check,
    NotNull,
    TooLong,
    NulByte,
    ForeignKey,
    Raised,
    /// All that the table with everything knows, in turn.
    Every,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Plain,
    WithForeignKey,
    WithTrigger,
    WithBoth,
}

/// A kind of bad row, and what it is called.
type Named = (Kind, &'static str);

const PARTS: [(Place, &str, &[Named]); 4] = [
    (
        Place::Plain,
        "clean, key and checks",
        &[
            (Kind::UniqueInBatch, "key twice in the batch"),
            (Kind::UniqueInTable, "key in the table already"),
            (Kind::Check, "check violated"),
            (Kind::NotNull, "NULL where none may be"),
            (Kind::TooLong, "longer than varchar(10)"),
            (Kind::NulByte, "NUL byte in a text"),
        ],
    ),
    (Place::WithForeignKey, "clean, with a foreign key", &[(Kind::ForeignKey, "no such parent")]),
    (Place::WithTrigger, "clean, with a trigger", &[(Kind::Raised, "the trigger raises")]),
    (Place::WithBoth, "clean, with both", &[(Kind::Every, "all these kinds in turn")]),
];

pub(super) fn run(bench: &Bench) {
    let rows = bench.many;
    println!("\n### {} bad rows among {rows}\n", rows / EVERY);
    println!(
        "Through a Writer with its default limits; the column says how many times the clean load's time it takes.\n"
    );
    println!("| load | rows/s | times the clean load |\n|---|---|---|");
    let server = &bench.server;
    server.run(&[
        "DROP TABLE IF EXISTS tasks, accounts",
        "CREATE TABLE accounts (id bigint PRIMARY KEY)",
        "INSERT INTO accounts SELECT generate_series(0, 50000)",
        REFUSE,
    ]);
    let tasks = bench.rows(rows);
    for (place, clean, kinds) in PARTS {
        let mut contest = Contest::new();
        for &(kind, name) in [(Kind::Clean, clean)].iter().chain(kinds) {
            let tasks = &tasks;
            contest.add(name, move || load(bench, place, kind, tasks));
        }
        let results = contest.hold(bench.rounds);
        for (contender, name) in results.names().enumerate() {
            let times = match contender {
                0 => String::new(),
                _ => format!("**{:.2}**", results.ratio(0, contender)),
            };
            println!("| {name} | {} | {times} |", results.rate(contender));
        }
    }
}

fn load(bench: &Bench, place: Place, kind: Kind, tasks: &[Task]) -> Run {
    let server = &bench.server;
    server.run(&["DROP TABLE IF EXISTS tasks", CREATE]);
    if matches!(place, Place::WithForeignKey | Place::WithBoth) {
        server.run(&[FOREIGN_KEY]);
    }
    if matches!(place, Place::WithTrigger | Place::WithBoth) {
        server.run(&[TRIGGER]);
    }
    let there = matches!(kind, Kind::UniqueInTable | Kind::Every);
    if there {
        let step = EVERY;
        server.run(&[&format!(
            "INSERT INTO tasks SELECT {} + n * {step}, '', '', '', 0, 0 FROM generate_series(0, {}) AS n",
            in_table(EVERY / 2),
            tasks.len() / step - 1
        )]);
    }
    server.run(&["CHECKPOINT"]);
    let bad = if kind == Kind::Clean { 0 } else { tasks.len() / EVERY };
    server.block_on(async {
        let database = barge::open(server.url()).await.unwrap();
        let started = std::time::Instant::now();
        let rejected = write(&database, kind, tasks).await;
        let time = started.elapsed();
        assert_eq!(rejected, bad as u64);
        database.close().await.unwrap();
        Run { rows: tasks.len(), time }
    })
}

async fn write(database: &Database, kind: Kind, tasks: &[Task]) -> u64 {
    let writer = database.writer().start();
    for (place, task) in tasks.iter().enumerate() {
        let mut row = Row {
            id: task.id,
            task_type: &task.task_type,
            status: Some(&task.status),
            data: &task.data,
            account: task.account,
            amount: task.amount,
        };
        if place % EVERY == EVERY / 2 {
            spoil(&mut row, kind, place);
        }
        drop(writer.insert(&row).await.unwrap());
    }
    let report = writer.close().await.unwrap();
    let kinds = [
        ErrorKind::UniqueViolation,
        ErrorKind::CheckViolation,
        ErrorKind::NotNullViolation,
        ErrorKind::InvalidValue,
        ErrorKind::ForeignKeyViolation,
        ErrorKind::Statement,
    ];
    for rejected in &report.rejected {
        assert!(kinds.contains(&rejected.error.kind()), "{}", rejected.error);
    }
    report.statistics.rejected
}

fn spoil(row: &mut Row<'_>, kind: Kind, place: usize) {
    match kind {
        Kind::Clean => {}
        Kind::UniqueInBatch => row.id -= 1,
        Kind::UniqueInTable => row.id = in_table(place),
        Kind::Check => row.amount = -1.0,
        Kind::NotNull => row.status = None,
        Kind::TooLong => row.task_type = "longer than that",
        Kind::NulByte => row.data = "a\0b",
        Kind::ForeignKey => row.account = 1_000_000,
        Kind::Raised => row.status = Some("REFUSED"),
        Kind::Every => {
            let kinds = [
                Kind::UniqueInBatch,
                Kind::UniqueInTable,
                Kind::Check,
                Kind::NotNull,
                Kind::TooLong,
                Kind::NulByte,
                Kind::ForeignKey,
                Kind::Raised,
            ];
            spoil(row, kinds[place / EVERY % kinds.len()], place);
        }
    }
}

/// The key that is in the table for the bad row at this place: beyond those of the rows.
fn in_table(place: usize) -> i64 {
    10_000_000 + place as i64
}
