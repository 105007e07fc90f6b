//! The Wasm host: the only crate that names wasmtime.
//!
//! Takes components apart from everything else in the node: admits them by what they import ([`inspect`]), compiles
//! them in a process that may die of it ([`compile`]), and runs them on the caller's thread under limits on time,
//! memory and output ([`Instance`]). What comes back from a guest is checked before anybody uses it ([`outcome`]).
//! Knows nothing of topics or pipelines.

mod bindings;
mod child;
mod compile;
mod componentize;
mod configuration;
mod confine;
mod engine;
mod error;
mod host;
mod inspect;
mod instance;
mod limits;
mod outcome;
mod quota;
mod table;
mod timers;
mod words;

pub use child::{Wanted, compile_in_child, componentize_in_child};
pub use compile::CompileBy;
pub use componentize::componentize;
pub use engine::{Module, Runtime, RuntimeOptions};
pub use error::{CallError, CallFailure, InitError, LoadError, StateError};
pub use host::{Instruments, LogLevel, LogSink, Reading};
pub use inspect::{Digest, Inspection, inspect};
pub use instance::{Descriptor, Fired, Instance, InstanceConfig, Moment, ParameterInfo, PlanInfo, Setting};
pub use limits::{CallLimits, STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX};
pub use outcome::{EmittedRecord, Outcome, Placement, Rejection};
pub use quota::Quota;
pub use table::{Mark, Table, row_bytes};
pub use timers::{Timer, TimerClock};
