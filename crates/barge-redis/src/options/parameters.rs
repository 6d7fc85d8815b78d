//! The parameters of a URL.

use std::time::Duration;

use super::RedisOptions;
use crate::tls::TlsVerify;

/// The parameters a URL may have, for messages.
const PARAMETERS: &str = "prefix=barge:, connect_timeout=1s, response_timeout=500ms, tls_verify=full, tls_ca=FILE, \
    tls_cert=FILE and tls_key=FILE";

/// What is wrong with a parameter.
#[derive(Clone, Copy)]
pub(super) enum Wrong {
    /// There is none of that name.
    Name,
    /// The value, and what was expected.
    Value(&'static str),
}

impl Wrong {
    /// The message. `guarded` leaves out what may be a piece of a password: the value, and a name that isn't known.
    pub(super) fn message(self, name: &str, value: &str, guarded: bool) -> String {
        match self {
            Wrong::Name if guarded => format!(
                "a parameter isn't known (in a password, write ? as %3F and & as %26); there are {PARAMETERS}"
            ),
            Wrong::Name => format!("there is no parameter {name}; there are {PARAMETERS}"),
            Wrong::Value(expected) if guarded => format!("{name}: expected {expected}"),
            Wrong::Value(expected) => format!("{name}={value}: expected {expected}"),
        }
    }
}

impl RedisOptions {
    /// Sets a parameter by its name.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), Wrong> {
        match name {
            "prefix" => self.prefix = value.into(),
            "connect_timeout" => self.connect_timeout = duration(value)?,
            "response_timeout" => self.response_timeout = duration(value)?,
            "tls_verify" => {
                self.verify = match value {
                    "full" => TlsVerify::Full,
                    "ca" => TlsVerify::Ca,
                    "none" => TlsVerify::None,
                    _ => return Err(Wrong::Value("full, ca or none")),
                }
            }
            "tls_ca" => self.authorities = Some(value.into()),
            "tls_cert" => self.certificate = Some(value.into()),
            "tls_key" => self.key = Some(value.into()),
            _ => return Err(Wrong::Name),
        }
        Ok(())
    }
}

fn duration(text: &str) -> Result<Duration, Wrong> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').unwrap_or_default(), 1_000),
    };
    let milliseconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    milliseconds.map(Duration::from_millis).ok_or(Wrong::Value("a time such as 2s or 500ms"))
}
