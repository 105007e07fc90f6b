//! The Wasm host: the only crate that names wasmtime.
//!
//! Handles components apart from everything else in the node. A component is admitted by its imports
//! ([`inspect`]), compiled in a process that may die (`compile`), and run on the caller's thread under limits
//! on time, memory and output ([`Instance`]). Answers of a guest are checked before any use
//! (`instance::outcome`). The crate knows nothing of topics or pipelines.
//!
//! Rooms, top to bottom; imports point downwards only: `engine`, `instance` > `module` > `inspect`, `ticker`
//! > `host` > `state`, `compile` > `error` > `bindings`, `digest`, `limits`, `moment`, `words`.

mod bindings;
mod compile;
mod digest;
mod engine;
mod error;
mod host;
mod inspect;
mod instance;
mod limits;
mod module;
mod moment;
mod state;
mod ticker;
mod words;

pub use compile::child::{Wanted, compile_in_child, componentize_in_child};
pub use compile::componentize::componentize;
pub use compile::native::CompileBy;
pub use digest::Digest;
pub use engine::{Runtime, RuntimeOptions};
pub use error::{CallError, CallFailure, InitError, LoadError, StateError};
pub use host::log::{LogLevel, LogSink};
pub use host::metrics::{Instruments, Reading};
pub use inspect::{Inspection, inspect};
pub use instance::outcome::{EmittedRecord, Outcome, Placement, Rejection};
pub use instance::{Fired, Instance, InstanceConfig, PlanInfo};
pub use limits::{CallLimits, STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX};
pub use module::{Descriptor, Module, ParameterInfo, Setting};
pub use moment::Moment;
pub use state::quota::Quota;
pub use state::table::{Mark, Table, row_bytes};
pub use state::timers::{Timer, TimerClock};
