//! How far a load, a copy or an export has come, while it runs: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use tokio::task::JoinHandle;

use crate::args::{Output, ProgressStyle};
use crate::output::{complain, counted, grouped};

/// How often the bar is drawn.
const BAR_INTERVAL: Duration = Duration::from_millis(200);

/// Counters that the parts at work add to.
pub(crate) struct Progress {
    /// Bytes read, over all files, as they are stored.
    pub(crate) bytes: AtomicU64,
    /// Rows whose fate is settled.
    pub(crate) rows: AtomicU64,
    /// The files' sizes together, where all are known.
    bytes_total: Option<u64>,
    started: Instant,
}

/// Shows progress until it is dropped.
pub(crate) struct Ticker {
    task: Option<JoinHandle<()>>,
    bar: Option<ProgressBar>,
}

impl Drop for Ticker {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Progress {
    /// Nothing yet, of so many bytes where that is known.
    pub(crate) fn new(bytes_total: Option<u64>) -> Self {
        Progress { bytes: AtomicU64::new(0), rows: AtomicU64::new(0), bytes_total, started: Instant::now() }
    }

    /// Begins to show progress in the way the command line asks for.
    pub(crate) fn show(self: &Arc<Self>, output: &Output) -> Ticker {
        let terminal = std::io::stderr().is_terminal();
        let style = match output.progress {
            _ if output.quiet => ProgressStyle::None,
            ProgressStyle::Auto if terminal => ProgressStyle::Bar,
            ProgressStyle::Auto => ProgressStyle::Plain,
            style => style,
        };
        match style {
            ProgressStyle::Auto | ProgressStyle::None => Ticker { task: None, bar: None },
            ProgressStyle::Bar => {
                let bar = self.bar();
                let (progress, own) = (Arc::clone(self), bar.clone());
                let task = every(BAR_INTERVAL, move || progress.draw(&own));
                Ticker { task: Some(task), bar: Some(bar) }
            }
            ProgressStyle::Plain => {
                let progress = Arc::clone(self);
                let interval = Duration::from_secs_f64(output.progress_seconds);
                Ticker { task: Some(every(interval, move || complain(&progress.line()))), bar: None }
            }
        }
    }

    fn bar(&self) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(self.bytes_total, ProgressDrawTarget::stderr());
        let template = match self.bytes_total {
            Some(_) => "{bar:30} {percent:>3} %  {msg}",
            None => "{spinner} {msg}",
        };
        // The templates are constants, so that they parse always or never.
        if let Ok(style) = BarStyle::with_template(template) {
            bar.set_style(style);
        }
        bar
    }

    fn draw(&self, bar: &ProgressBar) {
        bar.set_position(self.bytes.load(Ordering::Relaxed));
        bar.set_message(self.rows_and_time());
    }

    fn line(&self) -> String {
        let percent = self.share().map(|share| format!(", {:.0} %", share * 100.0)).unwrap_or_default();
        format!("{}{percent}", self.rows_and_time())
    }

    fn rows_and_time(&self) -> String {
        let rows = self.rows.load(Ordering::Relaxed);
        let elapsed = self.started.elapsed().as_secs_f64();
        let rate = grouped((rows as f64 / elapsed.max(0.001)) as u64);
        // A guess from a moment's reading would only mislead.
        let left = self.share().filter(|share| *share > 0.001 && rows > 0);
        let left = left.map(|share| format!(", {} left", clock(elapsed * (1.0 - share) / share)));
        format!("{}, {rate} rows/s{}", counted(rows, "row"), left.unwrap_or_default())
    }

    /// The part of the files that is read, from 0 to 1.
    fn share(&self) -> Option<f64> {
        let total = self.bytes_total.filter(|total| *total > 0)?;
        Some((self.bytes.load(Ordering::Relaxed) as f64 / total as f64).min(1.0))
    }
}

/// The sizes of files together, where all are known.
pub(crate) fn size_of(files: &[PathBuf]) -> Option<u64> {
    let size = |file: &PathBuf| {
        let metadata = (file.as_path() != Path::new("-")).then(|| std::fs::metadata(file).ok()).flatten();
        metadata.filter(std::fs::Metadata::is_file).map(|metadata| metadata.len())
    };
    files.iter().map(size).sum()
}

fn every(interval: Duration, mut act: impl FnMut() + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            act();
        }
    })
}

/// Seconds as `5 s`, `3:20` or `2:03:20`.
fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes}:{:02}", seconds % 60),
        _ => format!("{hours}:{minutes:02}:{:02}", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_short() {
        assert_eq!(
            (clock(4.6), clock(200.0), clock(7_400.0)),
            ("5 s".into(), "3:20".into(), "2:03:20".into())
        );
    }
}
