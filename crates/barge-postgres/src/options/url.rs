//! The parts of a URL, percent-decoded. What they mean isn't known here.
//!
//! No message repeats a part of the URL that could be a piece of a password whose special characters weren't written with `%`.

use percent_encoding::percent_decode_str;

const SPECIAL: &str = "in a user or password, write / as %2F, ? as %3F, @ as %40, : as %3A and % as %25";

/// What a URL says.
pub(super) struct Given {
    /// May hold empty ones.
    pub(super) hosts: Vec<String>,
    /// None, one, or one for each host; may hold empty ones.
    pub(super) ports: Vec<String>,
    /// By name and value. The later of two counts.
    pub(super) parameters: Vec<(String, String)>,
    /// Whether a piece of a password may be among the names and values of the parameters, so that they aren't to be shown.
    pub(super) guarded: bool,
}

impl Given {
    pub(super) fn has(&self, name: &str) -> bool {
        self.parameters.iter().any(|(given, _)| given == name)
    }
}

/// Takes a URL apart.
pub(super) fn parse(url: &str) -> Result<Given, String> {
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let rest =
        rest.ok_or("it begins with postgres:// or postgresql://, as in postgres://user@host/database")?;
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = before.split_once('/').unwrap_or((before, ""));
    if database.contains('@') {
        return Err(format!("there is an @ after the host; {SPECIAL}, and @ in a database's name as %40"));
    }
    let mut given = Given {
        hosts: Vec::new(),
        ports: Vec::new(),
        parameters: Vec::new(),
        guarded: query.contains('@') || query.contains("password"),
    };
    let (login, places) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    for (name, value) in [("user", user), ("password", password), ("dbname", database)] {
        given.add(name, decoded(value).ok_or_else(|| malformed(&format!("the {name}")))?);
    }
    for place in places.split(',') {
        let (host, port) = host_and_port(place)?;
        given.hosts.push(decoded(host).ok_or_else(|| malformed("the host"))?);
        given.ports.push(decoded(port).ok_or_else(|| malformed("the port"))?);
    }
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let parts = parameter.split_once('=');
        let (name, value) = parts.ok_or("a parameter is written name=value, and an & in a value as %26")?;
        let name = decoded(name).ok_or_else(|| malformed("a parameter"))?;
        given.add(&name, decoded(value).ok_or_else(|| malformed("a parameter"))?);
    }
    Ok(given)
}

impl Given {
    fn add(&mut self, name: &str, value: String) {
        let list = || value.split(',').map(str::to_owned).collect();
        match name {
            "user" | "password" | "dbname" | "host" | "port" if value.is_empty() => {}
            "host" => self.hosts = list(),
            "port" => self.ports = list(),
            _ => self.parameters.push((name.to_owned(), value)),
        }
    }
}

/// The two of `host:port`, where an IPv6 address is in brackets.
fn host_and_port(place: &str) -> Result<(&str, &str), String> {
    let Some(address) = place.strip_prefix('[') else {
        return Ok(place.split_once(':').unwrap_or((place, "")));
    };
    let (host, port) = address.split_once(']').ok_or("an address that begins with [ must end with ]")?;
    match port.strip_prefix(':') {
        Some(port) => Ok((host, port)),
        None if port.is_empty() => Ok((host, "")),
        None => Err("after an address in brackets comes a colon and the port, as in [::1]:5432".into()),
    }
}

fn malformed(part: &str) -> String {
    format!(
        "{part} is malformed: a % is followed by two hexadecimal digits, and the bytes are UTF-8; {SPECIAL}"
    )
}

fn decoded(text: &str) -> Option<String> {
    let is_digits = |digits: &str| digits.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !text.split('%').skip(1).all(is_digits) {
        return None;
    }
    let text = percent_decode_str(text).decode_utf8().ok()?;
    (!text.contains('\0')).then(|| text.into_owned())
}
