//! Keeps a server for as long as somebody uses it.
//!
//! A server has a directory with a named pipe in it. Every process that uses the server holds the pipe open for writing;
//! a small shell, `keeper.sh`, reads it. The kernel closes a pipe however its process dies, SIGKILL included, so the
//! shell learns of the last user's end without asking and without a lease, stops the server and removes the directory.
//!
//! The shell is in a process group of its own: neither Ctrl-C in a terminal nor a runner that kills the group of a test
//! that took too long reaches it. It holds none of the test's output open. If it is killed itself, the pipe has no reader,
//! and the next server started cleans up after it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::place::Account;

/// How long anything here may take before it counts as failed. The machine may be busy building.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A directory for a server, not yet with a server in it. It counts as alive while this value or its keeper lives.
#[derive(Debug)]
pub(super) struct Nest {
    pub(super) directory: PathBuf,
    pub(super) account: Account,
    /// Open for both, so that there is a reader before there is a keeper.
    _pipe: File,
}

/// When and how a keeper ends its server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// How long after its last user a server waits for another one, in whole seconds.
    pub(super) grace: Duration,
    /// The signal that ends the server at once and its children with it, as kill(1) spells it.
    pub(super) signal: &'static str,
}

/// One process's hold on a server.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) directory: PathBuf,
    pipe: File,
}

impl Nest {
    /// Makes the directory. The caller holds [`super::place::lock`]: a directory without a pipe counts as left behind.
    pub(super) fn new(directory: PathBuf, account: Account) -> Self {
        let made = DirBuilder::new().mode(0o700).create(&directory);
        made.unwrap_or_else(|error| panic!("cannot make {}: {error}", directory.display()));
        let path = directory.join("users");
        let status = Command::new("mkfifo").arg(&path).status();
        assert!(status.is_ok_and(|status| status.success()), "mkfifo {} failed", path.display());
        let pipe = OpenOptions::new().read(true).write(true).open(&path);
        let pipe = pipe.unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
        account.give(&directory);
        Self { directory, account, _pipe: pipe }
    }

    /// Starts the keeper, which starts the server when told to. The child given is the keeper.
    pub(super) fn keep<A: AsRef<OsStr>>(
        self,
        ending: Ending,
        server: impl IntoIterator<Item = A>,
    ) -> (Hold, Child) {
        let path = self.directory.join("users");
        let open = |options: &mut OpenOptions| {
            options.open(&path).unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()))
        };
        let read_end = open(OpenOptions::new().read(true));
        let write_end = open(OpenOptions::new().write(true));
        let keeper = self
            .account
            .command("/bin/sh")
            .args(["-c", include_str!("keeper.sh"), "barge-test-server"])
            .arg(&self.directory)
            .args([&ending.grace.as_secs().to_string(), ending.signal])
            .args(server)
            .current_dir(&self.directory)
            .process_group(0)
            .stdin(read_end)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run /bin/sh: {error}"));
        (Hold { directory: self.directory, pipe: write_end }, keeper)
    }
}

impl Hold {
    /// Tells the keeper to start the server, and waits until it has a process.
    pub(super) fn start(&self) {
        self.tell("start");
        wait_for("the server's process", || self.process().is_some());
    }

    /// Waits until the server, which was told to end, has ended.
    pub(super) fn reap(&self) {
        self.tell("reap");
        wait_for("the server's end", || self.process().is_none());
    }

    /// Lets others [`join`].
    pub(super) fn say_ready(&self) {
        fs::write(self.directory.join("ready"), "").expect("the server's directory can be written");
    }

    /// The server's process, from its start until it is reaped.
    pub(super) fn process(&self) -> Option<Pid> {
        process_in(&self.directory)
    }

    fn tell(&self, command: &str) {
        let told = (&self.pipe).write_all(format!("{command}\n").as_bytes());
        told.unwrap_or_else(|error| panic!("the keeper of {} is gone: {error}", self.directory.display()));
    }
}

/// A hold that is nobody else's. Dropping it ends the server, removes the directory and waits for both.
#[derive(Debug)]
pub(super) struct Owned {
    /// None only while it is dropped.
    hold: Option<Hold>,
    keeper: Child,
}

impl Owned {
    /// From [`Nest::keep`]. The server is not started yet.
    pub(super) fn new((hold, keeper): (Hold, Child)) -> Self {
        Self { hold: Some(hold), keeper }
    }

