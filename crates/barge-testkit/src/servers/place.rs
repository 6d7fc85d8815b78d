//! Where servers live and as whom they run.

use std::env;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::statvfs;
use rustix::process::geteuid;

use super::keeper::{Nest, clean_up};

/// Whom to run servers as. PostgreSQL and PgBouncer refuse to run as root.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    /// User and group to change to; none where this process may run servers itself.
    change: Option<(u32, u32)>,
}

impl Account {
    pub(super) fn unprivileged() -> Self {
        if !geteuid().is_root() {
            return Account { change: None };
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let change = ["postgres", "nobody"].iter().find_map(|name| ids_of(&users, name));
        assert!(
            change.is_some(),
            "servers for tests cannot run as root: add a user `postgres`, or be another"
        );
        Account { change }
    }

    /// A command that runs as this account.
    pub(super) fn command(self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        if let Some((user, group)) = self.change {
            command.uid(user).gid(group);
        }
        // Messages are read by people and by tests, so they are in one language.
        command.env("LC_ALL", "C");
        command
    }

    /// Makes a file or folder belong to this account.
    pub(super) fn give(self, path: &Path) {
        if let Some((user, group)) = self.change {
            chown(path, Some(user), Some(group))
                .unwrap_or_else(|error| panic!("cannot change the owner of {}: {error}", path.display()));
        }
    }

    /// Lets this account enter a folder, and make and remove what is its own there.
    fn share(self, folder: &Path) {
        if let Some((_, group)) = self.change {
            let shared = chown(folder, None, Some(group))
                .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(0o1770)));
            shared.unwrap_or_else(|error| panic!("cannot share {}: {error}", folder.display()));
        }
    }
}

/// The user and group of a name in the text of /etc/passwd.
fn ids_of(users: &str, name: &str) -> Option<(u32, u32)> {
    let mut fields =
        users.lines().map(|line| line.split(':')).find(|fields| fields.clone().next() == Some(name))?;
    let user = fields.nth(2)?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    Some((user, group))
}

/// The folder of all servers of this user. It stays, with nothing but a lock file in it.
pub(super) fn base(account: Account) -> PathBuf {
    let user = geteuid().as_raw();
    let base = temporary_folder().join(format!("barge-tests-{user}"));
    match DirBuilder::new().mode(0o700).create(&base) {
        Ok(()) => account.share(&base),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => panic!("cannot make {}: {error}", base.display()),
    }
    // The name can be guessed and the temporary folder is everybody's: a folder laid there by another is not used.
    let found = fs::symlink_metadata(&base).unwrap_or_else(|error| panic!("{}: {error}", base.display()));
    assert!(
        found.is_dir() && found.uid() == user,
        "{} belongs to another user: remove it, or set TMPDIR",
        base.display()
    );
    base
}

/// `TMPDIR` where it is set. Otherwise memory, if the system has a folder of it that is large enough: creating a database
/// is creating three hundred files, which takes 15 ms there and 50 to 150 ms on a disk.
fn temporary_folder() -> PathBuf {
    const MEMORY: &str = "/dev/shm";
    const BYTES_MIN: u64 = 2 << 30;
    // The size and not what is free of it: all processes of a run have to come to the same answer.
    let is_large = statvfs(MEMORY).is_ok_and(|system| system.f_blocks * system.f_frsize >= BYTES_MIN);
    if env::var_os("TMPDIR").is_none() && is_large { MEMORY.into() } else { env::temp_dir() }
}

/// Held while a directory under [`base`] is made, taken over or cleaned up. Dropping it releases it, and so does dying.
pub(super) fn lock(base: &Path) -> File {
    let path = base.join("lock");
    let lock = File::create(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
    lock.lock().unwrap_or_else(|error| panic!("cannot lock {}: {error}", path.display()));
    lock
}

/// A directory for a server that no other process joins.
pub(super) fn own_nest(kind: &str) -> Nest {
    let account = Account::unprivileged();
    let base = base(account);
    let _turn = lock(&base);
    clean_up(&base);
    Nest::new(base.join(unique_name(kind)), account)
}

/// What this test run is called. nextest gives every test a process of its own and names the run; the test programs of
/// `cargo test` have the same parent.
pub(super) fn run_name() -> String {
    let name = env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| format!("parent-{}", parent_id()));
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect()
}

/// A name that nothing else living on this machine has.
pub(super) fn unique_name(kind: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{kind}_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let users = "postgres2:x:7:8::/:/bin/sh\npostgres:x:101:104:Administrator,,,:/var:/bin/bash\n";
        assert_eq!(ids_of(users, "postgres"), Some((101, 104)));
        assert_eq!(ids_of(users, "nobody"), None);
    }
}
