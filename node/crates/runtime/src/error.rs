//! What can go wrong with a module, by when.

use crate::limits::{STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX};
use std::io;
use std::time::Duration;
use weir_types::ErrorKind;
use weir_types::limits::STATE_CHANGES_BYTES_MAX;

/// Why a component was not taken.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum LoadError {
    #[error(
        "not a component: {0}. Build for wasm32-unknown-unknown with `weir-sdk`, or make a component of it"
    )]
    NotAComponent(String),
    #[error("component of {bytes} bytes is over the limit of {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("a function of {bytes} bytes is over the limit of {limit}: it would take too long to compile")]
    FunctionTooLarge { bytes: usize, limit: usize },
    #[error(
        "functions of the module declare more local variables than it has bytes, {0}: each takes the compiler its time, and no \
         compiler makes variables that nothing uses"
    )]
    Locals(usize),
    #[error(
        "component imports `{import}`, which is not granted; a module may import `weir:module/log` and \
         `weir:module/metrics`, `weir:module/state` and `weir:module/timers` where a stage grants them, and link an empty WASI 0.2. Build it for world `plain`"
    )]
    Import { import: String },
    #[error(
        "component does not export `weir:module/transform@0.1.0`: implement `Module` and call `weir_sdk::export!`"
    )]
    NoExport,
    #[error(
        "component imports `weir:module/timers` and does not export `weir:module/timed@0.1.0`: its timers would fire into \
         nothing. Build it for world `with-timers`"
    )]
    NotTimed,
    #[error("component does not compile: {0}")]
    Compile(String),
    #[error("component is not compiled: {0}")]
    Costly(String),
    #[error("component does not fit the contract: {0}")]
    Contract(String),
    #[error("`describe` failed: {0}")]
    Describe(CallFailure),
    #[error("{what} of the module is too long: {bytes}, at most {limit} are allowed")]
    Text {
        what: String,
        bytes: usize,
        limit: usize,
    },
    #[error("cannot use the module cache")]
    Io(#[from] io::Error),
}

impl LoadError {
    /// What the caller does.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io(_) => ErrorKind::Internal,
            Self::NotAComponent(_)
            | Self::TooLarge { .. }
            | Self::FunctionTooLarge { .. }
            | Self::Locals(_)
            | Self::Import { .. }
            | Self::NoExport
            | Self::NotTimed
            | Self::Compile(_)
            | Self::Costly(_)
            | Self::Contract(_)
            | Self::Text { .. }
            | Self::Describe(_) => ErrorKind::Invalid,
        }
    }
}

/// Why an instance could not be made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum InitError {
    #[error("there is no parameter `{name}`; {}", known_parameters(name, known))]
    UnknownParameter { name: String, known: Vec<String> },
    #[error("parameter `{0}` has to be set")]
    Missing(String),
    #[error("parameter `{name}` is a {want}, `{value}` is not")]
    Kind {
        name: String,
        want: &'static str,
        value: String,
    },
    #[error("module refuses its settings: {0}")]
    Refused(String),
    #[error("module has {0} outputs, at most 250 are possible")]
    Outputs(usize),
    #[error(
        "output {0} of the module has a name that cannot be one: use 1 to 249 letters, digits, `.`, `_` or `-`"
    )]
    OutputName(usize),
    #[error("`init` failed: {0}")]
    Failed(CallFailure),
}

impl InitError {
    /// What the caller does: all of these are for whoever wrote the settings or the module.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// How a call ended other than by returning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CallFailure {
    #[error("ran over its deadline of {0:?}")]
    Deadline(Duration),
    #[error("asked for more than its {0} bytes of memory, and stopped")]
    Memory(usize),
    #[error("found no memory: the modules of this node have {0} bytes together, and they are taken")]
    Full(u64),
    #[error("found no memory: what all pipelines of this node remember has reached its {0} bytes")]
    Crowded(u64),
    #[error("returned or handed over more than {0} bytes in one call")]
    Output(usize),
    #[error(
        "what it returned stands for {bytes} bytes of records, all outputs together: at most {limit} are allowed"
    )]
    Effects { bytes: usize, limit: usize },
    #[error("changed {bytes} bytes of its state for one record: at most {limit} are allowed")]
    Changes { bytes: usize, limit: usize },
    #[error("trapped: {0}")]
    Trap(String),
    #[error("stopped at its state: {0}")]
    State(String),
    #[error("returned nonsense: {0}")]
    Lies(String),
    #[error("host failed: {0}")]
    Host(String),
}

/// Why a batch has no outcome. The instance is not to be used again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CallError {
    #[error(transparent)]
    Failed(CallFailure),
    #[error("asks to be tried again: {0}")]
    Retry(String),
    #[error("cannot process record {0}: {1}")]
    Poison(u32, String),
    #[error("gives up: {0}")]
    Fatal(String),
}

/// Why a row was not written. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum StateError {
    #[error("a key of its state has {0} bytes; at most {STATE_KEY_BYTES_MAX} are allowed")]
    Key(usize),
    #[error("a value of its state has {0} bytes; at most {STATE_VALUE_BYTES_MAX} are allowed")]
    Value(usize),
    #[error(
        "what its pipeline remembers, on all partitions, has reached {0} bytes: have it remove what it does not need, or raise `limits.state_bytes`"
    )]
    Quota(u64),
    #[error(
        "what all pipelines of this node remember has reached {0} bytes: have them remove what they do not need"
    )]
    Node(u64),
    #[error("a batch changes more than {STATE_CHANGES_BYTES_MAX} bytes of its state: send smaller ones")]
    Changes,
}

/// The parameters that a module has, the nearest to a misspelt name first.
fn known_parameters(name: &str, known: &[String]) -> String {
    match known.iter().min_by_key(|word| strsim::levenshtein(word, name)) {
        None => "the module has none".to_owned(),
        Some(nearest) => format!("the nearest is `{nearest}`; the module has {}", known.join(", ")),
    }
}
