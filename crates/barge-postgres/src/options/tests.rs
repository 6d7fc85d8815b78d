use std::fs;
use std::path::Path;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio_postgres::config::{ChannelBinding, Host, LoadBalanceHosts, TargetSessionAttrs};

use super::*;

/// Options in surroundings of nothing but these variables.
fn within(variables: &[(&str, &str)], url: &str) -> Result<PostgresOptions> {
    let variable =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    PostgresOptions::from_url_in(url, &Environment { variable: &variable, sockets: &[] })
}

fn options(url: &str) -> PostgresOptions {
    within(&[], url).unwrap()
}

fn fault(url: &str) -> Error {
    let error = within(&[], url).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    error
}

fn places(options: &PostgresOptions) -> Vec<String> {
    options.places.iter().map(ToString::to_string).collect()
}

fn password(options: &PostgresOptions) -> Option<String> {
    options.config().get_password().map(|password| String::from_utf8(password.to_vec()).unwrap())
}

/// A directory to be `HOME`, with a password file.
fn home_with(passwords: &str, mode: u32) -> TempDir {
    let home = TempDir::new().unwrap();
    let file = home.path().join(".pgpass");
    fs::write(&file, passwords).unwrap();
    restrict(&file, mode);
    home
}

#[cfg(unix)]
fn restrict(file: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(not(unix))]
fn restrict(_file: &Path, _mode: u32) {}

#[test]
fn a_url_gives_everything() {
    let options = options(
        "postgresql://sh%40p:p%3Aw@db.example.com:5433/or%2Fders?sslmode=verify-ca&sslrootcert=/r.crt&sslcert=/c.crt\
         &sslkey=/c.key&application_name=load&connect_timeout=3&options=-c%20search_path%3Dsales\
         &target_session_attrs=read-write&channel_binding=require&keepalives_idle=60&keepalives_interval=500ms\
         &keepalives_count=4&tcp_user_timeout=1500&load_balance_hosts=random&pool_size=3&pool_wait=5s&idle_check=0s\
         &max_lifetime=3600s&statement_cache=100",
    );
    let config = options.config();
    assert_eq!(config.get_hosts(), [Host::Tcp("db.example.com".into())]);
    assert_eq!(config.get_ports(), [5433]);
    assert_eq!((config.get_user(), config.get_dbname()), (Some("sh@p"), Some("or/ders")));
    assert_eq!(config.get_password(), Some(b"p:w".as_slice()));
    assert_eq!(config.get_ssl_mode(), config::SslMode::Require);
    assert_eq!(config.get_application_name(), Some("load"));
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
    assert_eq!(config.get_options(), Some("-c search_path=sales"));
    assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    assert_eq!(config.get_channel_binding(), ChannelBinding::Require);
    assert_eq!(config.get_load_balance_hosts(), LoadBalanceHosts::Random);
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(60));
    assert_eq!(config.get_keepalives_interval(), Some(Duration::from_millis(500)));
    assert_eq!(config.get_keepalives_retries(), Some(4));
    assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_millis(1500)));
    assert_eq!(options.ssl_mode, Some(SslMode::VerifyCa));
    assert_eq!(options.root_certificates.as_deref(), Some(Path::new("/r.crt")));
    assert_eq!(options.client_key.as_deref(), Some(Path::new("/c.key")));
    assert_eq!((options.pool_size, options.statement_cache), (3, 100));
    assert_eq!((options.pool_wait, options.idle_check), (Duration::from_secs(5), Duration::ZERO));
    assert_eq!(options.max_lifetime, Some(Duration::from_secs(3600)));
}

#[test]
fn the_builder_and_a_url_say_the_same() {
    let built = PostgresOptions::host("a")
        .port(5433)
        .or_host("/tmp")
        .user("shop")
        .password("secret")
        .database("orders")
        .ssl_mode(SslMode::Disable)
        .application_name("load")
        .connect_timeout(Duration::ZERO)
        .server_options("-c lock_timeout=5s")
        .pool_size(0)
        .max_lifetime(Duration::ZERO)
        .parameter("target_session_attrs", "read-only")
        .unwrap();
    let process = Environment::process();
    let kept = |name: &str| process.get(name).filter(|_| ["HOME", "PGPASSFILE", "USER"].contains(&name));
    let url = "postgres://shop:secret@a:5433,%2Ftmp/orders?sslmode=disable&application_name=load&connect_timeout=0\
         &options=-c%20lock_timeout%3D5s&pool_size=1&target_session_attrs=read-only";
    let environment = Environment { variable: &kept, sockets: &[] };
    assert_eq!(PostgresOptions::from_url_in(url, &environment).unwrap(), built);
    assert_eq!(built.config().get_connect_timeout(), None);
}

