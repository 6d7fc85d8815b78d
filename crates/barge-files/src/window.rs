//! The part of a text file that is in memory: the bytes of the rows being gathered, and what was read ahead.

use std::sync::Arc;

use barge_core::{Error, Result};

use crate::input::Input;
use crate::options::ReadOptions;

/// A buffer over an [`Input`]. Bytes before `pos` have been consumed and stay until [`Window::release`], so that
/// rejected rows can quote them; offsets into [`Window::bytes`] hold until then.
pub(crate) struct Window {
    input: Input,
    buffer: Vec<u8>,
    /// The next byte to consume.
    pub(crate) pos: usize,
    /// The end of the bytes read.
    end: usize,
    finished: bool,
    failed: Option<Error>,
    read_bytes: usize,
    row_bytes_max: usize,
    rejected_bytes_max: usize,
}

impl Window {
    pub(crate) fn new(input: Input, options: &ReadOptions) -> Window {
        Window {
            input,
            buffer: Vec::new(),
            pos: 0,
            end: 0,
            finished: false,
            failed: None,
            read_bytes: options.read_bytes,
            row_bytes_max: options.row_bytes_max,
            // So a row too large is never taken for a whole one.
            rejected_bytes_max: options.rejected_bytes_max.min(options.row_bytes_max),
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        self.input.name()
    }

    pub(crate) fn input(&self) -> &Input {
        &self.input
    }

    pub(crate) fn row_bytes_max(&self) -> usize {
        self.row_bytes_max
    }

    /// The most bytes kept of a rejected line.
    pub(crate) fn rejected_bytes_max(&self) -> usize {
        self.rejected_bytes_max
    }

    /// All bytes held.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.end]
    }

    /// The bytes not consumed yet.
    pub(crate) fn ahead(&self) -> &[u8] {
        &self.buffer[self.pos..self.end]
    }

    /// Reads more. False at the end of the file and after a failure, which [`Window::failure`] tells apart.
    pub(crate) fn fill(&mut self) -> bool {
        if self.finished {
            return false;
        }
        if self.buffer.len() < self.end + self.read_bytes {
            // Doubling keeps the copying linear; what is added is zeroed once.
            let len = (self.end + self.read_bytes).max(self.buffer.len() * 2);
            self.buffer.resize(len, 0);
        }
        match self.input.read(&mut self.buffer[self.end..self.end + self.read_bytes]) {
            Ok(0) => self.finished = true,
            Ok(bytes) => {
                self.end += bytes;
                return true;
            }
            Err(error) => {
                self.finished = true;
                self.failed = Some(error);
            }
        }
        false
    }

    /// Reads until so many bytes are ahead, or the file ends.
    pub(crate) fn fill_to(&mut self, bytes: usize) {
        while self.end - self.pos < bytes && self.fill() {}
    }

    /// The failure that ended the reading, if one did.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Forgets the consumed bytes.
    pub(crate) fn release(&mut self) {
        self.buffer.copy_within(self.pos..self.end, 0);
        self.end -= self.pos;
        self.pos = 0;
    }

    /// Forgets the bytes from `keep` up to `pos`: the inside of a row too large to be held.
    pub(crate) fn cut(&mut self, keep: usize) {
        self.buffer.copy_within(self.pos..self.end, keep);
        self.end -= self.pos - keep;
        self.pos = keep;
    }

    /// Skips the UTF-8 byte order mark.
    ///
    /// # Errors
    /// The file is UTF-16, or its first bytes cannot be read.
    pub(crate) fn skip_byte_order_mark(&mut self) -> Result<()> {
        self.fill_to(3);
        match self.ahead() {
            [0xef, 0xbb, 0xbf, ..] => self.pos += 3,
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
                let message = format!("{} is encoded in UTF-16: convert it to UTF-8 first", self.name());
                return Err(Error::new(barge_core::ErrorKind::Io, message));
            }
            _ => {}
        }
        Ok(())
    }
}
