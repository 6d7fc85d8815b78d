//! The server that everyone is measured against.

use std::future::Future;
use std::path::Path;
use std::process::Command;

use barge_testkit::servers::{OwnPostgres, own_postgres_with};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls};

/// PostgreSQL's own defaults, which the testkit's servers lower: a commit is on disk when it is answered.
const DEFAULTS: &str = "fsync = on\nfull_page_writes = on\nmax_wal_size = 1GB\nmin_wal_size = 80MB\n\
     dynamic_shared_memory_type = posix\n";

/// What is printed, so that figures can be told apart.
const SHOWN: [&str; 8] = [
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "shared_buffers",
    "max_wal_size",
    "wal_level",
];

/// The rows' table, without the vacuum that would run beside whoever comes next.
const CREATE: &str = "CREATE TABLE tasks (id bigint PRIMARY KEY, task_type text NOT NULL, status text NOT NULL, \
     data text NOT NULL, account bigint NOT NULL, amount double precision NOT NULL) WITH (autovacuum_enabled = off)";

/// A server, and a connection to prepare the runs with.
pub(super) struct Server {
    url: String,
    client: Client,
    runtime: Runtime,
    own: Option<OwnPostgres>,
}

impl Server {
    /// A server of the benchmark's own, or the one named.
    pub(super) fn start(url: Option<&str>) -> Self {
        let own = url.is_none().then(|| own_postgres_with(DEFAULTS));
        let url = url.map(str::to_owned).or_else(|| own.as_ref().map(OwnPostgres::url)).unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
            tokio::spawn(connection);
            client
        });
        Server { url, client, runtime, own }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The same for connections that keep prepared statements, which not every pooler before a server can take.
    pub(super) fn url_with_kept_statements(&self) -> String {
        let mark = if self.url.contains('?') { '&' } else { '?' };
        format!("{}{mark}statement_cache=100", self.url)
    }

    pub(super) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Runs statements, each in a transaction of its own.
    pub(super) fn run(&self, statements: &[&str]) {
        for statement in statements {
            self.block_on(self.client.batch_execute(statement)).unwrap();
        }
    }

    /// An empty table, with all that was written before on disk: nobody pays for another's writes.
    pub(super) fn new_table(&self) {
        self.run(&["DROP TABLE IF EXISTS tasks", CREATE, "CHECKPOINT"]);
    }

    /// The rows of the table.
    pub(super) fn count(&self) -> usize {
        let row = self.block_on(self.client.query_one("SELECT count(*) FROM tasks", &[])).unwrap();
        row.get::<_, i64>(0) as usize
    }

    pub(super) fn settings(&self) -> String {
        let shown = SHOWN.map(|name| {
            let row = self.block_on(self.client.query_one(&format!("SHOW {name}"), &[])).unwrap();
            format!("{name} {}", row.get::<_, String>(0))
        });
        let place = self.own.as_ref().and_then(|own| file_system(own.directory()));
        let place = place.map(|place| format!("; its data on {place}")).unwrap_or_default();
        format!("The server: {}{place}.", shown.join(", "))
    }
}

/// The kind of file system a directory is on: a server in memory would keep nothing, and pay nothing for it.
fn file_system(directory: &Path) -> Option<String> {
    let output = Command::new("stat").args(["--file-system", "--format=%T"]).arg(directory).output().ok()?;
    String::from_utf8(output.stdout).ok().map(|kind| kind.trim().to_owned())
}
