//! Pipelines: joins the broker and the module runtime.
//!
//! A pipeline sends the records of its sources through modules, either in-line, before they are stored, or as
//! a log pipeline that reads stored records. The crate owns the text of a pipeline ([`Spec`]), the store of
//! modules, and the threads that run modules over batches. It does not use the log or wasmtime directly.
//!
//! Rooms, from top to bottom; each imports only from those below:
//!
//! - `site`: opening, following the site's rows, the broker's hook
//! - `manage`: changes and views of pipelines and modules
//! - `worker`: threads
//! - `partition`: state and position of a partition; `module_store`
//! - `stages`: records through modules; `error`
//! - `spec`: the text of a pipeline, and its stored row
//! - `priority`: scheduling of threads; `json`: a value by its path
//! - `sync`: locks

mod error;
pub mod json;
mod manage;
mod module_store;
mod partition;
mod priority;
mod site;
mod spec;
mod stages;
mod worker;

pub use error::{ApplyError, CanaryError, PushError};
pub use manage::info::PipelineInfo;
pub use manage::inspect::{Page, Remembered, What};
pub use manage::plan::{Difference, Plan};
pub use manage::registry::Pipelines;
pub use manage::revisions::Revision;
pub use manage::shadow::report::{Example, Shadowed, Side, Told};
pub use module_store::{ModuleInfo, ModuleRef};
pub use partition::place::Place;
pub use priority::Priority;
pub use spec::Spec;
pub use spec::error::SpecError;
pub use spec::event_time::{EventTime, Future, OnBadTime};
pub use spec::guard::Guard;
pub use spec::on_error::{OnError, Policy};
pub use spec::source::{At, Origin, Sources};
pub use spec::stage::Stage;
pub use stages::dead_letter;
pub use worker::counts::{Counts, State};
