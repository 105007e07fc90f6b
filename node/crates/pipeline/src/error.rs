//! What can go wrong with pipelines and modules.

use crate::spec::error::SpecError;
use std::io;
use weir_broker::{AdminError, FetchError, FormatError};
use weir_runtime::{InitError, LoadError};
use weir_types::ErrorKind;
use weir_types::limits::STATEFUL_PARTITIONS_MAX;

/// Why a pipeline is not tried out on some partitions.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CanaryError {
    #[error(
        "a canary of `{0}` is at work already: `weir pipeline promote {0}` or `weir pipeline rollback {0}` first"
    )]
    AtWork(String),
    #[error("there is no canary of `{0}`: `weir pipeline canary FILE --partitions …` begins one")]
    None(String),
    #[error("`{0}` is not running: resume it first, or apply the new version to all partitions")]
    NotRunning(String),
    #[error("a canary has the source and the place of the pipeline as it is: `{0}` differs")]
    Differs(&'static str),
    #[error("its source has partitions 0 to {last}: there is no partition {partition}")]
    NoPartition { partition: u32, last: u32 },
    #[error("name some partitions, and not all: `weir pipeline apply` is for all")]
    Partitions,
    #[error(
        "what its modules remember would be another's, or of another version: on some partitions that cannot be; try it with \
         `weir pipeline shadow` instead"
    )]
    Migrates,
}

/// Why a module was not taken or not found.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum PushError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(
        "`{0}` cannot name a module: use 1 to 100 letters, digits, `.`, `_` or `-`, and begin with no `.` or `-`"
    )]
    Name(String),
    #[error("`{0}` cannot name a module: it could be the beginning of another's digest")]
    LikeDigest(String),
    #[error("other modules are being compiled: try again")]
    Busy,
    #[error("there are {0} modules already: remove one")]
    Full(usize),
    #[error(
        "the same bytes have {0} names and versions already: remove one with `weir module remove NAME@VERSION`"
    )]
    Labels(usize),
    #[error("no module `{0}`; `weir module list` shows what there is")]
    NotFound(String),
    #[error("module is used by pipeline `{0}`")]
    InUse(String),
    #[error("module `{name}@{version}` exists with other bytes: push it under another version")]
    Exists { name: String, version: String },
    #[error("stored module `{0}` is damaged: push it again")]
    Damaged(String),
    #[error("cannot store the module")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl PushError {
    /// What the caller does.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Load(e) => e.kind(),
            Self::Admin(e) => e.kind(),
            Self::Io(_) => ErrorKind::Internal,
            Self::Damaged(_) => ErrorKind::Corrupt,
            Self::Busy => ErrorKind::Retry,
            Self::Format(_) => ErrorKind::Internal,
            Self::Name(_)
            | Self::LikeDigest(_)
            | Self::Full(_)
            | Self::Labels(_)
            | Self::NotFound(_)
            | Self::InUse(_)
            | Self::Exists { .. } => ErrorKind::Invalid,
        }
    }
}

/// Why a pipeline was not applied.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ApplyError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Module(#[from] PushError),
    #[error("stage {stage}, module `{module}`: {error}")]
    Init {
        stage: usize,
        module: String,
        error: InitError,
    },
    #[error("no topic `{0}`; create it with `weir topic create {0}`")]
    NoTopic(String),
    #[error(
        "output `{output}` of module `{module}` has no topic: add `{output} = \"TOPIC\"` under [outputs]"
    )]
    OutputWithoutTopic { module: String, output: String },
    #[error("no module of the pipeline has an output `{0}`")]
    UnknownOutput(String),
    #[error(
        "topic `{0}` is in replica groups, and what an in-line pipeline remembers is in the group of all nodes: let this one \
         stand behind the log, with `at = \"log\"`, or use a topic that was made without `--replication`"
    )]
    Spread(String),
    #[error(
        "pipeline `{0}` stands elsewhere, in-line or behind the log: give this one another name, or `weir pipeline remove {0}` first"
    )]
    OtherPlace(String),
    #[error(
        "topic {one} partitions and topic {other}: records of one key would not meet; give both the same number"
    )]
    Apart { one: String, other: String },
    #[error("pipeline `{0}` is in-line: it has no place to be taken back to")]
    NoPlaces(String),
    #[error("pipeline `{name}` has no revision {} to go back to; `weir pipeline history {name}` shows them", .revision.map_or_else(|| "before this".to_owned(), |n| n.to_string()))]
    NoRevision { name: String, revision: Option<u64> },
    #[error("pipeline `{0}` was changed meanwhile: look again")]
    Changed(String),
    #[error(transparent)]
    Canary(#[from] CanaryError),
    #[error("node {node} could not go on with it if it came to lead: {why}")]
    Elsewhere { node: u64, why: String },
    #[error("a pipeline is being tried out already: wait for it to end")]
    Shadowing,
    #[error(
        "its source has {0} partitions, and following what comes is for at most {STATEFUL_PARTITIONS_MAX}"
    )]
    Wide(usize),
    #[error("that is not where a page begins: take what the page before it says")]
    Page,
    #[error("it cannot begin there: {0}")]
    Begin(#[from] FetchError),
    #[error("topic `{topic}` has the in-line pipeline `{other}` already: add a stage there")]
    Taken { topic: String, other: String },
    #[error(
        "stage {stage}: module `{module}` imports `weir:module/{what}`, which the stage does not grant: add `\"{what}\"` to \
         its `grants`"
    )]
    NotGranted {
        stage: usize,
        module: String,
        what: &'static str,
    },
    #[error(
        "stage {stage}: module `{module}` does not take over what version {earlier} of it remembers of partition {partition}: {why}; \
         the pipeline goes on as it was"
    )]
    Migrate {
        stage: usize,
        module: String,
        earlier: u32,
        partition: u32,
        why: String,
    },
    #[error(
        "stage {stage} keeps state of {before}, and would be {now}: `weir pipeline reset {pipeline}` forgets what it \
         keeps, then apply again"
    )]
    OtherState {
        pipeline: String,
        stage: usize,
        before: String,
        now: String,
    },
    #[error("there are {0} pipelines already: remove one")]
    Full(usize),
    #[error(
        "all pipelines' {what} would come to {wanted}, and {limit} may be: remove one, or make it smaller"
    )]
    Together {
        what: &'static str,
        wanted: usize,
        limit: usize,
    },
    #[error("no pipeline `{0}`")]
    NotFound(String),
    #[error(transparent)]
    Admin(#[from] AdminError),
}

impl ApplyError {
    /// What the caller does.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Module(e) => e.kind(),
            Self::Admin(e) => e.kind(),
            Self::Begin(e) => e.kind(),
            Self::Shadowing => ErrorKind::Retry,
            Self::Spec(_)
            | Self::Init { .. }
            | Self::NoTopic(_)
            | Self::OutputWithoutTopic { .. }
            | Self::UnknownOutput(_)
            | Self::Spread(_)
            | Self::Taken { .. }
            | Self::OtherPlace(_)
            | Self::Apart { .. }
            | Self::NoPlaces(_)
            | Self::Canary(_)
            | Self::Elsewhere { .. }
            | Self::Page
            | Self::NoRevision { .. }
            | Self::Changed(_)
            | Self::Wide(_)
            | Self::NotGranted { .. }
            | Self::OtherState { .. }
            | Self::Migrate { .. }
            | Self::Together { .. }
            | Self::Full(_)
            | Self::NotFound(_) => ErrorKind::Invalid,
        }
    }
}
