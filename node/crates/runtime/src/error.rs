//! Errors of modules, by stage.

use crate::limits::{STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX};
use std::io;
use std::time::Duration;
use weir_types::ErrorKind;
use weir_types::limits::STATE_CHANGES_BYTES_MAX;

/// A component that was refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The bytes are not a component.
    #[error(
        "not a component: {0}. Build for wasm32-unknown-unknown with `weir-sdk`, or make a component of it"
    )]
    NotAComponent(String),
    /// The component is over the limit.
    #[error("component of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Actual bytes.
        bytes: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// A function is too large to compile in time.
    #[error("a function of {bytes} bytes is over the limit of {limit}: it would take too long to compile")]
    FunctionTooLarge {
        /// Actual bytes.
        bytes: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// The functions declare more local variables than the module has bytes.
    #[error(
        "functions of the module declare more local variables than it has bytes, {0}: each takes the compiler its time, and no \
         compiler makes variables that nothing uses"
    )]
    Locals(usize),
    /// An import is not granted.
    #[error(
        "component imports `{import}`, which is not granted; a module may import `weir:module/log` and \
         `weir:module/metrics`, `weir:module/state` and `weir:module/timers` where a stage grants them, and link an empty WASI 0.2. Build it for world `plain`"
    )]
    Import {
        /// Name of the interface.
        import: String,
    },
    /// The export `transform` is missing.
    #[error(
        "component does not export `weir:module/transform@0.1.0`: implement `Module` and call `weir_sdk::export!`"
    )]
    NoExport,
    /// The module imports timers without the export `timed`.
    #[error(
        "component imports `weir:module/timers` and does not export `weir:module/timed@0.1.0`: its timers would fire into \
         nothing. Build it for world `with-timers`"
    )]
    NotTimed,
    /// The compilation failed.
    #[error("component does not compile: {0}")]
    Compile(String),
    /// A recent compilation took too much, and is not repeated yet.
    #[error("component is not compiled: {0}")]
    Costly(String),
    /// The component does not match the contract.
    #[error("component does not fit the contract: {0}")]
    Contract(String),
    /// The call of `describe` failed.
    #[error("`describe` failed: {0}")]
    Describe(CallFailure),
    /// A text of the module is too long.
    #[error("{what} of the module is too long: {bytes}, at most {limit} are allowed")]
    Text {
        /// Name of the field or text.
        what: String,
        /// Actual bytes.
        bytes: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// The module cache cannot be used.
    #[error("cannot use the module cache")]
    Io(#[from] io::Error),
}

impl LoadError {
    /// Returns the caller's way to react.
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

/// An instance that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A setting names no parameter.
    #[error("there is no parameter `{name}`; {}", known_parameters(name, known))]
    UnknownParameter {
        /// Name of the parameter.
        name: String,
        /// Names of all parameters.
        known: Vec<String>,
    },
    /// A required parameter is not set.
    #[error("parameter `{0}` has to be set")]
    Missing(String),
    /// A setting is of the wrong kind.
    #[error("parameter `{name}` is a {want}, `{value}` is not")]
    Kind {
        /// Name of the parameter.
        name: String,
        /// Expected kind.
        want: &'static str,
        /// The setting.
        value: String,
    },
    /// The module refuses its settings.
    #[error("module refuses its settings: {0}")]
    Refused(String),
    /// The module has too many outputs.
    #[error("module has {0} outputs, at most 250 are possible")]
    Outputs(usize),
    /// The name of an output is invalid.
    #[error(
        "output {0} of the module has a name that cannot be one: use 1 to 249 letters, digits, `.`, `_` or `-`"
    )]
    OutputName(usize),
    /// The call of `init` failed.
    #[error("`init` failed: {0}")]
    Failed(CallFailure),
}

impl InitError {
    /// Returns the caller's way to react: the author of the settings or of the module must act.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// A call that ended without returning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// The call exceeded its deadline.
    #[error("ran over its deadline of {0:?}")]
    Deadline(Duration),
    /// The guest exceeded its memory.
    #[error("asked for more than its {0} bytes of memory, and stopped")]
    Memory(usize),
    /// The memory of all modules of the node is exhausted.
    #[error("found no memory: the modules of this node share {0} bytes, which are in use")]
    Full(u64),
    /// The state of all pipelines of the node has reached its limit.
    #[error("found no memory: the state of all pipelines of this node has reached its {0} bytes")]
    Crowded(u64),
    /// The call returned or passed on too many bytes.
    #[error("returned or passed more than {0} bytes in a call")]
    Output(usize),
    /// The records of the outcome exceed the limit.
    #[error("the outcome makes {bytes} bytes of records on all outputs: at most {limit} are allowed")]
    Effects {
        /// Actual bytes.
        bytes: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// The changes of state for a record exceed the limit.
    #[error("changed {bytes} bytes of its state for one record: at most {limit} are allowed")]
    Changes {
        /// Actual bytes.
        bytes: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// The guest trapped.
    #[error("trapped: {0}")]
    Trap(String),
    /// The guest was stopped at an access to its state.
    #[error("stopped at its state: {0}")]
    State(String),
    /// The outcome is inconsistent.
    #[error("returned nonsense: {0}")]
    Lies(String),
    /// The host failed.
    #[error("host failed: {0}")]
    Host(String),
}

/// A batch without an outcome. The instance must not be used again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The call did not return an outcome.
    #[error(transparent)]
    Failed(CallFailure),
    /// The module asks for another attempt.
    #[error("asks for a retry: {0}")]
    Retry(String),
    /// The module cannot process the record at this index.
    #[error("cannot process record {0}: {1}")]
    Poison(u32, String),
    /// The module gives up.
    #[error("gives up: {0}")]
    Fatal(String),
}

/// A row that was not written. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The key is too long.
    #[error("a key of its state has {0} bytes; at most {STATE_KEY_BYTES_MAX} are allowed")]
    Key(usize),
    /// The value is too long.
    #[error("a value of its state has {0} bytes; at most {STATE_VALUE_BYTES_MAX} are allowed")]
    Value(usize),
    /// The state of the pipeline has reached its limit.
    #[error(
        "the state of its pipeline, on all partitions, has reached {0} bytes: remove rows that are not needed, or raise `limits.state_bytes`"
    )]
    Quota(u64),
    /// The state of all pipelines of the node has reached its limit.
    #[error("the state of all pipelines of this node has reached {0} bytes: remove old state")]
    Node(u64),
    /// The batch changes too much state.
    #[error("a batch changes more than {STATE_CHANGES_BYTES_MAX} bytes of state: send smaller batches")]
    Changes,
}

/// Lists a module's parameters, the nearest to a misspelt name first.
fn known_parameters(name: &str, known: &[String]) -> String {
    match known.iter().min_by_key(|word| strsim::levenshtein(word, name)) {
        None => "the module has none".to_owned(),
        Some(nearest) => format!("the nearest is `{nearest}`; the module has {}", known.join(", ")),
    }
}
