//! Errors in the text of a pipeline.

use weir_types::NameError;
use weir_types::limits::{PIPELINE_TEXT_BYTES_MAX, SOURCES_MAX, STAGES_MAX};

/// Reason to reject the text of a pipeline.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Invalid TOML, or an unknown or missing setting.
    #[error("{0}")]
    Toml(String),
    /// The text exceeds the limit, given its length in bytes.
    #[error("a pipeline's text has at most {PIPELINE_TEXT_BYTES_MAX} bytes, not {0}")]
    TooLong(usize),
    /// Too few or too many stages.
    #[error("a pipeline has 1 to {STAGES_MAX} stages, not {0}")]
    Stages(usize),
    /// A setting is out of range.
    #[error("`{what}` has to be {want}")]
    Range {
        /// Name of the setting.
        what: &'static str,
        /// Valid range.
        want: &'static str,
    },
    /// An in-line pipeline has a topic for `main`.
    #[error("output `main` of an in-line pipeline is the stream itself and has no topic")]
    Main,
    /// An output leads back to a source.
    #[error("`{0}` leads back to the source")]
    Loop(String),
    /// Invalid position to begin at.
    #[error(
        "`{0}` is not a position to begin at: write \"start\", \"end\", an offset, or a time like \"2026-11-22T08:00:00Z\""
    )]
    Origin(String),
    /// Too few or too many sources.
    #[error("a pipeline has 1 to {SOURCES_MAX} sources, not {0}")]
    Sources(usize),
    /// An in-line pipeline has several sources.
    #[error("an in-line pipeline has a single source: use `at = \"log\"` for several")]
    InlineSources,
    /// A source is listed twice.
    #[error("topic `{0}` is listed twice as a source")]
    Twice(String),
    /// The setting is for log pipelines only.
    #[error("`{0}` is for log pipelines: add `at = \"log\"`")]
    Inline(&'static str),
    /// A log pipeline has no output.
    #[error("the pipeline has no output: give `main`, or an output of a module, a topic under [outputs]")]
    Nowhere,
    /// Invalid name of a pipeline or topic.
    #[error(transparent)]
    Name(#[from] NameError),
}