#[test]
fn a_bare_scheme_is_a_whole_url() {
    let options = within(&[("HOME", "/nowhere")], "postgres://").unwrap();
    let config = options.config();
    assert_eq!(places(&options), ["localhost:5432"]);
    assert_eq!(config.get_user(), config.get_dbname());
    assert_eq!(config.get_password(), None);
    assert_eq!(config.get_application_name(), Some("barge"));
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(10)));
    assert_eq!(config.get_ssl_mode(), config::SslMode::Prefer);
    assert_eq!((options.pool_size, options.statement_cache, options.max_lifetime), (10, 0, None));
    assert_eq!((options.pool_wait, options.idle_check), (POOL_WAIT, IDLE_CHECK));
}

#[test]
fn a_url_stands_over_the_environment_and_that_over_the_defaults() {
    let variables = [
        ("PGHOST", "one,two"),
        ("PGPORT", "1,2"),
        ("PGUSER", "environment"),
        ("PGDATABASE", "stored"),
        ("PGAPPNAME", "named"),
        ("PGCONNECT_TIMEOUT", "7"),
        ("PGOPTIONS", "-c a=b"),
        ("PGSSLMODE", "require"),
        ("PGTARGETSESSIONATTRS", "read-only"),
        ("PGCHANNELBINDING", "disable"),
    ];
    let from_environment = within(&variables, "postgres://").unwrap();
    let config = from_environment.config();
    assert_eq!(from_environment.name(), "postgres://environment@one:1,two:2/stored");
    assert_eq!((config.get_application_name(), config.get_options()), (Some("named"), Some("-c a=b")));
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(7)));
    assert_eq!(config.get_ssl_mode(), config::SslMode::Require);
    assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadOnly);
    assert_eq!(config.get_channel_binding(), ChannelBinding::Disable);

    let url = "postgres://me@here:9/mine?application_name=x&connect_timeout=1&options=o&sslmode=disable";
    let over = within(&variables, url).unwrap();
    let config = over.config();
    assert_eq!(over.name(), "postgres://me@here:9/mine");
    assert_eq!((config.get_application_name(), config.get_options()), (Some("x"), Some("o")));
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(1)));
    assert_eq!(config.get_ssl_mode(), config::SslMode::Disable);

    let ports_only = within(&[("PGPORT", "77"), ("PGUSER", "")], "postgres://a,b").unwrap();
    assert_eq!(places(&ports_only), ["a:77", "b:77"]);
    assert_eq!(ports_only.user, None);
}

#[test]
fn a_wrong_variable_is_named() {
    for (variable, value, part) in [
        ("PGSSLMODE", "sure", "PGSSLMODE=sure: expected disable, prefer"),
        ("PGPORT", "x", "PGPORT: a port is a number"),
        ("PGPORT", "1,2", "2 ports for 1 hosts"),
        ("PGCONNECT_TIMEOUT", "soon", "PGCONNECT_TIMEOUT=soon: expected seconds"),
    ] {
        let error = within(&[(variable, value)], "postgres://").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.message().contains(part), "{error}");
    }
}

#[test]
fn hosts_are_listed_bracketed_and_replaced() {
    for (url, expected) in [
        ("postgres://a:1,b,c:3/d", &["a:1", "b:5432", "c:3"][..]),
        ("postgres://[::1]:5433,[fe80::1]/d", &["[::1]:5433", "[fe80::1]:5432"]),
        ("postgres://%2Fvar%2Frun%2Fpg:5433/d", &["/var/run/pg:5433"]),
        ("postgres:///d?host=/tmp,/run&port=6", &["/tmp:6", "/run:6"]),
        ("postgres://a:1/d?host=b", &["b:1"]),
        ("postgres:///d?host=::1", &["[::1]:5432"]),
        ("postgres://:5433", &["localhost:5433"]),
    ] {
        assert_eq!(places(&options(url)), expected, "{url}");
    }
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join(".s.PGSQL.5433"), "").unwrap();
    let path = directory.path().to_str().unwrap();
    let environment = Environment { variable: &|_| None, sockets: &["/nowhere", path] };
    let found = PostgresOptions::from_url_in("postgres://:5433", &environment).unwrap();
    assert_eq!(places(&found), [format!("{path}:5433")]);
    let other = PostgresOptions::from_url_in("postgres://:5434", &environment).unwrap();
    assert_eq!(places(&other), ["localhost:5434"]);
}

