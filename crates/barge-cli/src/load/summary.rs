//! What a load or copy says at its end.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::letters::Kept;
use super::pipeline::{Ended, Told};
use super::plan::Planner;
use crate::args::{Mode, Origin, Target};
use crate::output::{aligned, counted, grouped, right_aligned, shown, without_password};

/// Where rows come from, as a summary tells it.
pub(crate) enum Subject {
    Files(Vec<PathBuf>),
    /// What is read from a database.
    Rows {
        name: String,
        from: Origin,
    },
}

/// The account of a load or copy.
pub(crate) struct Summary<'a> {
    target: &'a Target,
    subject: Subject,
    ended: &'a Ended,
    table: Option<String>,
    created: Option<usize>,
    elapsed: Duration,
}

impl<'a> Summary<'a> {
    pub(crate) fn new(
        target: &'a Target,
        subject: Subject,
        planner: &Planner,
        ended: &'a Ended,
        elapsed: Duration,
    ) -> Self {
        let table = planner.table().map(ToString::to_string);
        Summary { target, subject, ended, table, created: planner.created(), elapsed }
    }

    fn seconds(&self) -> f64 {
        self.elapsed.as_secs_f64()
    }

    /// Rows that were read and settled, a second.
    fn rate(&self) -> f64 {
        self.ended.rows_read as f64 / self.seconds().max(1e-9)
    }

    /// The summary for people.
    pub(crate) fn to_text(&self) -> String {
        let ended = self.ended;
        let mut text = format!("{}\n\n", self.headline());
        let mut rows =
            vec![row("rows read", ended.rows_read, ""), row("written", ended.written(), &self.written_as())];
        for (name, number) in [("unchanged", ended.unchanged), ("not found", ended.not_found)] {
            if number > 0 || (name == "not found" && self.target.mode == Some(Mode::Update)) {
                rows.push(row(name, number, ""));
            }
        }
        let kept = self.kept_as();
        rows.push(row("rejected", ended.rejected, if ended.rejected > 0 { &kept } else { "" }));
        if ended.not_written > 0 {
            let note = if self.is_kept_out() || kept.is_empty() { self.subject.ended_first() } else { &kept };
            rows.push(row("not written", ended.not_written, note));
        }
        let per_batch = match ended.statistics.flushes {
            0 => String::new(),
            _ => counted(ended.statistics.rows_per_batch().round() as u64, "row") + " each, on average",
        };
        rows.push(row("batches", ended.statistics.flushes, &per_batch));
        if ended.statistics.retries > 0 {
            rows.push(row("retries", ended.statistics.retries, ""));
        }
        let rate = format!("{} rows/s", grouped(self.rate() as u64));
        rows.push(vec!["time".into(), format!("{:.2} s", self.seconds()), rate]);
        text.push_str(&aligned("  ", &right_aligned(rows)));
        if !ended.told.is_empty() {
            let more = ended.rejected.saturating_sub(ended.told.len() as u64);
            let title = if more > 0 { "first rejected rows" } else { "rejected rows" };
            text.push_str(&format!("\n  {title}\n"));
            for told in &ended.told {
                text.push_str(&format!("    {}\n", shown(&told.to_text(self.subject.place()))));
            }
            if more > 0 {
                text.push_str(&format!("    … and {} more\n", grouped(more)));
            }
        }
        if let Some((file, line)) = &ended.stopped_at {
            let place = self.subject.place();
            text.push_str(&format!("\n  stopped in {} after {place} {}\n", shown(file), grouped(*line)));
        }
        text
    }

    /// What the dead letter file has of the rows that are not in the table.
    fn kept_as(&self) -> String {
        let (Some(file), Some(kept)) = (&self.target.dead_letter, self.ended.kept) else {
            return String::new();
        };
        let file = shown(&file.display().to_string());
        match kept {
            Kept::All => format!("kept in {file}"),
            Kept::Part => format!("kept in part in {file}"),
            Kept::Reasons => format!("not kept: {file} has the reasons only"),
            Kept::Failed => format!("not all kept: {file} could not be written"),
        }
    }

    /// Whether the rows not written are those of a replacement that did not come about: no dead letter tells of them.
    fn is_kept_out(&self) -> bool {
        self.target.mode == Some(Mode::Replace)
    }

    fn headline(&self) -> String {
        let url = shown(&without_password(&self.target.url));
        let into = match (&self.table, self.created) {
            (Some(table), Some(columns)) => {
                format!("table {} of {url}, created with {}", shown(table), counted(columns as u64, "column"))
            }
            (Some(table), None) => format!("table {} of {url}", shown(table)),
            (None, _) => url,
        };
        let [done, stopped, failed] = self.subject.verbs();
        let verb = match self.ended {
            ended if ended.failure.is_some() || ended.usage.is_some() => failed,
            ended if ended.interrupted => stopped,
            _ => done,
        };
        format!("{verb} {} into {into}", self.subject.shown())
    }

