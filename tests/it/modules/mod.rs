//! Ready-made modules, the SDK and new module projects.

mod cases;
mod decoders;
mod json_readers;
mod new;
mod rewriting;
