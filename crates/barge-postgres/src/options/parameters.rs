//! The parameters that a URL, and the environment, name and spell out.

use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, LoadBalanceHosts, TargetSessionAttrs};

use super::{PostgresOptions, Secret, Without, above_zero};
use crate::tls::SslMode;

/// The parameters a URL may have, for messages.
const PARAMETERS: &str = "\
    pool_size=N, pool_wait=30s, idle_check=30s, max_lifetime=3600s, statement_cache=N, without=copy,…; \
    and libpq's host, port, user, password, passfile, dbname, sslmode, \
    sslrootcert, sslcert, sslkey, application_name, connect_timeout, options, \
    target_session_attrs, channel_binding, load_balance_hosts, keepalives, keepalives_idle, \
    keepalives_interval, keepalives_count and tcp_user_timeout";

/// What is wrong with a parameter.
#[derive(Clone, Copy)]
pub(super) enum Wrong {
    /// There is none of that name.
    Name,
    /// The value, and what was expected.
    Value(&'static str),
    /// It means something that isn't done here; what to do.
    Refused(&'static str),
}

const TIME: Wrong = Wrong::Value("a time such as 30s or 500ms");

impl Wrong {
    /// The message. `guarded` leaves out what may be a piece of a password: the value, and a name that isn't known.
    pub(super) fn message(self, name: &str, value: &str, guarded: bool) -> String {
        let setting = if guarded { name.to_owned() } else { format!("{name}={value}") };
        match self {
            Wrong::Name if guarded => {
                let hint = "in a password, write ? as %3F and & as %26";
                format!("a parameter isn't known ({hint}); there are {PARAMETERS}")
            }
            Wrong::Name => format!("there is no parameter {name}; there are {PARAMETERS}"),
            Wrong::Value(expected) => format!("{setting}: expected {expected}"),
            Wrong::Refused(why) => format!("{setting}: {why}"),
        }
    }
}

impl PostgresOptions {
    /// Sets a parameter by its name.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), Wrong> {
        match name {
            "user" => self.user = Some(value.into()),
            "password" => self.password = Some(Secret(value.into())),
            "passfile" => self.password_file = Some(value.into()),
            "dbname" => self.database = Some(value.into()),
            "sslmode" => self.ssl_mode = Some(ssl_mode(value)?),
            "sslrootcert" => self.root_certificates = Some(value.into()),
            "sslcert" => self.client_certificate = Some(value.into()),
            "sslkey" => self.client_key = Some(value.into()),
            "connect_timeout" => self.connect_timeout = seconds(value)?,
            "pool_size" => self.pool_size = number::<usize>(value)?.max(1),
            "pool_wait" => self.pool_wait = duration(value).ok_or(TIME)?,
            "idle_check" => self.idle_check = duration(value).ok_or(TIME)?,
            "max_lifetime" => self.max_lifetime = above_zero(duration(value).ok_or(TIME)?),
            "statement_cache" => self.statement_cache = number(value)?,
            "without" => self.without = Without::parse(value)?,
            // In a URL they are taken before.
            "host" | "port" => {
                return Err(Wrong::Refused("a place is named by the methods host, or_host and port"));
            }
            _ => self.set_session(name, value)?,
        }
        Ok(())
    }

    /// Sets what tokio-postgres takes as it is.
    fn set_session(&mut self, name: &str, value: &str) -> Result<(), Wrong> {
        let session = &mut self.session;
        match name {
            "application_name" => session.application_name(value),
            "options" => session.options(value),
            "target_session_attrs" => session.target_session_attrs(match value {
                "any" => TargetSessionAttrs::Any,
                "read-write" => TargetSessionAttrs::ReadWrite,
                "read-only" => TargetSessionAttrs::ReadOnly,
                _ => return Err(Wrong::Value("any, read-write or read-only")),
            }),
            "channel_binding" => session.channel_binding(match value {
                "disable" => ChannelBinding::Disable,
                "prefer" => ChannelBinding::Prefer,
                "require" => ChannelBinding::Require,
                _ => return Err(Wrong::Value("disable, prefer or require")),
            }),
            "load_balance_hosts" => session.load_balance_hosts(match value {
                "disable" => LoadBalanceHosts::Disable,
                "random" => LoadBalanceHosts::Random,
                _ => return Err(Wrong::Value("disable or random")),
            }),
            "keepalives" => session.keepalives(match value {
                "0" => false,
                "1" => true,
                _ => return Err(Wrong::Value("0 or 1")),
            }),
            // For all four, libpq's zero means the system's setting, which is what not setting them means.
            "keepalives_idle" => {
                above_zero(seconds(value)?).into_iter().fold(session, Config::keepalives_idle)
            }
            "keepalives_interval" => {
                above_zero(seconds(value)?).into_iter().fold(session, Config::keepalives_interval)
            }
            "keepalives_count" => match number(value)? {
                0 => session,
                count => session.keepalives_retries(count),
            },
            "tcp_user_timeout" => {
                let timeout = value.parse().ok().map(Duration::from_millis).or_else(|| duration(value));
                let timeout = timeout.ok_or(Wrong::Value("milliseconds, or a time such as 30s"))?;
                above_zero(timeout).into_iter().fold(session, Config::tcp_user_timeout)
            }
            _ => return Err(Wrong::Name),
        };
        Ok(())
    }
}

fn ssl_mode(value: &str) -> Result<SslMode, Wrong> {
    Ok(match value {
        "disable" => SslMode::Disable,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        "allow" => {
            return Err(Wrong::Refused("to try without TLS first isn't supported; use prefer or disable"));
        }
        _ => return Err(Wrong::Value("disable, prefer, require, verify-ca or verify-full")),
    })
}

fn number<N: std::str::FromStr>(value: &str) -> Result<N, Wrong> {
    value.parse().map_err(|_| Wrong::Value("a number"))
}

/// A time as libpq writes it, in whole seconds, or with its unit.
fn seconds(value: &str) -> Result<Duration, Wrong> {
    let plain = value.parse().ok().map(Duration::from_secs);
    plain.or_else(|| duration(value)).ok_or(Wrong::Value("seconds, or a time such as 10s or 500ms"))
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s')?, 1_000),
    };
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(unit)?))
}
