//! Errors of pipelines and modules.

use crate::spec::error::SpecError;
use std::io;
use weir_broker::{AdminError, FetchError, FormatError};
use weir_runtime::{InitError, LoadError};
use weir_types::ErrorKind;
use weir_types::limits::STATEFUL_PARTITIONS_MAX;

/// Reason to reject a canary, or its promotion.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// A canary of this pipeline is running.
    #[error(
        "a canary of `{0}` is at work already: `weir pipeline promote {0}` or `weir pipeline rollback {0}` first"
    )]
    AtWork(String),
    /// No canary of this pipeline is running.
    #[error("there is no canary of `{0}`: `weir pipeline canary FILE --partitions …` begins one")]
    None(String),
    /// The pipeline is paused or halted.
    #[error("`{0}` is not running: resume it first, or apply the new version to all partitions")]
    NotRunning(String),
    /// The candidate differs in this setting, which a canary cannot change.
    #[error("a canary keeps the source and the position of its pipeline: `{0}` differs")]
    Differs(&'static str),
    /// The source has no such partition.
    #[error("its source has partitions 0 to {last}: there is no partition {partition}")]
    NoPartition {
        /// Missing partition.
        partition: u32,
        /// Last partition of the source.
        last: u32,
    },
    /// No partition is named, or all are.
    #[error("name at least one partition, but not all: `weir pipeline apply` is for all")]
    Partitions,
    /// The candidate would need a migration of state.
    #[error(
        "a canary cannot change a module's state version or the owner of a stage's state; try `weir pipeline shadow` instead"
    )]
    Migrates,
}