    /// What the written rows were, where that is more than one thing.
    fn written_as(&self) -> String {
        let ended = self.ended;
        let kinds = [("inserted", ended.inserted), ("updated", ended.updated), ("deleted", ended.deleted)];
        let kinds: Vec<String> = kinds
            .iter()
            .filter(|(_, number)| *number > 0)
            .map(|(name, number)| format!("{} {name}", grouped(*number)))
            .collect();
        if kinds.len() > 1 || ended.inserted < ended.written() { kinds.join(", ") } else { String::new() }
    }

    /// The summary for programs: one object.
    pub(crate) fn to_json(&self) -> String {
        let ended = self.ended;
        let mut value = json!({
            "url": without_password(&self.target.url),
            "table": self.table,
            "mode": self.target.mode.map(Mode::as_str),
            "created": self.created.is_some(),
            "rows_read": ended.rows_read,
            "rows_written": ended.written(),
            "rows_inserted": ended.inserted,
            "rows_updated": ended.updated,
            "rows_deleted": ended.deleted,
            "rows_unchanged": ended.unchanged,
            "rows_not_found": ended.not_found,
            "rows_rejected": ended.rejected,
            "rows_not_written": ended.not_written,
            "rejected": ended.told.iter().map(Told::to_json).collect::<Vec<_>>(),
            "dead_letter": self.target.dead_letter.as_ref().map(|file| file.display().to_string()),
            "dead_letter_kept": ended.kept.map(Kept::as_str),
            "batches": ended.statistics.flushes,
            "rows_per_batch": ended.statistics.rows_per_batch(),
            "retries": ended.statistics.retries,
            "seconds": self.seconds(),
            "rows_per_second": self.rate(),
            "interrupted": ended.interrupted,
            "stopped_at": ended.stopped_at.as_ref().map(|(file, line)| json!({"file": &**file, "line": line})),
            "error": ended.failure.as_ref().map(ToString::to_string).or_else(|| ended.usage.clone()),
            "exit_status": ended.status() as u8,
        });
        self.subject.describe(&mut value);
        format!("{value:#}\n")
    }
}

impl Subject {
    fn shown(&self) -> String {
        match self {
            Subject::Rows { name, .. } => name.clone(),
            Subject::Files(files) => match files.as_slice() {
                [file] if file.as_os_str() == "-" => "standard input".into(),
                [file] => shown(&file.display().to_string()),
                files => counted(files.len() as u64, "file"),
            },
        }
    }

    /// What was done to it: all of it, a part of it, not what should have been.
    fn verbs(&self) -> [&'static str; 3] {
        match self {
            Subject::Files(_) => ["Loaded", "Stopped loading", "Failed to load"],
            Subject::Rows { .. } => ["Copied", "Stopped copying", "Failed to copy"],
        }
    }

    fn ended_first(&self) -> &'static str {
        match self {
            Subject::Files(_) => "the load ended first",
            Subject::Rows { .. } => "the copy ended first",
        }
    }

    /// What its places are numbers of.
    fn place(&self) -> &'static str {
        match self {
            Subject::Files(_) => "line",
            Subject::Rows { .. } => "row",
        }
    }

    /// Adds it to a summary in JSON.
    fn describe(&self, value: &mut Value) {
        match self {
            Subject::Files(files) => {
                let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
                value["files"] = files.into();
            }
            Subject::Rows { from, .. } => {
                value["from"] = json!({
                    "url": without_password(&from.url),
                    "schema": from.schema,
                    "table": from.table,
                    "query": from.query,
                });
            }
        }
    }
}

impl Told {
    fn to_text(&self, place: &str) -> String {
        if self.placed {
            return self.error.to_string();
        }
        let column = self.column.as_ref().map(|column| format!(", column {column}")).unwrap_or_default();
        format!("{}, {place} {}{column}: {}", self.file, self.line, self.error.message())
    }

    fn to_json(&self) -> Value {
        let mut value = Map::new();
        value.insert("file".into(), (*self.file).into());
        value.insert("line".into(), self.line.into());
        value.insert("column".into(), self.column.clone().into());
        value.insert("kind".into(), self.error.kind().as_str().into());
        value.insert("message".into(), self.error.message().into());
        value.into()
    }
}

fn row(name: &str, number: u64, note: &str) -> Vec<String> {
    vec![name.into(), grouped(number), note.into()]
}
