//! The command line, through the real binary.

mod dead_letters;
mod errors;
mod examples;
mod groups;
mod pipelines;
mod records;