    pub(super) fn hold(&self) -> &Hold {
        self.hold.as_ref().expect("it is held until it is dropped")
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // The keeper ends the server when the pipe is closed.
        self.hold = None;
        // A keeper that was killed is no reason to fail; the next start cleans up.
        let _ = self.keeper.wait();
    }
}

/// Holds the server in a directory as a further user, once its starter has said that it is ready.
/// None: there is no server, and the directory is free to be made. The caller holds [`super::place::lock`].
pub(super) fn join(directory: &Path) -> Option<Hold> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match open_to_write(&directory.join("users")) {
            Ok(pipe) if directory.join("ready").exists() => {
                let hold = Hold { directory: directory.to_owned(), pipe };
                hold.tell("join");
                return Some(hold);
            }
            // Its starter died before it was ready. The keeper ends it soon.
            Ok(_) => {}
            Err(_) if is_alive(directory) => {}
            Err(_) => {
                remove_left_behind(directory);
                return None;
            }
        }
        assert!(Instant::now() < deadline, "the server in {} neither serves nor ends", directory.display());
        thread::sleep(Duration::from_millis(20));
    }
}

/// Removes what is left of servers whose keepers are gone. The caller holds [`super::place::lock`].
pub(super) fn clean_up(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !is_alive(&entry.path()) {
            remove_left_behind(&entry.path());
        }
    }
}

/// Whether a keeper, or a process about to start one, reads the pipe.
fn is_alive(directory: &Path) -> bool {
    ["users", "closed"].iter().any(|name| open_to_write(&directory.join(name)).is_ok())
}

/// Opens a named pipe to write. Fails where nobody reads it.
fn open_to_write(path: &Path) -> io::Result<File> {
    let pipe = OpenOptions::new().write(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    Ok(pipe)
}

/// Ends the server in a directory, if it still runs there, and removes the directory.
fn remove_left_behind(directory: &Path) {
    if let Some(process) = process_in(directory)
        && works_in(process, directory)
    {
        // PostgreSQL stops at once and cleans up its shared memory; what has no such way to end is ended by the system.
        send(process, Signal::QUIT);
        wait_for("a server that was left behind to end", || has_ended(process));
    }
    // Its keeper may be removing it at the same time, so an error may only mean that the other was faster.
    let what = format!("{} to go, which a dead test run left behind", directory.display());
    wait_for(&what, || fs::remove_dir_all(directory).is_ok() || !directory.exists());
}

fn process_in(directory: &Path) -> Option<Pid> {
    Pid::from_raw(fs::read_to_string(directory.join("pid")).ok()?.trim().parse().ok()?)
}

/// Whether a process's working directory is in this directory. A number in a file may long be another process's.
fn works_in(process: Pid, directory: &Path) -> bool {
    fs::read_link(format!("/proc/{process}/cwd")).is_ok_and(|path| path.starts_with(directory))
}

/// SIGKILL for a process and its children, and waits until none of them runs. The process is halted first, so that it
/// starts no child meanwhile; once it is dead, its children have another parent and could not be found.
pub(super) fn kill_with_children(process: Pid) {
    send(process, Signal::STOP);
    wait_for("a process to halt", || is_halted(process));
    let children = children_of(process);
    send(process, Signal::KILL);
    for child in &children {
        send(*child, Signal::KILL);
    }
    wait_for("killed processes to end", || has_ended(process) && children.iter().copied().all(has_ended));
}

/// Whether a process that was sent SIGSTOP runs no more, be it because it is gone.
pub(super) fn is_halted(process: Pid) -> bool {
    !matches!(state_and_parent(process), Some(('R' | 'S' | 'D', _)))
}

/// Sends a signal to a process, which may be gone.
pub(super) fn send(process: Pid, signal: Signal) {
    match kill_process(process, signal) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => panic!("cannot send a signal to process {process}: {error}"),
    }
}

/// The children of a process; none where there is no /proc, and they are left to notice their parent's death.
fn children_of(parent: Pid) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    processes.filter(|process| state_and_parent(*process).is_some_and(|(_, of)| of == parent)).collect()
}

/// Whether a process is gone, or only waits for its parent to hear of its end.
pub(super) fn has_ended(process: Pid) -> bool {
    test_kill_process(process) == Err(Errno::SRCH) || matches!(state_and_parent(process), Some(('Z', _)))
}

/// From /proc/PID/stat, whose second field is a name in parentheses that may hold anything.
fn state_and_parent(process: Pid) -> Option<(char, Pid)> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = line.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = Pid::from_raw(fields.next()?.parse().ok()?)?;
    Some((state, parent))
}

/// Waits until something holds, and panics when that takes too long.
pub(super) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
