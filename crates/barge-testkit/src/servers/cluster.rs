//! Makes and starts a PostgreSQL cluster in a [`Nest`].

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::Pid;

use super::keeper::{Ending, Hold, Nest, has_ended, wait_for};
use super::place::Account;

/// What every server runs with. Its data is thrown away, so nothing is forced to disk, and may be in memory, so its log is
/// kept short. Shared memory is in its directory, so that a server which was killed leaves none behind. What a commit means
/// to clients is left alone.
const SETTINGS: &str = "\
listen_addresses = '127.0.0.1'
fsync = off
full_page_writes = off
max_connections = 200
shared_buffers = 128MB
max_wal_size = 256MB
min_wal_size = 32MB
dynamic_shared_memory_type = mmap
lc_messages = 'C'
log_destination = 'stderr'
logging_collector = off
";

/// Who may connect: over the loopback address and the Unix socket in the server's own directory. A superuser can run
/// programs as the server's account, and anybody on this machine can be one, while tests run.
pub(super) const ACCESS: &str = "\
host all with_password 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
local all all trust
";

/// An immediate shutdown, which stops the server's children, too.
pub(super) const ENDING: Ending = Ending { grace: Duration::ZERO, signal: "QUIT" };

/// What a cluster is to be like.
pub(super) struct Cluster<'a> {
    pub(super) port: u16,
    /// Lines for `postgresql.conf`, after those that every server has.
    pub(super) settings: &'a str,
    /// The whole `pg_hba.conf`.
    pub(super) access: &'a str,
}

impl Cluster<'_> {
    /// Makes the cluster: its folders, the superuser `postgres`, the other roles, and the configuration.
    pub(super) fn make(&self, nest: &Nest) {
        let data = nest.directory.join("data");
        let mut initdb = nest.account.command(program("initdb"));
        initdb.args(["--no-sync", "--no-instructions", "--username=postgres", "--auth=trust"]);
        initdb.args(["--encoding=UTF8", "--locale=C", "--pgdata"]).arg(&data).current_dir(&nest.directory);
        must_succeed(&mut initdb);

        let socket = nest.directory.join("socket");
        fs::create_dir(&socket).unwrap_or_else(|error| panic!("cannot make {}: {error}", socket.display()));
        nest.account.give(&socket);
        // Written over what initdb has put there, whose owner stays.
        write(&data.join("postgresql.conf"), &self.configuration(&socket));
        write(&data.join("pg_hba.conf"), self.access);
        write(&nest.directory.join("port"), &self.port.to_string());
        make_roles(nest);
    }

    fn configuration(&self, socket: &Path) -> String {
        let Self { port, settings, .. } = self;
        // A socket's whole path has to be short. TCP does without.
        let is_short = socket.join(".s.PGSQL.65535").as_os_str().len() < 104;
        let socket = if is_short { socket } else { Path::new("") }.display();
        format!("{SETTINGS}port = {port}\nunix_socket_directories = '{socket}'\n{settings}\n")
    }
}

/// Makes the roles before the server runs, so that a server that accepts connections is complete.
fn make_roles(nest: &Nest) {
    let statements = nest.directory.join("roles.sql");
    write(
        &statements,
        "create role with_password login password 'secret'; create role with_certificate login\n",
    );
    let input = fs::File::open(&statements).expect("the statements were just written");
    let mut single = nest.account.command(program("postgres"));
    single.args(["--single", "-j", "-D"]).arg(nest.directory.join("data")).arg("postgres").stdin(input);
    must_succeed(single.current_dir(&nest.directory));
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

/// The command that runs the cluster in a directory.
pub(super) fn command_of(directory: &Path) -> [PathBuf; 3] {
    [program("postgres"), "-D".into(), directory.join("data")]
}

/// Starts a server and waits until it accepts connections.
pub(super) fn start(hold: &Hold) {
    hold.start();
    wait_for("PostgreSQL to accept connections", || {
        let ended = hold.process().is_none_or(has_ended);
        assert!(!ended, "PostgreSQL did not start:\n{}", log_in(&hold.directory));
        is_ready(hold)
    });
}

/// Removes the one piece of shared memory that is not in the directory, of a server that was killed. It would stay until
/// the machine is started again, and its number is limited. Its identifier is in the seventh line of the lock file.
pub(super) fn remove_shared_memory(directory: &Path, account: Account) {
    let lines = fs::read_to_string(directory.join("data/postmaster.pid")).unwrap_or_default();
    if let Some(identifier) = lines.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
        // Where this fails, the server's next start takes care of it.
        let _ = account.command("ipcrm").args(["-m", identifier]).output();
    }
}

/// Whether the running server accepts connections, which its lock file says in the eighth line. A connection would prove
/// less: another server could have taken the port.
fn is_ready(hold: &Hold) -> bool {
    let lines = fs::read_to_string(hold.directory.join("data/postmaster.pid")).unwrap_or_default();
    let of_this_start = lines.lines().next().and_then(|line| line.trim().parse().ok())
        == hold.process().map(Pid::as_raw_nonzero);
    of_this_start && lines.lines().nth(7).is_some_and(|line| line.trim() == "ready")
}

fn log_in(directory: &Path) -> String {
    fs::read_to_string(directory.join("log")).unwrap_or_default()
}

/// One of PostgreSQL's programs.
fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(find_programs).join(name)
}

fn find_programs() -> PathBuf {
    let named = env::var_os("BARGE_TEST_POSTGRES_BIN").map(PathBuf::from);
    let in_path =
        env::var_os("PATH").into_iter().flat_map(|path| env::split_paths(&path).collect::<Vec<_>>());
    let candidates = named.into_iter().chain(in_path).chain(folder_by_pg_config()).chain(folders_of_debian());
    let has_server = |folder: &PathBuf| ["initdb", "postgres"].iter().all(|name| folder.join(name).is_file());
    candidates.into_iter().find(has_server).unwrap_or_else(|| {
        panic!("PostgreSQL is missing: on Debian or Ubuntu install the package postgresql; or set BARGE_TEST_POSTGRES_BIN or BARGE_TEST_POSTGRES_URL")
    })
}

fn folder_by_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

/// Debian keeps the programs of each major version in a folder of its own. The newest comes first.
fn folders_of_debian() -> Vec<PathBuf> {
    let folders = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<u32> =
        folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok()).collect();
    versions.sort_unstable_by(|left, right| right.cmp(left));
    versions.iter().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))).collect()
}

fn must_succeed(command: &mut Command) {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(
        status.success(),
        "{command:?}: {status}\n{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
}
