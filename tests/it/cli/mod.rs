//! The command line as users run it.

mod dead_letters;
mod errors;
mod examples;
mod groups;
mod pipelines;
mod records;
