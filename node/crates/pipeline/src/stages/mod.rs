//! Records through the modules of a pipeline.

pub(crate) mod batches;
pub(crate) mod dated;
pub mod dead_letter;
pub(crate) mod effects;
pub(crate) mod item;
pub(crate) mod output;
pub(crate) mod pass;
pub(crate) mod run;
pub(crate) mod stage;
