//! Pipelines, in-line and behind the log: joins the broker and the module runtime.
//!
//! Owns what a pipeline is ([`Spec`]), the modules that were pushed ([`store`]), and a thread per pipeline that runs
//! its stages over each batch ([`lane`], [`chain`]), or several that read the log ([`behind`]). What failed goes where the pipeline's policy says. Knows neither
//! the log nor wasmtime.

mod apply;
mod canary;
mod error;
mod follow;
mod history;
mod hooked;
mod info;
pub mod json;
mod module_store;
mod modules;
mod partition;
mod pipelines;
mod plan;
mod priority;
mod remembered;
mod services;
mod shadow;
mod shares;
mod spec;
mod stages;
mod upgrade;
mod worker;

pub use error::{ApplyError, CanaryError, PushError};
pub use history::Revision;
pub use info::PipelineInfo;
pub use module_store::{ModuleInfo, ModuleRef};
pub use partition::place::Place;
pub use pipelines::Pipelines;
pub use plan::{Difference, Plan};
pub use priority::Priority;
pub use remembered::{Page, Remembered, What};
pub use services::{NodeStatus, Services};
pub use shadow::{Example, Shadowed, Side, Told};
pub use spec::Spec;
pub use spec::error::SpecError;
pub use spec::event_time::{EventTime, Future, OnBadTime};
pub use spec::guard::Guard;
pub use spec::on_error::{OnError, Policy};
pub use spec::source::{At, Origin, Sources};
pub use spec::stage::Stage;
pub use stages::dead_letter;
pub use worker::counts::{Counts, State};
