//! Pipelines, in-line and behind the log: joins the broker and the module runtime.
//!
//! Owns what a pipeline is ([`Spec`]), the modules that were pushed ([`store`]), and a thread per pipeline that runs
//! its stages over each batch ([`lane`], [`chain`]), or several that read the log ([`behind`]). What failed goes where the pipeline's policy says. Knows neither
//! the log nor wasmtime.

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
pub use site::services::{NodeStatus, Services};
pub use spec::Spec;
pub use spec::error::SpecError;
pub use spec::event_time::{EventTime, Future, OnBadTime};
pub use spec::guard::Guard;
pub use spec::on_error::{OnError, Policy};
pub use spec::source::{At, Origin, Sources};
pub use spec::stage::Stage;
pub use stages::dead_letter;
pub use worker::counts::{Counts, State};
