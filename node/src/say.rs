//! Lines for people and programs. Whoever reads them may stop at any moment, as `head` does: that ends a command, and is no error.

use std::fmt::Arguments;
use std::io::{self, Write};

/// Prints a line to standard output, or ends the function with why it cannot.
macro_rules! say {
    ($($words:tt)*) => { $crate::say::line(format_args!($($words)*))? };
}

/// Prints a line to standard error. If nobody reads it, there is nobody to tell.
macro_rules! hint {
    ($($words:tt)*) => { $crate::say::aside(format_args!($($words)*)) };
}

/// As [`say`] does.
///
/// # Errors
/// When standard output is closed or full.
pub(crate) fn line(words: Arguments<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_fmt(words)?;
    out.write_all(b"\n")
}

/// As [`hint`] does.
pub(crate) fn aside(words: Arguments<'_>) {
    let mut out = io::stderr().lock();
    let _ = out.write_fmt(words).and_then(|()| out.write_all(b"\n"));
}