#[test]
fn a_wrong_url_says_what_is_wrong_and_what_there_is() {
    for (url, part) in [
        ("postgres://a?colour=red", "there is no parameter colour; there are pool_size=N"),
        ("postgres://a?gssencmode=prefer", "there is no parameter gssencmode"),
        (
            "postgres://a?sslmode=maybe",
            "sslmode=maybe: expected disable, prefer, require, verify-ca or verify-full",
        ),
        ("postgres://a?sslmode=allow", "use prefer or disable"),
        ("postgres://a?target_session_attrs=standby", "expected any, read-write or read-only"),
        ("postgres://a?pool_wait=5", "pool_wait=5: expected a time such as 30s"),
        ("postgres://a?pool_size=many", "pool_size=many: expected a number"),
        ("postgres://a?keepalives=yes", "expected 0 or 1"),
        ("postgres://a?pool_size", "written name=value"),
        ("postgres://a?sslcert=c.pem", "sslcert and sslkey go together"),
        ("postgres://a?sslrootcert=system&sslmode=require", "use verify-full"),
        ("postgres://a,%2Ftmp?sslmode=require", "can't be kept on a Unix socket"),
        ("postgres://a:70000", "a port is a number from 1 to 65535"),
        ("postgres://a,b?port=1,2,3", "3 ports for 2 hosts"),
        ("postgres://[::1:5432", "must end with ]"),
        ("postgres://[::1]5432", "as in [::1]:5432"),
        ("postgres://a%zz", "hexadecimal"),
        ("postgres://a/b%00", "hexadecimal"),
        ("mysql://a", "begins with postgres://"),
    ] {
        let error = fault(url);
        assert!(error.message().contains(part), "{url}: {error}");
    }
    let error = PostgresOptions::host("a").parameter("port", "1").unwrap_err();
    assert!(error.message().contains("methods"), "{error}");
}

#[test]
fn the_mode_follows_the_roots_and_the_places() {
    assert_eq!(options("postgres://a").effective_mode(), SslMode::Prefer);
    assert_eq!(options("postgres://a?sslrootcert=system").effective_mode(), SslMode::VerifyFull);
    let socket = options("postgres:///d?host=/tmp&sslmode=verify-full&sslrootcert=/nowhere.crt");
    assert_eq!(socket.config().get_ssl_mode(), config::SslMode::Disable);
    assert!(matches!(socket.tls().unwrap(), Tls::Off));
    assert!(matches!(options("postgres://a?sslmode=disable").tls().unwrap(), Tls::Off));
    assert!(matches!(options("postgres://a,%2Ftmp").tls().unwrap(), Tls::Rustls(_)));
}

#[test]
fn the_usual_root_file_is_used_where_something_is_verified() {
    let home = TempDir::new().unwrap();
    let variables = [("HOME", home.path().to_str().unwrap())];
    let verify = within(&variables, "postgres://a?sslmode=require").unwrap();
    assert!(verify.tls().is_ok());
    fs::create_dir(home.path().join(".postgresql")).unwrap();
    fs::write(home.path().join(".postgresql/root.crt"), "no certificate").unwrap();
    let error = verify.tls().err().unwrap();
    assert!(error.message().contains("root.crt"), "{error}");
    assert!(within(&variables, "postgres://a").unwrap().tls().is_ok());
}

#[test]
fn the_password_file_is_the_last_resort() {
    let home = home_with("*:*:*:*:kept\n", 0o600);
    let home = home.path().to_str().unwrap();
    let of = |variables: &[(&str, &str)], url| password(&within(variables, url).unwrap());
    assert_eq!(of(&[("HOME", home)], "postgres://u@h").as_deref(), Some("kept"));
    assert_eq!(of(&[("HOME", home), ("PGPASSWORD", "told")], "postgres://u@h").as_deref(), Some("told"));
    let url = "postgres://u:written@h";
    assert_eq!(of(&[("HOME", home), ("PGPASSWORD", "told")], url).as_deref(), Some("written"));
    assert_eq!(of(&[("HOME", home), ("PGPASSFILE", "/nowhere")], "postgres://u@h"), None);
    let other = format!("postgres://u@h?passfile={home}/.pgpass");
    assert_eq!(of(&[("PGPASSFILE", "/nowhere")], &other).as_deref(), Some("kept"));
}

