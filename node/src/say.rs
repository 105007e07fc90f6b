//! Output lines for people and programs. The reader may stop at any moment, as `head` does: this ends a
//! command without an error.

use std::fmt::Arguments;
use std::io::{self, Write};

/// Prints a line to standard output, or returns the error from the enclosing function.
macro_rules! say {
    ($($words:tt)*) => { $crate::say::line(format_args!($($words)*))? };
}

/// Prints a line to standard error. Errors are ignored: no reader is left to report them to.
macro_rules! hint {
    ($($words:tt)*) => { $crate::say::aside(format_args!($($words)*)) };
}

/// Prints a line to standard output; see [`say`].
///
/// # Errors
/// If standard output is closed or full.
pub(crate) fn line(words: Arguments<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_fmt(words)?;
    out.write_all(b"\n")
}

/// Prints a line to standard error; see [`hint`].
pub(crate) fn aside(words: Arguments<'_>) {
    let mut out = io::stderr().lock();
    let _ = out.write_fmt(words).and_then(|()| out.write_all(b"\n"));
}