/// Error of taking in, finding or removing a module.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The module cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Invalid name or version.
    #[error(
        "`{0}` cannot name a module: use 1 to 100 letters, digits, `.`, `_` or `-`, and do not begin with `.` or `-`"
    )]
    Name(String),
    /// A name that could be taken for a digest.
    #[error("`{0}` cannot name a module: the name could be the first digits of a digest")]
    LikeDigest(String),
    /// Other modules are being compiled; retry.
    #[error("other modules are being compiled: retry")]
    Busy,
    /// The limit of modules or of their bytes is reached.
    #[error("the limit of {0} modules is reached: remove some")]
    Full(usize),
    /// The limit of labels of a module is reached.
    #[error(
        "the same bytes have {0} names and versions already: remove a label with `weir module remove NAME@VERSION`"
    )]
    Labels(usize),
    /// No module matches the reference.
    #[error("no module `{0}`; see `weir module list`")]
    NotFound(String),
    /// A pipeline uses the module.
    #[error("module is used by pipeline `{0}`")]
    InUse(String),
    /// The label belongs to other bytes.
    #[error("module `{name}@{version}` exists with other bytes: push it under another version")]
    Exists {
        /// Name of the label.
        name: String,
        /// Version of the label.
        version: String,
    },
    /// The stored bytes do not match their digest.
    #[error("stored module `{0}` is damaged: push it again")]
    Damaged(String),
    /// A file of the module store cannot be used.
    #[error("cannot store the module")]
    Io(#[from] io::Error),
    /// The site rejected or could not make the change.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A stored row cannot be read.
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl PushError {
    /// Returns the class of the error, which tells a caller how to react.
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

/// Error of changing or inspecting a pipeline.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The text of the pipeline is invalid.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A module cannot be found or loaded.
    #[error(transparent)]
    Module(#[from] PushError),
    /// A module cannot be instantiated.
    #[error("stage {stage}, module `{module}`: {error}")]
    Init {
        /// Stage, counted from 1.
        stage: usize,
        /// Module of the stage.
        module: String,
        /// The cause.
        error: InitError,
    },
    /// A source or output topic does not exist.
    #[error("no topic `{0}`; create it with `weir topic create {0}`")]
    NoTopic(String),
    /// An output of a module has no topic.
    #[error(
        "output `{output}` of module `{module}` has no topic: add `{output} = \"TOPIC\"` under [outputs]"
    )]
    OutputWithoutTopic {
        /// Module with the output.
        module: String,
        /// Name of the output.
        output: String,
    },
    /// A topic is given for an output that no module has.
    #[error("no module of the pipeline has an output `{0}`")]
    UnknownOutput(String),
    /// The source of a stateful in-line pipeline is in replica groups.
    #[error(
        "topic `{0}` is in replica groups, and state of an in-line pipeline is in the group of all nodes: use a log pipeline, \
         with `at = \"log\"`, or a topic that was created without `--replication`"
    )]
    Spread(String),
    /// A pipeline cannot switch between in-line and log.
    #[error(
        "pipeline `{0}` cannot switch between in-line and log: choose another name, or `weir pipeline remove {0}` first"
    )]
    OtherPlace(String),
    /// The sources of a stateful pipeline differ in their number of partitions.
    #[error(
        "topic {one} partitions and topic {other}: records of a key would not meet; give both the same number"
    )]
    Apart {
        /// Topic and partitions of the first source.
        one: String,
        /// Topic and partitions of a source that differs.
        other: String,
    },
    /// An in-line pipeline has no position to rewind.
    #[error("pipeline `{0}` is in-line: only log pipelines can be rewound")]
    NoPlaces(String),
    /// No such revision is stored.
    #[error("pipeline `{name}` has no revision {} to go back to; see `weir pipeline history {name}`", .revision.map_or_else(|| "before this".to_owned(), |n| n.to_string()))]
    NoRevision {
        /// Name of the pipeline.
        name: String,
        /// Requested revision, or `None` for the revision before.
        revision: Option<u64>,
    },
    /// Another caller has changed the pipeline meanwhile.
    #[error("pipeline `{0}` was changed meanwhile: check and retry")]
    Changed(String),
    /// The canary is rejected.
    #[error(transparent)]
    Canary(#[from] CanaryError),
    /// Another node cannot compile the modules.
    #[error("node {node} could not run the pipeline as a leader: {why}")]
    Elsewhere {
        /// The other node.
        node: u64,
        /// The cause.
        why: String,
    },
    /// Another shadow run is under way; retry.
    #[error("another shadow run is under way: wait for its end")]
    Shadowing,
    /// Too many partitions for following new records in a shadow run.
    #[error(
        "the source has {0} partitions, and new records are followed on at most {STATEFUL_PARTITIONS_MAX}"
    )]
    Wide(usize),
    /// Invalid page token.
    #[error("invalid page token: use `next` of the page before")]
    Page,
    /// The position to begin at does not exist or cannot be read.
    #[error("the pipeline cannot begin there: {0}")]
    Begin(#[from] FetchError),
    /// The source has another in-line pipeline.
    #[error("topic `{topic}` has the in-line pipeline `{other}` already: add a stage there")]
    Taken {
        /// Source topic.
        topic: String,
        /// Name of its pipeline.
        other: String,
    },
    /// A module needs a grant that its stage lacks.
    #[error(
        "stage {stage}: module `{module}` imports `weir:module/{what}`, which the stage does not grant: add `\"{what}\"` to \
         its `grants`"
    )]
    NotGranted {
        /// Stage, counted from 1.
        stage: usize,
        /// Module of the stage.
        module: String,
        /// Missing grant.
        what: &'static str,
    },
    /// A module rejects the state of its earlier version.
    #[error(
        "stage {stage}: module `{module}` does not take over what version {earlier} of it remembers of partition {partition}: {why}; \
         the pipeline continues as before"
    )]
    Migrate {
        /// Stage, counted from 1.
        stage: usize,
        /// Module of the stage.
        module: String,
        /// State version before.
        earlier: u32,
        /// Partition of the state.
        partition: u32,
        /// The module's message.
        why: String,
    },
    /// A stage has state of another module, or of a later version.
    #[error(
        "stage {stage} keeps state of {before}, and would be {now}: run `weir pipeline reset {pipeline}` to delete its \
         state, then apply again"
    )]
    OtherState {
        /// Name of the pipeline.
        pipeline: String,
        /// Stage, counted from 1.
        stage: usize,
        /// Owner of the state.
        before: String,
        /// Owner after the change.
        now: String,
    },
    /// The limit of pipelines is reached.
    #[error("the limit of {0} pipelines is reached: remove some")]
    Full(usize),
    /// All pipelines together exceed a limit.
    #[error(
        "all pipelines together would have {wanted} {what}, and the limit is {limit}: remove or shrink some"
    )]
    Together {
        /// Limited quantity.
        what: &'static str,
        /// Sum after the change.
        wanted: usize,
        /// Largest sum.
        limit: usize,
    },
    /// No such pipeline.
    #[error("no pipeline `{0}`")]
    NotFound(String),
    /// The site rejected or could not make the change.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

impl ApplyError {
    /// Returns the class of the error, which tells a caller how to react.
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
