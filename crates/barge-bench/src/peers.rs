//! The peers that are programs: `psql`, and the Python ones of bench/peers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::measure::Run;

/// The virtual environment that bench/peers/setup makes.
pub(crate) struct Python {
    interpreter: PathBuf,
    program: PathBuf,
}

/// A run of a Python peer.
pub(crate) struct Job<'a> {
    pub(crate) peer: &'a str,
    pub(crate) url: &'a str,
    pub(crate) csv: &'a Path,
    pub(crate) batch: usize,
    /// The first rows of the file that are taken.
    pub(crate) rows: usize,
}

impl Python {
    pub(crate) fn find() -> Option<Self> {
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/peers");
        let python = Python { interpreter: peers.join(".venv/bin/python"), program: peers.join("run.py") };
        peers.join(".venv/installed").exists().then_some(python)
    }

    /// What the peer itself says it took.
    pub(crate) fn run(&self, job: &Job<'_>) -> Run {
        let mut command = Command::new(&self.interpreter);
        command.arg(&self.program).arg(job.peer).args(["--url", job.url]).arg("--rows").arg(job.csv);
        command.args(["--batch", &job.batch.to_string(), "--limit", &job.rows.to_string()]);
        let told: Value = serde_json::from_str(&output(&mut command)).unwrap();
        assert_eq!(told["rows"], job.rows);
        Run { rows: job.rows, time: Duration::from_secs_f64(told["seconds"].as_f64().unwrap()) }
    }
}

/// What `psql` runs.
pub(crate) fn psql(url: &str, commands: &[&str]) -> Command {
    let mut psql = Command::new("psql");
    psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname", url]).env("LC_ALL", "C");
    commands.iter().for_each(|command| {
        psql.args(["--command", command]);
    });
    psql
}

/// Runs one `psql` command, and gives the time that `psql` itself took for it, its start and connecting left out.
pub(crate) fn timed_in_psql(url: &str, command: &str) -> Duration {
    let told = output(&mut psql(url, &["\\timing on", command]));
    let time = told.lines().find_map(|line| line.strip_prefix("Time: ")).unwrap();
    let milliseconds: f64 = time.split(' ').next().unwrap().parse().unwrap();
    Duration::from_secs_f64(milliseconds / 1e3)
}

pub(crate) fn has_psql() -> bool {
    Command::new("psql").arg("--version").stdout(Stdio::null()).status().is_ok()
}

pub(crate) fn output(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}
