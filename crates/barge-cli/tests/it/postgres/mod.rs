//! The program against PostgreSQL.

mod connecting;
mod export;
mod load;
mod replace;
mod running;
mod types;

use std::thread;

use barge_testkit::servers::{self, TestDatabase};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::{Place, Run};

/// A directory where the program runs, and a database of the test's own.
struct Server {
    place: Place,
    database: TestDatabase,
}

impl Server {
    fn new() -> Self {
        Server { place: Place::new(), database: servers::postgres().database() }
    }

    /// A server whose database has tables.
    fn with(sql: &str) -> Self {
        let server = Server::new();
        server.run(sql);
        server
    }

    fn url(&self) -> String {
        self.database.url()
    }

    fn run(&self, sql: &str) {
        query(&self.url(), sql);
    }

    /// The rows of a query, values joined by `|`, NULL as `∅`.
    fn rows(&self, sql: &str) -> Vec<String> {
        query(&self.url(), sql)
    }

    fn count(&self, table: &str) -> u64 {
        self.rows(&format!("SELECT count(*) FROM {table}"))[0].parse().unwrap()
    }

    fn barge(&self, arguments: &[&str]) -> Run {
        self.place.barge(arguments)
    }

    /// The arguments of `barge load` into table t.
    fn arguments<'a>(&self, url: &'a str, file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["load", file, "--to", url, "--table", "t"], more].concat()
    }

    /// `barge load` into table t.
    fn load(&self, file: &str, more: &[&str]) -> Run {
        self.barge(&self.arguments(&self.url(), file, more))
    }

    /// The tables of the database that the program or the test made.
    fn tables(&self) -> Vec<String> {
        self.rows(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relname <> 'barge_flushes' \
             AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) \
             AND relname !~ '^pg_' ORDER BY relname",
        )
    }
}

/// Runs statements over a connection of their own, and gives the rows of all of them.
fn query(url: &str, sql: &str) -> Vec<String> {
    let run = async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        let messages = client.simple_query(sql).await.unwrap_or_else(|error| {
            panic!("{sql}: {}", error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string))
        });
        drop(client);
        connection.await.unwrap().unwrap();
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|column| row.get(column).unwrap_or("∅").to_owned())
                    .collect::<Vec<_>>()
                    .join("|"),
            ),
            _ => None,
        });
        rows.collect()
    };
    thread::scope(|scope| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        scope.spawn(move || runtime.block_on(run)).join().unwrap()
    })
}
