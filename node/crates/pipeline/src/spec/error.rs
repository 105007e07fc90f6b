//! Errors in the text of a pipeline.

use weir_types::NameError;
use weir_types::limits::{PIPELINE_TEXT_BYTES_MAX, SOURCES_MAX, STAGES_MAX};

/// Why a text is no pipeline.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SpecError {
    #[error("{0}")]
    Toml(String),
    #[error("a pipeline's text has at most {PIPELINE_TEXT_BYTES_MAX} bytes, this has {0}")]
    TooLong(usize),
    #[error("a pipeline has 1 to {STAGES_MAX} stages, this has {0}")]
    Stages(usize),
    #[error("`{what}` has to be {want}")]
    Range { what: &'static str, want: &'static str },
    #[error("output `main` is the stream itself and cannot be given a topic")]
    Main,
    #[error("`{0}` leads back to the source")]
    Loop(String),
    #[error(
        "`{0}` is no place to begin at: write \"start\", \"end\", an offset, or a time like \"2026-11-22T08:00:00Z\""
    )]
    Origin(String),
    #[error("a pipeline has 1 to {SOURCES_MAX} sources, this has {0}")]
    Sources(usize),
    #[error("an in-line pipeline has one source: with `at = \"log\"` there may be several")]
    InlineSources,
    #[error("topic `{0}` is a source twice")]
    Twice(String),
    #[error("`{0}` is for pipelines behind the log: add `at = \"log\"`")]
    Inline(&'static str),
    #[error("what it makes would go nowhere: give `main`, or an output of a module, a topic under [outputs]")]
    Nowhere,
    #[error(transparent)]
    Name(#[from] NameError),
}
