//! Lines one after another, in the window.

use std::sync::Arc;

use crate::window::Window;

pub(super) struct Lines {
    window: Window,
    /// The line that the next byte stands on.
    line: u64,
    /// Whether to stop before a line too large instead of cutting it, so that it can be read again.
    keep_whole: bool,
}

/// A line that is not blank, without its end.
pub(super) struct Line {
    pub(super) raw_start: usize,
    pub(super) raw_end: usize,
    pub(super) line: u64,
    pub(super) too_large: bool,
}

impl Lines {
    pub(super) fn new(window: Window) -> Lines {
        Lines { window, line: 1, keep_whole: false }
    }

    pub(super) fn window(&self) -> &Window {
        &self.window
    }

    pub(super) fn name(&self) -> &Arc<str> {
        self.window.name()
    }

    pub(super) fn release(&mut self) {
        self.window.release();
    }

    pub(super) fn keep_whole(&mut self, keep_whole: bool) {
        self.keep_whole = keep_whole;
    }

    pub(super) fn position(&self) -> (usize, u64) {
        (self.window.pos, self.line)
    }

    /// Goes back to a place that has not been released, and reads on from there in the usual way.
    pub(super) fn restore(&mut self, (pos, line): (usize, u64)) {
        (self.window.pos, self.line) = (pos, line);
        self.keep_whole = false;
    }

    /// Gives the line out again next time. It must be the last one, and not too large.
    pub(super) fn unread(&mut self, line: &Line) {
        (self.window.pos, self.line) = (line.raw_start, line.line);
    }

    /// The line's text, or what is wrong with it.
    pub(super) fn text(&self, line: &Line) -> Result<&str, String> {
        if line.too_large {
            return Err(format!("the row is larger than {} bytes", self.window.row_bytes_max()));
        }
        let raw = &self.window.bytes()[line.raw_start..line.raw_end];
        std::str::from_utf8(raw).map_err(|error| {
            let at = error.valid_up_to();
            format!("byte {} of the line, {:#04x}, is not valid UTF-8", at + 1, raw[at])
        })
    }

    /// The next line, or `None` at the end of the file, and where reading failed: the window knows which. A line cut off by a
    /// failure is not given out.
    pub(super) fn next(&mut self) -> Option<Line> {
        loop {
            let line = self.any()?;
            let raw = &self.window.bytes()[line.raw_start..line.raw_end];
            if line.too_large || !raw.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }

    fn any(&mut self) -> Option<Line> {
        let (raw_start, line, max) = (self.window.pos, self.line, self.window.row_bytes_max());
        let kept = raw_start + self.window.rejected_bytes_max() + 1;
        let mut too_large = false;
        loop {
            let found = memchr::memchr(b'\n', self.window.ahead());
            let seen = found.map_or(self.window.ahead().len(), |at| at + 1);
            self.window.pos += seen;
            let raw_end = self.window.pos - usize::from(found.is_some());
            if raw_end - raw_start > max && !too_large {
                if self.keep_whole {
                    self.window.pos = raw_start;
                    return None;
                }
                too_large = true;
            }
            if found.is_some() {
                self.line += 1;
                return Some(Line {
                    raw_start,
                    raw_end: self.trimmed(raw_start, raw_end, too_large),
                    line,
                    too_large,
                });
            }
            if too_large && self.window.pos > kept {
                self.window.cut(kept);
            }
            if !self.window.fill() {
                if self.window.failure().is_some() || raw_end == raw_start {
                    return None;
                }
                let raw_end = self.trimmed(raw_start, self.window.pos, too_large);
                return Some(Line { raw_start, raw_end, line, too_large });
            }
        }
    }

    /// The end of a line without its carriage return; of one too large, the end of what is kept.
    fn trimmed(&self, raw_start: usize, raw_end: usize, too_large: bool) -> usize {
        if too_large {
            let kept = self.window.rejected_bytes_max() + 1;
            return raw_end.min(raw_start + kept);
        }
        raw_end - usize::from(self.window.bytes()[raw_start..raw_end].ends_with(b"\r"))
    }
}
