//! The command line as users run it.

mod tools;
mod tour;
