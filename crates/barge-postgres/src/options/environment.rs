//! What a program's surroundings say about its database: variables, the user's account, a server's socket.

use std::path::Path;

use super::{PORT, Place};

/// The variables that stand for a URL's parameters. `PGHOST` and `PGPORT` are read together, `PGPASSFILE` for the builder, too.
pub(super) const VARIABLES: [(&str, &str); 12] = [
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGDATABASE", "dbname"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGAPPNAME", "application_name"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGOPTIONS", "options"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGCHANNELBINDING", "channel_binding"),
];

/// Where servers put their Unix sockets: Debian's and Red Hat's packages, and PostgreSQL built by itself.
const SOCKETS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// The surroundings, or a test's idea of them.
pub(super) struct Environment<'a> {
    pub(super) variable: &'a dyn Fn(&str) -> Option<String>,
    pub(super) sockets: &'a [&'a str],
}

impl Environment<'_> {
    /// Those of this process.
    pub(super) fn process() -> Environment<'static> {
        Environment { variable: &variable_of_process, sockets: &SOCKETS }
    }

    /// A variable that isn't empty.
    pub(super) fn get(&self, variable: &str) -> Option<String> {
        (self.variable)(variable).filter(|value| !value.is_empty())
    }

    /// The places that a URL's hosts and ports name, and what the surroundings add where it leaves them out.
    pub(super) fn places(&self, hosts: &[String], ports: &[String]) -> Result<Vec<Place>, String> {
        let list = |variable| self.get(variable).unwrap_or_default().split(',').map(str::to_owned).collect();
        let in_url = |list: &[String]| list.iter().any(|item| !item.is_empty());
        let hosts: Vec<String> = if in_url(hosts) { hosts.to_owned() } else { list("PGHOST") };
        let (source, ports): (_, Vec<String>) = match in_url(ports) {
            true => ("in the PostgreSQL URL", ports.to_owned()),
            false => ("PGPORT", list("PGPORT")),
        };
        if ports.len() != 1 && ports.len() != hosts.len() {
            let (ports, hosts) = (ports.len(), hosts.len());
            return Err(format!(
                "{source}: {ports} ports for {hosts} hosts: give one for all, or one for each"
            ));
        }
        let ports = ports.iter().cycle().map(|port| match port.parse() {
            Ok(port) if port > 0 => Ok(port),
            _ if port.is_empty() => Ok(PORT),
            // Not the port itself: it may be a piece of a password.
            _ => {
                let hint = "in a password, write : as %3A, / as %2F and ? as %3F";
                Err(format!("{source}: a port is a number from 1 to 65535 ({hint})"))
            }
        });
        let place = |(host, port): (String, Result<u16, String>)| {
            let port = port?;
            Ok(Place { host: if host.is_empty() { self.default_host(port) } else { host }, port })
        };
        hosts.into_iter().zip(ports).map(place).collect()
    }

    fn default_host(&self, port: u16) -> String {
        let has_socket = |directory: &&&str| Path::new(directory).join(format!(".s.PGSQL.{port}")).exists();
        (*self.sockets.iter().find(has_socket).unwrap_or(&"localhost")).to_owned()
    }

    /// What the operating system calls the user.
    pub(super) fn account(&self) -> Option<String> {
        account_of_process()
            .or_else(|| ["USER", "LOGNAME", "USERNAME"].into_iter().find_map(|name| self.get(name)))
    }
}

fn variable_of_process(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The name of this process's user in the list of accounts. The variable `USER` would be wrong under `runuser` or `setpriv`, and is
/// missing in most containers.
#[cfg(target_os = "linux")]
fn account_of_process() -> Option<String> {
    use std::os::unix::fs::MetadataExt;

    let user = std::fs::metadata("/proc/self").ok()?.uid().to_string();
    let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut accounts = accounts.lines().map(|line| line.split(':'));
    accounts.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)? == user).then(|| name.to_owned())
    })
}

#[cfg(not(target_os = "linux"))]
fn account_of_process() -> Option<String> {
    None
}
