//! The file of passwords, `~/.pgpass`: lines of `host:port:database:user:password`.

use std::fs::{self, Metadata};
use std::path::Path;

use super::Place;

/// The password of the first line that fits, for the first place that has one.
pub(super) fn find(file: &Path, places: &[Place], database: &str, user: &str) -> Option<String> {
    let metadata = fs::metadata(file).ok()?;
    if let Some(fault) = fault(&metadata) {
        tracing::warn!("the password file {} is not used: {fault}", file.display());
        return None;
    }
    let text = match fs::read(file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            tracing::warn!("the password file {} is not used: {error}", file.display());
            return None;
        }
    };
    places.iter().find_map(|place| text.lines().find_map(|line| password(line, place, database, user)))
}

/// Why a file isn't used.
fn fault(metadata: &Metadata) -> Option<&'static str> {
    if !metadata.is_file() {
        return Some("it is not a plain file");
    }
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0 {
        return Some("others than its owner have access; change that with chmod 0600");
    }
    None
}

/// The password of a line, if the line fits.
fn password(line: &str, place: &Place, database: &str, user: &str) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let fields = fields(line);
    let [host, port, line_database, line_user, password, ..] = fields.as_slice() else { return None };
    let fits = |field: &str, value: &str| field == "*" || plain(field) == value;
    // A server on this machine is localhost whichever way it is reached.
    let fits_host = fits(host, &place.host) || (place.is_socket() && fits(host, "localhost"));
    let fits_rest =
        fits(port, &place.port.to_string()) && fits(line_database, database) && fits(line_user, user);
    (fits_host && fits_rest && !password.is_empty()).then(|| plain(password))
}

/// The fields of a line with their backslashes: a `:` behind one separates nothing.
fn fields(line: &str) -> Vec<&str> {
    let mut escaped = false;
    line.split(|character| {
        let separates = character == ':' && !escaped;
        escaped = character == '\\' && !escaped;
        separates
    })
    .collect()
}

/// A field without its backslashes.
fn plain(field: &str) -> String {
    let mut characters = field.chars();
    let mut plain = String::with_capacity(field.len());
    while let Some(character) = characters.next() {
        plain.push(if character == '\\' { characters.next().unwrap_or('\\') } else { character });
    }
    plain
}