#[test]
fn the_first_line_that_fits_gives_the_password() {
    let home = home_with(
        "# host:port:database:user:password\n\
         broken line\n\
         a:5432:db:me:one\r\n\
         a:*:db:me:two\n\
         localhost:5432:*:me:lo\\:cal\\\\\n\
         /run/pg:5432:db:me:own\n\
         b\\:c:5432:db:m\\\\e:escaped\n\
         a:5432:other:\\*:star\n\
         a:5432:empty:me:\n",
        0o600,
    );
    let home = home.path().to_str().unwrap();
    let of = |url: &str| password(&within(&[("HOME", home)], url).unwrap());
    for (url, expected) in [
        ("postgres://me@a/db", Some("one")),
        ("postgres://me@a:7/db", Some("two")),
        ("postgres://me@localhost/db", Some("lo:cal\\")),
        ("postgres://me@/db?host=/tmp", Some("lo:cal\\")),
        ("postgres://me@/db?host=/tmp&port=7", None),
        ("postgres://m%5Ce@/db?host=b:c", Some("escaped")),
        ("postgres://%2A@a/other", Some("star")),
        ("postgres://someone@a/other", None),
        ("postgres://me@a/empty", None),
        ("postgres://me@nowhere,a/db", Some("one")),
        ("postgres://me@nowhere/db", None),
    ] {
        assert_eq!(of(url).as_deref(), expected, "{url}");
    }
}

#[cfg(unix)]
#[test]
fn a_password_file_that_others_may_read_is_left_aside() {
    for mode in [0o640, 0o604, 0o622] {
        let home = home_with("*:*:*:*:kept\n", mode);
        let variables = [("HOME", home.path().to_str().unwrap())];
        assert_eq!(password(&within(&variables, "postgres://u@h").unwrap()), None);
    }
    let home = TempDir::new().unwrap();
    fs::create_dir(home.path().join(".pgpass")).unwrap();
    let variables = [("HOME", home.path().to_str().unwrap())];
    assert_eq!(password(&within(&variables, "postgres://u@h").unwrap()), None);
}

#[test]
fn no_message_shows_the_password() {
    let options = options("postgres://u:SECRET@h/d?password=SECRET2");
    assert_eq!(options.name(), "postgres://u@h:5432/d");
    let shown = format!("{options:?} {options:#?} {:?}", options.config());
    assert!(!shown.contains("SECRET") && !shown.contains("83, 69"), "{shown}");
    for url in [
        "postgres://u:pa/SECRET@h/d",
        "postgres://u:SECRET/ss@h/d",
        "postgres://u:pa?SECRET@h",
        "postgres://u:pa?SECRET=1@h",
        "postgres://u:p@SECRET/x@h",
        "postgres://u:%SECRET@h",
        "postgres://h?password=a&SECRET",
        "postgres://h?password=a&SECRET=b",
        "postgres://h?password=%SECRET",
        "postgres://u:12?pool_size=SECRET@h",
    ] {
        let error = fault(url);
        assert!(!format!("{error} {error:?}").contains("SECRET"), "{error}");
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(user in "[^\0]{1,9}", password in "[^\0]{1,9}", database in "[^\0]{1,9}") {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let url = format!("postgres://{}:{}@h/{}", encoded(&user), encoded(&password), encoded(&database));
        let config = options(&url).config();
        prop_assert_eq!(config.get_user(), Some(user.as_str()));
        prop_assert_eq!(config.get_password(), Some(password.as_bytes()));
        prop_assert_eq!(config.get_dbname(), Some(database.as_str()));
    }

    #[test]
    fn a_password_that_was_not_encoded_is_not_shown(before in "[a/?#@:%&=,\\[\\]]{0,4}", after in "[a/?#@:%&=,\\[\\]]{0,4}") {
        let shown = match within(&[], &format!("postgres://u:{before}SECRET{after}@h/d")) {
            Ok(options) => format!("{} {options:?}", options.name()),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!shown.contains("SECRET"), "{}", shown);
    }
}
