//! Logs, on standard error.

use std::fmt::{self, Write};
use std::io::IsTerminal;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What is told where nobody asked for logs: what the user has to know while it goes on, such as that a server doesn't answer and is waited
/// for.
const TOLD: &str = "barge_core=warn,barge_duckdb=warn,barge_postgres=warn,barge_sqlite=warn";

/// Starts to write what `BARGE_LOG`, or else `RUST_LOG`, asks for, and otherwise warnings, as messages of the program.
pub(crate) fn start() {
    let filter = ["BARGE_LOG", "RUST_LOG"].iter().find_map(|name| std::env::var(name).ok());
    let logs = tracing_subscriber::fmt().with_writer(std::io::stderr);
    match filter.filter(|filter| !filter.is_empty()) {
        Some(filter) => {
            logs.with_env_filter(EnvFilter::new(filter)).with_ansi(std::io::stderr().is_terminal()).init();
        }
        None => logs.event_format(Message).with_env_filter(EnvFilter::new(TOLD)).init(),
    }
}

/// One line, as the program's other messages: what is going on, then the error, then the rest.
struct Message;

impl<S, N> FormatEvent<S, N> for Message
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut parts = Parts::default();
        event.record(&mut parts);
        writeln!(writer, "barge: {}{}{}", parts.message, parts.error, parts.others)
    }
}

#[derive(Default)]
struct Parts {
    message: String,
    error: String,
    others: String,
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string can't fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "error" => write!(self.error, ": {value:?}"),
            name => write!(self.others, "; {name}: {value:?}"),
        };
    }
}
