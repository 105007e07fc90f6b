//! `weir:module/log`.

use crate::bindings::weir::module::log::{Host, Level};
use crate::host::Guest;
use crate::limits::LOG_LINE_BYTES_MAX;
use std::sync::Arc;

/// Importance of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// For the module's developer.
    Debug,
    /// Normal events.
    Info,
    /// Unexpected events that the module handled.
    Warn,
    /// Failures.
    Error,
}

/// Receives lines of guests.
pub trait LogSink: Send + Sync + 'static {
    /// Takes a line without control characters.
    fn line(&self, level: LogLevel, line: &str);
}

/// Discards all lines.
impl LogSink for () {
    fn line(&self, _: LogLevel, _: &str) {}
}

/// Lines of an instance, with a limit per call.
pub(crate) struct Lines {
    sink: Arc<dyn LogSink>,
    per_call: u32,
    left: u32,
    dropped: u64,
}

impl Lines {
    pub(crate) fn new(sink: Arc<dyn LogSink>, per_call: u32) -> Self {
        Self {
            sink,
            per_call,
            left: per_call,
            dropped: 0,
        }
    }

    pub(crate) fn begin_call(&mut self) {
        if std::mem::take(&mut self.dropped) > 0 {
            self.sink.line(
                LogLevel::Warn,
                "(lines beyond the limit of one call were dropped)",
            );
        }
        self.left = self.per_call;
    }

    /// Counts, cuts and cleans a line from the guest.
    pub(crate) fn line(&mut self, level: LogLevel, message: &str) {
        if self.left == 0 {
            self.dropped += 1;
            return;
        }
        self.left -= 1;
        let end = message.floor_char_boundary(LOG_LINE_BYTES_MAX);
        let line = message.get(..end).unwrap_or_default();
        self.sink.line(level, &line.replace(char::is_control, " "));
    }
}

impl Host for Guest {
    fn write(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        self.log.line(level, &message);
        Ok(())
    }
}
