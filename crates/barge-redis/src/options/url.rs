//! The parts of a URL, percent-decoded. What parameters mean isn't known here.
//!
//! No message repeats a part of the URL that could be a piece of a password whose special characters weren't written with `%`.

use percent_encoding::percent_decode_str;

use super::{PORT, Place};

const SCHEMES: [(&str, bool, bool); 4] = [
    ("redis://", false, false),
    ("rediss://", false, true),
    ("redis-cluster://", true, false),
    ("rediss-cluster://", true, true),
];

const SPECIAL: &str =
    "in a user or password, write / as %2F, ? as %3F, @ as %40, : as %3A, a comma as %2C and % as %25";

/// What a URL says.
pub(super) struct Given {
    pub(super) cluster: bool,
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    /// At least one.
    pub(super) places: Vec<Place>,
    pub(super) database: u32,
    /// By name and value. The later of two counts.
    pub(super) parameters: Vec<(String, String)>,
    /// Whether a piece of a password may be among the names and values of the parameters, so that they aren't to be shown.
    pub(super) guarded: bool,
}

/// Takes a URL apart.
pub(super) fn parse(url: &str) -> Result<Given, String> {
    let scheme =
        SCHEMES.iter().find_map(|(scheme, cluster, tls)| Some((url.strip_prefix(scheme)?, cluster, tls)));
    let (rest, cluster, tls) =
        scheme.ok_or("it begins with redis://, rediss://, redis-cluster:// or rediss-cluster://")?;
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = before.split_once('/').unwrap_or((before, ""));
    if database.contains('@') {
        return Err(format!("there is an @ after the host; {SPECIAL}"));
    }
    let (log_in, places) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = log_in.split_once(':').unwrap_or((log_in, ""));
    Ok(Given {
        cluster: *cluster,
        tls: *tls,
        user: some(decoded(user, "the user")?),
        password: some(decoded(password, "the password")?),
        places: places.split(',').map(place_of).collect::<Result<_, _>>()?,
        database: match database {
            "" => 0,
            number => number.parse().map_err(|_| format!("the database is a number; {SPECIAL}"))?,
        },
        parameters: parameters_of(query)?,
        guarded: query.contains('@'),
    })
}

fn parameters_of(query: &str) -> Result<Vec<(String, String)>, String> {
    let given = query.split('&').filter(|parameter| !parameter.is_empty());
    let parameters = given.map(|parameter| {
        let parts = parameter.split_once('=');
        let (name, value) = parts.ok_or("a parameter is written name=value, and an & in a value as %26")?;
        Ok((decoded(name, "a parameter")?, decoded(value, "a parameter")?))
    });
    parameters.collect()
}

/// The place of `host:port`, where an IPv6 address is in brackets.
fn place_of(text: &str) -> Result<Place, String> {
    let (host, port) = match text.strip_prefix('[') {
        None => text.split_once(':').unwrap_or((text, "")),
        Some(address) => {
            let (host, port) = address.split_once(']').ok_or("an address that begins with [ ends with ]")?;
            match port.strip_prefix(':') {
                Some(port) => (host, port),
                None if port.is_empty() => (host, ""),
                None => return Err("after an address in brackets comes a colon and the port".into()),
            }
        }
    };
    let host = decoded(host, "the host")?;
    if host.is_empty() {
        return Err("a host is missing".into());
    }
    let port = match port {
        "" => PORT,
        port => port.parse().map_err(|_| format!("a port is a number up to 65535; {SPECIAL}"))?,
    };
    Ok(Place { host, port })
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn decoded(text: &str, part: &str) -> Result<String, String> {
    let is_digits = |digits: &str| digits.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    let whole = text.split('%').skip(1).all(is_digits);
    let decoded = whole.then(|| percent_decode_str(text).decode_utf8().ok()).flatten();
    let malformed = || {
        format!(
            "{part} is malformed: a % is followed by two hexadecimal digits, and the bytes are UTF-8; {SPECIAL}"
        )
    };
    decoded.map(Into::into).ok_or_else(malformed)
}
